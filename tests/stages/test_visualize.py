import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.embedding import reconstructions
from vae_jax.embedding.reconstructions import Reconstructions
from vae_jax.errors import UserError
from vae_jax.plots import figures
from vae_jax.run import Run
from vae_jax.stages.visualize import _color_columns, _curves, visualize
from vae_jax.storage import files
from vae_jax.training.history import RATE, History

N = 60
GENRES = ("blues", "classical", "hip hop", "$uicideboy$ & co", "_metal", "rock")
LANGUAGES = ("English", "中文", "العربية")

pytestmark = pytest.mark.filterwarnings("error")


def write_run(outdir: Path, n: int = N, spectrograms: bool = True) -> None:
    """Write what the earlier stages leave of `n` tracks in three clusters."""
    rng = np.random.default_rng(0)
    clusters = np.arange(n) % 3
    ids = np.array([f"track{i:03}" for i in range(n)])
    latents = (4 * np.eye(3, 16)[clusters] + rng.normal(size=(n, 16))).astype(np.float32)
    outdir.mkdir(parents=True, exist_ok=True)
    files.write_npz(outdir / "latents.npz", ids=ids, latents=latents, log_variances=latents)
    files.write_npz(outdir / "baselines/pca.npz", ids=ids[::-1], latents=latents[::-1, :8])
    noise = clusters.copy()
    noise[::10] = -1
    rows = [
        {
            "id": ids[i],
            "cluster": noise[i],
            "distance": 1.0,
            "silhouette": "" if noise[i] < 0 else rng.normal(0.25, 0.15),
            "pca_cluster": clusters[i],
        }
        for i in rng.permutation(n)
    ]
    files.write_csv(outdir / "clusters.csv", list(rows[0]), rows)
    write_metadata(outdir / "metadata.csv", ids, clusters, rng)
    write_history(outdir, rng)
    write_reconstructions(outdir / "reconstructions.npz", ids[:4], spectrograms, rng)


def write_metadata(path: Path, ids, clusters, rng) -> None:
    rows = [
        {
            "id": id_,
            "genre": GENRES[2 * cluster + (rng.random() < 0.5)] if i % 12 else "",
            "language": LANGUAGES[rng.integers(len(LANGUAGES))],
            "label": "same everywhere",
        }
        for i, (id_, cluster) in enumerate(zip(ids, clusters, strict=True))
    ]
    files.write_csv(path, list(rows[0]), rows)


def write_history(outdir: Path, rng) -> None:
    log = History(outdir, 0)
    for step in range(50, 2001, 50):
        decay = np.exp(-step / 300)
        train = {"loss": 60 + 60 * decay, "reconstruction": 45 + 75 * decay, "kl": 15 - 15 * decay}
        train = {f"train/{name}": value + rng.normal() for name, value in train.items()}
        train |= {
            "train/beta": min(1, step / 500),
            "train/steps_per_second": 900 + 30 * rng.random(),
        }
        log.log(step, train)
        if step % 250 == 0:
            held_out = {"loss": 64 + 60 * decay, "reconstruction": 49 + 75 * decay}
            held_out |= {"kl": 15 - 15 * decay, "active_units": 7 + step // 500}
            log.log(step, {f"eval/{name}": value for name, value in held_out.items()})
    log.close()


def write_reconstructions(path: Path, ids, spectrograms: bool, rng) -> None:
    frames, bands, features = 128, 64, 40
    if not spectrograms:
        inputs = rng.normal(size=(len(ids), features)).astype(np.float32)
        basis = rng.normal(size=(5, 1, features))
        traversals = np.linspace(-3, 3, 7)[:, None] * basis * 0.2
        decoded = [ids, inputs, 0.8 * inputs, np.zeros(features), np.ones(features), traversals]
        values = np.tile(np.linspace(-3, 3, 7), (5, 1))
        reconstructions.write(path, Reconstructions(*decoded, np.arange(5), values))
        return
    time, band = np.arange(frames)[:, None], np.arange(bands)
    inputs = np.stack(
        [
            -60
            + 40 * np.exp(-((band - 20 - 10 * np.sin(time / (5 + 3 * i))) ** 2) / 40)
            + rng.normal(size=(frames, bands)) * 3
            for i in range(len(ids))
        ]
    ).astype(np.float32)
    outputs = np.stack(
        [np.apply_along_axis(np.convolve, 0, x, np.ones(9) / 9, "same") for x in inputs]
    )
    values = np.tile(np.linspace(-1, 1, 7), (3, 1))
    traversals = outputs[:1, None] * (1 + 0.2 * values[..., None, None])
    hertz = 700 * (10 ** (np.linspace(0, 3.9, bands) / 2.595 * 1.0) - 1) + 20
    data = Reconstructions(
        ids=ids,
        inputs=inputs,
        outputs=outputs.astype(np.float32),
        center=inputs.mean(axis=(0, 1)),
        scale=inputs.std(axis=(0, 1)),
        traversals=traversals.astype(np.float32),
        dimensions=np.arange(3),
        values=values,
        hop_seconds=512 / 22050,
        mel_frequencies=hertz,
    )
    reconstructions.write(path, data)


def draw(outdir: Path, baselines=("pca",), condition: str = "", **settings) -> list[Path]:
    config = get_config()
    config.update(manifest=str(outdir / "metadata.csv"), baselines=baselines)
    config.model.condition = condition
    config.visualize.update({"method": "pca"} | settings)
    return visualize(Run(config, outdir))


@pytest.fixture
def titles(monkeypatch) -> dict[str, str]:
    """Titles of the figures that a run saves, by file name."""
    seen: dict[str, str] = {}

    def save(figure, path):
        seen[path.stem] = figure.get_suptitle() or figure.axes[0].get_title(loc="left")

    monkeypatch.setattr(figures, "save", save)
    return seen


def test_a_run_is_drawn_from_every_side_and_every_picture_decodes(tmp_path):
    write_run(tmp_path)
    written = draw(tmp_path)
    names = sorted(path.name for path in written)
    assert names == [
        "pca_clusters_by_genre.png",
        "pca_clusters_by_language.png",
        "pca_pca.csv",
        "pca_pca_by_genre.png",
        "pca_pca_by_language.png",
        "pca_pca_clusters.png",
        "reconstructions.png",
        "training_curves.png",
        "traversals.png",
        "vae_clusters_by_genre.png",
        "vae_clusters_by_language.png",
        "vae_pca.csv",
        "vae_pca_by_genre.png",
        "vae_pca_by_language.png",
        "vae_pca_clusters.png",
        "vae_silhouette.png",
    ]
    folder = tmp_path / "latent_visualization"
    assert {path for path in folder.rglob("*") if path.is_file()} == {*written}
    assert {path.name for path in (folder / "more").iterdir()} == {
        name for name in names if name.startswith("pca_") and "_by_" in name
    }
    for path in written:
        if path.suffix == ".png":
            height, width, _ = imread(path).shape
            assert min(height, width) > 300
            assert max(height, width) < 2500


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_same_inputs_and_seed_give_the_same_files_byte_for_byte(tmp_path, method):
    write_run(tmp_path, n=20)
    settings = {"baselines": (), "method": method, "color_by": ()}
    (tmp_path / "reconstructions.npz").unlink()
    first = {path: path.read_bytes() for path in draw(tmp_path, **settings)}
    again = {path: path.read_bytes() for path in draw(tmp_path, **settings)}
    assert len(first) == 4
    assert first == again


def test_the_coordinates_are_written_in_the_order_of_the_embedding(tmp_path, titles):
    write_run(tmp_path)
    draw(tmp_path)
    rows = files.read_csv(tmp_path / "latent_visualization/pca_pca.csv")
    assert [row["id"] for row in rows] == files.read_npz(tmp_path / "baselines/pca.npz")[
        "ids"
    ].tolist()
    assert all(np.isfinite([float(row["x"]), float(row["y"])]).all() for row in rows)


def test_titles_say_what_and_how_many(tmp_path, titles):
    write_run(tmp_path)
    draw(tmp_path)
    assert titles["vae_pca_clusters"] == "VAE latents (16-d), PCA, coloured by cluster, n = 60"
    assert titles["pca_pca_by_genre"] == "PCA (8-d), PCA, coloured by genre, n = 60"
    assert titles["vae_silhouette"] == "VAE latents (16-d), silhouettes, n = 54"
    assert titles["reconstructions"] == "Inputs and reconstructions, n = 4"


def test_of_columns_with_equal_values_only_the_first_colours_plots(tmp_path, titles):
    write_run(tmp_path)
    rows = files.read_csv(tmp_path / "metadata.csv")
    rows = [row | {"label": row["genre"]} for row in rows]
    files.write_csv(tmp_path / "metadata.csv", list(rows[0]), rows)
    draw(tmp_path, baselines=(), color_by=("label", "language", "genre"))
    assert {"vae_pca_by_label", "vae_pca_by_language"} <= titles.keys()
    assert "vae_pca_by_genre" not in titles


def test_spellings_of_a_value_are_one_colour(tmp_path):
    rows = [("Rock", "en"), ("rock", "English"), ("Rock;Pop", "eng"), ("Jazz", "de")]
    tracks = [{"id": f"{i}", "genre": g, "language": code} for i, (g, code) in enumerate(rows)]
    files.write_csv(tmp_path / "metadata.csv", list(tracks[0]), tracks)
    read = manifest.read(tmp_path / "metadata.csv")
    columns = _color_columns(read, ["genre", "language"], read.ids)
    assert columns == {
        "genre": ["Rock", "Rock", "Rock", "Jazz"],
        "language": ["en", "en", "en", "de"],
    }


def test_every_plot_of_a_supervised_method_says_so(tmp_path, titles):
    write_run(tmp_path)
    draw(tmp_path, baselines=(), condition="genre")
    assert titles["vae_pca_clusters"].startswith("VAE latents (16-d) (supervised), PCA")
    assert all("(supervised)" in title for title in titles.values())


def test_what_has_no_data_is_left_out(tmp_path, titles):
    write_run(tmp_path)
    rows = files.read_csv(tmp_path / "clusters.csv")
    files.write_csv(
        tmp_path / "clusters.csv",
        ["id", "cluster", "silhouette"],
        [{"id": row["id"], "cluster": row["cluster"]} for row in rows],
    )
    (tmp_path / "train_metrics.jsonl").unlink()
    (tmp_path / "reconstructions.npz").unlink()
    draw(tmp_path, color_by=("genre", "no such column"))
    assert sorted(titles) == [
        "pca_pca_by_genre",
        "vae_clusters_by_genre",
        "vae_pca_by_genre",
        "vae_pca_clusters",
    ]


def test_clusters_of_the_mixture_are_drawn_on_the_map_of_the_vae(tmp_path, titles):
    write_run(tmp_path)
    rows = files.read_csv(tmp_path / "clusters.csv")
    rows = [row | {"mixture_cluster": i % 3} for i, row in enumerate(rows)]
    files.write_csv(tmp_path / "clusters.csv", list(rows[0]), rows)
    draw(tmp_path, baselines=())
    title = "VAE latents (16-d), PCA, coloured by cluster of its mixture, n = 60"
    assert titles["vae_pca_mixture"] == title


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_run_of_one_two_or_three_tracks_is_drawn(tmp_path, n):
    write_run(tmp_path, n=n)
    (tmp_path / "reconstructions.npz").unlink()
    written = draw(tmp_path, baselines=(), method="umap", color_by=("genre",))
    names = {path.name for path in written}
    assert "vae_pca_clusters.png" in names


def test_metrics_that_were_not_finite_are_gaps(tmp_path, titles):
    write_run(tmp_path)
    (tmp_path / "train_metrics.jsonl").unlink()
    log = History(tmp_path, 0)
    log.log(1, {"train/loss": np.nan})
    log.log(2, {"train/loss": 3.0})
    log.close()
    draw(tmp_path)
    assert "training_curves" in titles


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("clusters.csv", None, "clusters.csv does not exist: run --stage=cluster first"),
        ("clusters.csv", "id,cluster\ntrack000,0\n", "lacks the track 'track001'"),
        ("clusters.csv", "id,cluster\ntrack000,0\ntrack001,\n", "no cluster for .*track001"),
        ("clusters.csv", "id,cluster\ntrack000,0\ntrack001,x\n", "damaged .column cluster"),
        ("latents.npz", None, "latents.npz does not exist"),
        ("latents.npz", "not a zip file", "latents.npz is damaged"),
    ],
)
def test_missing_or_damaged_results_are_named(tmp_path, name, text, message):
    write_run(tmp_path, n=2)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        draw(tmp_path)


@pytest.mark.slow
def test_drawing_imports_neither_jax_nor_librosa_nor_pyplot_and_umap_only_when_used(tmp_path):
    write_run(tmp_path, n=10)
    code = f"""
        import sys
        from pathlib import Path
        from vae_jax import config
        from vae_jax.run import Run
        from vae_jax.stages.visualize import visualize
        config = config.get_config()
        config.update(manifest={str(tmp_path / "metadata.csv")!r}, baselines=())
        config.visualize.method = "pca"
        visualize(Run(config, Path({str(tmp_path)!r})))
        heavy = {{"jax", "flax", "librosa", "umap", "matplotlib.pyplot"}}
        sys.exit(", ".join(heavy & set(sys.modules)) or None)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_speed_of_a_machine_is_not_in_the_curves() -> None:
    lines = [{"step": 1, "train/loss": 2.0, RATE: 900.0}]
    assert list(_curves(lines)) == ["train/loss"]
