"""The commands of the README on a small collection with lyrics, as users type them.

They share one folder, so features and checkpoints of one command serve the next, as they do for
users.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vae_jax
from tests.explorer import browser
from vae_jax import demo, manifest
from vae_jax.embedding import reconstructions
from vae_jax.storage import files

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
NUM_TRACKS = 24
SMALL = {
    "manifest": "music/metadata.csv",
    "feature.sample_rate": 8000,
    "feature.duration": 1.5,
    "feature.n_fft": 512,
    "feature.hop_length": 256,
    "feature.n_mels": 32,
    "feature.num_workers": 1,
    "model.latent_dim": 4,
    "model.hidden_dims": (16,),
    "model.channels": (4, 8),
    "model.segment_frames": 16,
    "train.num_steps": 6,
    "train.batch_size": 8,
    "baselines": ("pca",),
    "cluster.num_clusters": 4,
    "cluster.num_seeds": 2,
    "cluster.n_init": 1,
    "visualize.color_by": ("genre",),
    "visualize.method": "pca",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a collection, in which commands leave features, checkpoints and results."""
    path = tmp_path_factory.mktemp("commands")
    demo.synthesise(path / "music", num_tracks=NUM_TRACKS, duration=1.5, sample_rate=8000)
    (path / "configs").symlink_to(REPOSITORY / "configs")
    return path


def call(folder: Path, module: str, *arguments: str) -> tuple[str, str]:
    """Run a module in the folder; return what it prints and what it logs."""
    command = [sys.executable, "-m", f"vae_jax.{module}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def main(folder: Path, *arguments: str, **small: object) -> tuple[str, str]:
    """Run the main command with small settings, which the arguments override."""
    settings = [f"--config.{key}={value}" for key, value in (SMALL | small).items()]
    return call(folder, "main", arguments[0], *settings, *arguments[1:])


def rows(results: Path) -> list[dict[str, str]]:
    """Return the rows of the latest clustering."""
    table = files.read_csv(results / "clustering_metrics.csv")
    return [row for row in table if row["run_id"] == table[-1]["run_id"]]


def drawn(results: Path) -> set[str]:
    """Return the names of the plots, of which none is nearly empty."""
    plots = list((results / "latent_visualization").rglob("*.png"))
    assert all(plot.stat().st_size > 5000 for plot in plots)
    return {plot.stem for plot in plots}


def decoded(results: Path) -> reconstructions.Reconstructions:
    """Return the reconstructions, after a look at what holds for all."""
    data = reconstructions.read(results / "reconstructions.npz")
    assert data.inputs.shape == data.outputs.shape
    assert data.traversals.shape == (4, *data.values.shape[1:], *data.inputs.shape[1:])
    assert sorted(data.dimensions) == [0, 1, 2, 3]
    assert np.isfinite(data.outputs).all()
    return data


@pytest.fixture(scope="module")
def mlp(folder):
    """Results of MFCC + k-means with UMAP, with all baselines."""
    out, _ = main(
        folder,
        "--config=configs/mlp.py",
        "--config.visualize.method=umap",
        "--config.visualize.n_neighbors=5",
        "--config.baselines=('pca','raw','ae')",
    )
    assert re.search(r"^vae\b", out, re.MULTILINE)
    return folder / "results" / "mlp"


def test_the_explorer_shows_that_run_with_its_maps_and_plays_it(folder, mlp):
    run = vae_jax.load(mlp)
    call(folder, "explore", "results/mlp", "--output=map.html")
    with browser.started() as chromium, chromium.open(folder / "map.html") as page:
        maps = page.locator("#maps option").all_text_contents()
        assert len(maps) == 4
        assert maps[0] == "VAE · UMAP"
        assert any("PCA" in one for one in maps)
        for i in range(4):
            page.select_option("#maps", index=i)
        page.locator("#surface").focus()
        page.keyboard.press("ArrowRight")
        row = run.positions[page.text_content("#track dd")]
        expected = [run.positions[id_] for id_, _ in run.neighbours(run.ids[row], k=NUM_TRACKS - 1)]
        assert browser.rows_of(page, "#neighbours") == expected
        page.keyboard.press("Enter")
        browser.until(page, "parseFloat(document.getElementById('seek').value) > 0.5")


@pytest.fixture(scope="module")
def conv(folder):
    """Results of conv2d on log-mel spectrograms with k-means."""
    main(folder, "--config=configs/conv.py")
    return folder / "results" / "conv"


def test_mfcc_with_kmeans_and_umap_beside_pca_raw_features_and_an_autoencoder(mlp):
    found = [row for row in rows(mlp) if row["clusterer"] == "kmeans"]
    assert {row["method"] for row in found} == {"vae", "pca", "raw", "ae"}
    assert {row["feature"] for row in found} == {"mfcc"}
    for method in ("vae", "pca", "raw", "ae"):
        assert {f"{method}_umap_clusters", f"{method}_umap_by_genre"} <= drawn(mlp)
    assert {"training_curves", "reconstructions", "traversals"} <= drawn(mlp)
    assert decoded(mlp).inputs.shape == (8, 40)
    autoencoder = files.read_npz(mlp / "baselines" / "ae.npz")
    assert np.all(autoencoder["latents"].std(axis=0) > 0)


def test_tsne_instead_of_umap_for_the_vae_and_pca(folder, mlp):
    _, err = main(
        folder,
        "--config=configs/mlp.py",
        "--config.visualize.method=tsne",
    )
    assert "train: up to date" in err
    assert {"vae_tsne_clusters", "pca_tsne_clusters", "pca_tsne_by_genre"} <= drawn(mlp)


@pytest.mark.parametrize("clusterer", ["gmm", "agglomerative", "hdbscan", "spectral"])
def test_every_clusterer_scores_all_methods(folder, mlp, clusterer):
    outdir = f"results/{clusterer}"
    for name in ("latents.npz", "baselines"):
        (folder / outdir).mkdir(parents=True, exist_ok=True)
        (folder / outdir / name).symlink_to(mlp / name)
    main(
        folder,
        "--config=configs/mlp.py",
        "--stage=cluster",
        f"--config.cluster.method={clusterer}",
        "--config.cluster.min_samples=2",
        f"--outdir={outdir}",
    )
    found = rows(folder / outdir)
    assert {(row["method"], row["clusterer"]) for row in found} == {
        (method, clusterer) for method in ("vae", "pca")
    }
    assert any(row["silhouette"] for row in found)


def test_conv2d_on_logmel_with_kmeans(conv):
    assert {(row["model"], row["feature"]) for row in rows(conv)} == {("conv2d", "logmelspec")}
    data = decoded(conv)
    assert data.inputs.shape == (8, 16, 32)
    assert data.hop_seconds == 256 / 8000
    assert len(data.mel_frequencies) == 32
    assert {"vae_pca_clusters", "reconstructions", "traversals"} <= drawn(conv)


def test_conv2d_with_dbscan_trains_nothing_anew(folder, conv):
    _, err = main(
        folder,
        "--config=configs/conv.py",
        "--config.cluster.method=dbscan",
        "--config.cluster.eps=0.8",
        "--config.cluster.min_samples=10",
    )
    assert "train: up to date" in err
    assert "embed: up to date" in err
    found = files.read_csv(conv / "clustering_metrics.csv")
    found = [row for row in found if row["clusterer"] == "dbscan"]
    assert {row["eps"] for row in found} == {"0.8"}
    assert all(0 <= float(row["coverage"]) <= 1 for row in found)


def test_conv2d_on_frames_of_mfcc(folder):
    main(
        folder,
        "--config=configs/conv.py",
        "--config.feature.name=mfcc_frames",
        "--outdir=results/mfcc_frames",
        baselines=(),
    )
    data = decoded(folder / "results" / "mfcc_frames")
    assert data.inputs.shape == (8, 16, 20)
    assert data.mel_frequencies is None


@pytest.mark.parametrize("variant", ["", ":fused", ":logmelspec"])
def test_hybrid_of_audio_and_lyrics(folder, variant):
    outdir = f"results/hybrid{variant.replace(':', '-')}"
    main(
        folder,
        f"--config=configs/hybrid.py{variant}",
        "--config.feature.lyrics_embed_dim=128",
        f"--outdir={outdir}",
        baselines=(),
    )
    model = "mlp" if variant == ":fused" else "multimodal"
    assert {(row["model"], row["feature"]) for row in rows(folder / outdir)} == {(model, "hybrid")}
    assert {"reconstructions", "traversals", "vae_clusters_by_genre"} <= drawn(folder / outdir)
    shape = (16, 32) if variant == ":logmelspec" else (40,)
    assert decoded(folder / outdir).inputs.shape == (8, *shape)


def test_lyrics_alone_and_new_lyrics_through_the_checkpoints_embedding(folder):
    main(folder, "--config=configs/lyrics.py", baselines=())
    results = folder / "results" / "lyrics"
    assert {row["feature"] for row in rows(results)} == {"lyrics_tfidf"}
    assert rows(results)[0]["n_labelled"] == str(NUM_TRACKS)  # languages
    table = files.read_csv(folder / "music" / "metadata.csv")
    files.write_csv(folder / "music" / "few.csv", list(table[0]), table[:6])
    (checkpoint,) = (folder / "checkpoints").glob("lyrics-*")
    call(
        folder,
        "main",
        f"--checkpoint={checkpoint}",
        "--config.manifest=music/few.csv",
        "--config.cluster.num_clusters=2",
        "--outdir=results/few",
    )
    new = files.read_npz(folder / "results" / "few" / "latents.npz")["latents"]
    old = files.read_npz(results / "latents.npz")["latents"][:6]
    np.testing.assert_allclose(new, old, atol=1e-5)
    assert "reconstructions" in drawn(folder / "results" / "few")


def test_a_conditional_vae_is_marked_supervised_in_every_row_and_title(folder):
    out, _ = main(
        folder,
        "--config=configs/mlp.py",
        "--config.model.condition=genre",
        "--outdir=results/conditional",
    )
    results = folder / "results" / "conditional"
    marks = {(row["method"], row["supervised"]) for row in rows(results)}
    assert marks == {("vae", "True"), ("pca", "False")}
    assert "vae (supervised)" in out
    assert "pca (supervised)" not in out
    decoded(results)


@pytest.mark.parametrize(
    ("preset", "shape", "peers"),
    [
        ("mlp", (NUM_TRACKS, 5), ("pca", "raw")),
        ("track", (NUM_TRACKS, 3, 5), ("pca", "raw", "plda")),
    ],
)
def test_vectors_of_another_model_take_the_place_of_features(folder, preset, shape, peers):
    ids = list(manifest.read(folder / "music" / "metadata.csv").ids)
    vectors = np.random.default_rng(0).normal(5, 2, shape)
    vectors[1, ..., 2] = np.nan
    np.savez(folder / f"clap-{preset}.npz", ids=ids[:-1], clap=vectors[:-1])
    arguments = (
        f"--config=configs/{preset}.py",
        "--config.feature.name=embedding",
        f"--config.feature.embedding=clap-{preset}.npz",
        f"--config.baselines={peers}",
        f"--outdir=results/clap-{preset}",
    )
    main(folder, *arguments)
    results = folder / "results" / f"clap-{preset}"
    latents = files.read_npz(results / "latents.npz")
    assert latents["ids"].tolist() == [ids[0], *ids[2:-1]]
    assert np.isfinite(latents["latents"]).all()
    assert [row["id"] for row in files.read_csv(results / "failed.csv")] == [ids[1], ids[-1]]
    assert {row["method"] for row in rows(results)} >= {"vae", *peers}
    raw = files.read_npz(results / "baselines" / "raw.npz")["latents"]
    means = np.delete(vectors, [1, -1], axis=0).reshape(len(raw), -1, 5).mean(axis=1)
    expected = (means - means.mean(axis=0)) / means.std(axis=0)
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    _, err = main(folder, *arguments)
    assert len(re.findall(r"\w+: up to date \(", err)) == 5


def test_the_latest_vae_and_pca_rows_are_compared_on_screen_in_csv_and_in_markdown(
    folder, mlp, conv
):
    for name in ("comparison.csv", "comparison.md"):
        out, _ = call(folder, "compare", "results/mlp", "results/conv", f"--output={name}")
        assert len(re.findall(r"^vae - pca\b", out, re.MULTILINE)) >= 2
    table = files.read_csv(folder / "comparison.csv")
    compared = {(row["directory"], row["method"]) for row in table}
    assert {("results/mlp", "vae"), ("results/conv", "pca")} <= compared
    vae = next(row for row in table if row["method"] == "vae")
    pca = next(row for row in table if row["method"] == "pca")
    difference = float(vae["common_silhouette"]) - float(pca["common_silhouette"])
    assert math.isclose(float(vae["common_silhouette_minus_pca"]), difference, abs_tol=1e-5)
    assert (folder / "comparison.md").read_text().count("| results/mlp | vae |") == 1
