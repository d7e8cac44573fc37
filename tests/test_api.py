import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

import vae_jax
from tests.conftest import write_collection
from vae_jax import clean, main, report, run
from vae_jax.clustering import scores
from vae_jax.errors import UserError
from vae_jax.stages import runner
from vae_jax.storage import files

SETTINGS = {
    "feature.sample_rate": 8000,
    "feature.duration": 1.0,
    "feature.n_fft": 512,
    "feature.hop_length": 256,
    "feature.n_mels": 32,
    "feature.num_workers": 1,
    "model.latent_dim": 3,
    "model.hidden_dims": (8,),
    "train.num_steps": 20,
    "train.batch_size": 8,
    "baselines": ("pca",),
    "cluster.num_clusters": 3,
    "cluster.num_seeds": 2,
    "visualize.method": "pca",
    "visualize.color_by": ("label",),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project's folder, in which a run has ended."""
    folder = tmp_path_factory.mktemp("project")
    before = os.getcwd()
    os.chdir(folder)
    write_collection(folder / "music", 12)
    vae_jax.train("mlp", "results/first", SETTINGS | {"manifest": "music/metadata.csv"})
    os.chdir(before)
    return folder


@pytest.fixture
def results(project):
    return vae_jax.load(project / "results" / "first")


def test_a_run_is_loaded_with_its_ids_latents_clusters_and_metrics(results):
    assert results.ids == [f"track-{i}" for i in range(12)]
    assert results.latents.shape == (12, 3)
    assert set(results.clusters) == {0, 1, 2}
    assert {row["method"] for row in results.metrics} == {"vae", "pca"}
    assert results.config.model.latent_dim == 3


def test_each_track_of_the_run_is_assigned_to_its_own_cluster(results):
    np.testing.assert_array_equal(results.assign(results.latents), results.clusters)
    with pytest.raises(UserError, match=r"must be \[M, 3\]"):
        results.assign(results.latents[:, :2])


def test_where_clusters_have_no_centres_the_nearest_tracks_vote(results):
    results.config.cluster.method = "dbscan"
    results.__dict__["clusters"] = np.repeat([-1, 5], 6)
    new = results.latents[:6] + 0.1 * np.random.default_rng(0).normal(size=(6, 3))
    distances, nearest = NearestNeighbors(n_neighbors=5).fit(results.latents).kneighbors(new)
    votes = np.where(results.clusters[nearest] == 5, 1, -1) / distances
    expected = np.where(votes.sum(axis=1) > 0, 5, -1)
    np.testing.assert_array_equal(results.assign(new), expected)


def test_neighbours_are_those_of_the_latent_space_by_distance(results):
    exact = NearestNeighbors(n_neighbors=5).fit(results.latents)
    distances, positions = exact.kneighbors(results.latents[[4]])
    found = results.neighbours("track-4", k=4)
    assert [id_ for id_, _ in found] == [results.ids[i] for i in positions[0][1:]]
    np.testing.assert_allclose([d for _, d in found], distances[0][1:], rtol=1e-5)
    assert results.neighbours(results.latents[4], k=1) == [("track-4", 0.0)]
    with pytest.raises(UserError, match="no track 'nothing'"):
        results.neighbours("nothing")


def test_a_table_joins_the_manifest_and_the_clusters(results):
    pandas = pytest.importorskip("pandas")
    table = results.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table.loc["track-5", "label"] == "chord"
    assert table["cluster"].tolist() == results.clusters.tolist()


def test_a_model_encodes_files_as_the_run_did(project, results):
    model = vae_jax.Model.load(project / "results" / "first")
    paths = [project / "music" / "audio" / f"{i}.wav" for i in (3, 7)]
    found = model.encode([*paths, project / "missing.mp3"])
    assert found.ids == list(map(str, paths))
    np.testing.assert_allclose(found.mean, results.latents[[3, 7]], atol=1e-5)
    assert found.log_variance.shape == (2, 3)
    assert list(found.failures) == [str(project / "missing.mp3")]
    with pytest.raises(UserError, match="no track is given"):
        model.encode([])


def test_a_model_encodes_the_rows_of_a_table(project, results):
    pandas = pytest.importorskip("pandas")
    paths = [str(project / "music" / "audio" / f"{i}.wav") for i in (0, 1)]
    table = pandas.DataFrame({"audio_path": paths}, index=["a", "b"])
    found = vae_jax.Model.load(run.checkpoints_in(project / "results" / "first")).encode(table)
    assert found.ids == ["a", "b"]
    np.testing.assert_allclose(found.mean, results.latents[:2], atol=1e-5)


def test_clustering_is_that_of_the_stage(results):
    found = vae_jax.cluster(results.latents, "kmeans", 3)
    np.testing.assert_array_equal(found.labels, results.clusters)
    with pytest.raises(UserError, match=r"config\.cluster\.method is 'nonsense'"):
        vae_jax.cluster(results.latents, "nonsense")


def test_the_command_places_new_tracks_among_the_clusters_of_the_run(project, results):
    new = project / "new.csv"
    rows = [{"id": f"new {i}", "audio_path": f"music/audio/{i}.wav"} for i in range(4)]
    files.write_csv(new, ("id", "audio_path"), [*rows, {"id": "gone", "audio_path": "gone.wav"}])
    command = [sys.executable, "-m", "vae_jax", "place", "results/first"]

    def call(*arguments):
        given = [*command, *arguments]
        return subprocess.run(given, cwd=project, capture_output=True, text=True)

    done = call("--config.manifest=new.csv", "--outdir=results/placed")
    assert done.returncode == 0, done.stderr
    assert "4 tracks placed" in done.stdout
    placed = files.read_csv(project / "results" / "placed" / "placed.csv")
    assert [row["id"] for row in placed] == [f"new {i}" for i in range(4)]
    assert [row["nearest_1"] for row in placed] == [f"track-{i}" for i in range(4)]
    assert [int(row["cluster"]) for row in placed] == results.clusters[:4].tolist()
    assert {row["outlier"] for row in placed} == {"no"}
    (where,) = (project / "results" / "first" / "latent_visualization").glob("vae_*.csv")
    for row, known in zip(placed, results.table, strict=False):
        assert row["pca_cluster"] == known["pca_cluster"]
        assert (row["feature"], row["pca_outlier"]) == ("mfcc", "no")
        assert row["pca_nearest_1"] == row["nearest_1"] == known["id"]
    for row, known in zip(placed, files.read_csv(where)[:4], strict=True):
        assert float(row["x"]) == pytest.approx(float(known["x"]), abs=1e-3)
    failed = files.read_csv(project / "results" / "placed" / "failed.csv")
    assert [row["id"] for row in failed] == ["gone"]
    for arguments, said in {
        ("--outdir=x",): "--config.manifest and --outdir are needed",
        ("--config.manifest=new.csv", "--outdir=results/first"): "holds the run itself",
    }.items():
        refused = call(*arguments)
        assert refused.returncode == 1
        assert said in refused.stderr


def test_similar_tracks_are_found_by_id_and_by_file_and_filtered(project, results):
    music = project / "music" / "audio"
    found = dict(results.similar("track-0", count=11, mutual=False))
    expected = dict(results.neighbours("track-0", k=11))
    assert found == pytest.approx(expected)
    by_file = results.similar(str(music / "0.wav"), count=12, mutual=False)
    assert [id_ for id_, _ in by_file] == list(found)  # without the track that is the file
    noise = results.similar(["track-0", "track-1"], where="label=noise")
    assert {id_ for id_, _ in noise} == {"track-3", "track-6", "track-9"}
    with pytest.raises(UserError, match=r"has no track 'nothing', and there is no such file"):
        results.similar("nothing")
    with pytest.raises(UserError, match=r"^none of 1 could be read; the first, .*metadata.csv: "):
        results.similar(str(project / "music" / "metadata.csv"))
    results.config.feature.name = "lyrics_tfidf"
    with pytest.raises(UserError, match=r"hears no audio .*: give an id from clusters.csv"):
        results.similar(str(music / "0.wav"))
    assert len(results.similar("track-0", where="duration<1.1")) == 11  # by the files' headers
    assert results.similar("track-0", where="duration>1.1") == []


def test_features_that_others_have_trained_are_marked(results):
    assert results.mark == ""
    results.config.feature.name = "musicnn"
    assert results.mark == "features trained elsewhere with tags"


def test_recordings_that_are_known_to_be_the_same_are_found_once(results, monkeypatch):
    groups = {"track-0": "1", "track-3": "1", "track-4": "2", "track-5": "2", "track-6": "2"}
    monkeypatch.setitem(results.__dict__, "recordings", groups)
    found = [id_ for id_, _ in results.similar("track-0", count=12)]
    assert "track-3" not in found
    assert len({"track-4", "track-5", "track-6"} & {*found}) == 1
    assert len(found) == 8


def test_the_command_lists_similar_tracks_and_writes_what_is_asked_for(project):
    command = [sys.executable, "-m", "vae_jax", "similar", "results/first", "--to=track-0"]

    def call(*arguments):
        given = [*command, *arguments]
        return subprocess.run(given, cwd=project, capture_output=True, text=True)

    done = call("--k=4", "--m3u=lists/out.m3u8", "--output=lists/out.csv")
    assert done.returncode == 0, done.stderr
    rows = files.read_csv(project / "lists" / "out.csv")
    shown = [line.split() for line in done.stdout.splitlines()[1:5]]
    assert [(cells[0], cells[3]) for cells in shown] == [
        (str(rank), row["id"]) for rank, row in enumerate(rows, 1)
    ]
    entries = (project / "lists" / "out.m3u8").read_text().splitlines()
    places = [project / "lists" / line for line in entries if not line.startswith("#")]
    assert [place.resolve().stem for place in places] == [
        row["id"].removeprefix("track-") for row in rows
    ]
    way = call("--path=track-5", "--k=5")
    ids = [line.split()[2] for line in way.stdout.splitlines()[1:]]
    assert (ids[0], ids[-1], len(set(ids))) == ("track-0", "track-5", 5)
    for arguments, said in {
        ("--to=nothing",): "has no track 'nothing'",
        ("--where=year>1",): "no column 'year'",
        ("--where=label=silence",): "no track fits",
        ("--path=track-0",): "two different tracks",
        ("--k=0",): "--k and --per_artist must be 1 or more",
    }.items():
        refused = call(*arguments)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("what", ["nothing", "music"])
def test_a_folder_without_results_is_refused(project, what):
    with pytest.raises(UserError, match=r"holds no results of a run"):
        vae_jax.load(project / what)


def test_a_run_of_another_version_or_one_that_has_not_ended_is_refused(project, tmp_path):
    shutil.copytree(project / "results" / "first", tmp_path / "first")
    about = json.loads((tmp_path / "first" / "run.json").read_text())
    (tmp_path / "first" / "clusters.csv").unlink()
    with pytest.raises(UserError, match=r"has no clusters yet: run --stage=cluster first"):
        _ = vae_jax.load(tmp_path / "first").clusters
    del about["embeddings"]
    files.write_json(tmp_path / "first" / "run.json", about)
    with pytest.raises(UserError, match=r"another version of vae_jax \('embeddings' is missing"):
        vae_jax.load(tmp_path / "first")


def test_the_package_is_imported_without_anything_heavy():
    code = "import sys, vae_jax; sys.exit(bool({'jax', 'numpy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_run_was_made_with_is_found_again_where_the_project_is_moved(project, tmp_path):
    shutil.copytree(project, tmp_path / "moved")
    moved = tmp_path / "moved" / "results" / "first"
    described = json.loads((moved / "run.json").read_text())
    assert described["version"] == vae_jax.__version__
    assert described["seeds"] == [0]
    checkpoint = run.checkpoints_in(moved)
    assert checkpoint.parent == tmp_path / "moved" / "checkpoints"
    assert (checkpoint / str(described["checkpoints"]["vae"]["step"])).is_dir()
    assert vae_jax.load(moved).to_pandas().index.tolist() == vae_jax.load(moved).ids


def test_a_results_folder_stands_for_its_checkpoints(project, monkeypatch):
    monkeypatch.chdir(project)
    done = subprocess.run(
        [
            *(sys.executable, "-m", main.__name__, "--checkpoint=results/first"),
            *("--config.manifest=music/metadata.csv", "--print_config"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["latent_dim"] == 3


def test_outputs_of_another_setting_are_removed_and_those_of_a_person_are_kept(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    outdir = tmp_path / "copy" / "results" / "first"
    (outdir / "latent_visualization" / "mine.png").write_bytes(b"mine")
    before = {path.name for path in (outdir / "latent_visualization").iterdir()}
    assert "vae_pca_by_label.png" in before
    (tmp_path / "copy" / "work").mkdir()
    os.chdir(tmp_path / "copy")
    try:
        settings = SETTINGS | {"manifest": "music/metadata.csv", "visualize.color_by": ()}
        vae_jax.train("mlp", "results/first", settings)
    finally:
        os.chdir(project)
    after = {path.name for path in (outdir / "latent_visualization").iterdir()}
    assert "mine.png" in after
    assert "vae_pca_by_label.png" not in after
    assert "vae_pca_clusters.png" in after


def test_cleaning_lists_what_runs_use_and_deletes_the_rest(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    folder = tmp_path / "copy"
    [checkpoint] = (folder / "checkpoints").iterdir()
    shutil.copytree(checkpoint, folder / "checkpoints" / "mlp-00000000")
    (folder / "checkpoints" / "own notes").mkdir()

    def call(*flags):
        command = [sys.executable, "-m", clean.__name__, *flags]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = call()
    assert "mlp-00000000/" in said
    assert f"{checkpoint.name}/" in said
    assert said.count("used by results/first") == 2  # records and checkpoints
    assert "own notes" not in said
    assert len(list((folder / "checkpoints").iterdir())) == 3
    assert "deleted 1 unused folders" in call("--delete")
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {checkpoint.name, "own notes"}


def test_the_report_says_what_was_found_in_words_and_names_typical_tracks(project, monkeypatch):
    monkeypatch.chdir(project)
    this = run.Run(vae_jax.load("results/first").config, Path("results/first"))
    said = report.report(this)
    ami = {row["method"]: [] for row in vae_jax.load("results/first").metrics}
    for row in vae_jax.load("results/first").metrics:
        ami[row["method"]].append(float(row["ami"]))
    own, pca = (sum(ami[name]) / 2 for name in ("vae", "pca"))
    assert f"AMI {own:.2f}, PCA {pca:.2f}, difference {own - pca:+.2f}" in said.splitlines()[0]
    table = vae_jax.load("results/first").to_pandas()
    for cluster, part in table.groupby("cluster"):
        nearest = part["distance"].nsmallest(3).index
        named = "; ".join(nearest)
        count = "1 track" if len(part) == 1 else f"{len(part)} tracks"
        assert f"cluster {cluster}: {count}, such as {named}" in said
    assert "results/first/latent_visualization/vae_pca_clusters.png" in said
    assert "results/first/run.json" in said


def test_a_folder_holds_the_results_of_one_run_at_a_time(project, monkeypatch):
    monkeypatch.chdir(project)
    outdir, config = Path("results/mixed"), vae_jax.load("results/first").config
    shutil.copytree("results/first", outdir)
    edited = outdir / run.MAPS / "vae_pca_clusters.png"
    edited.write_bytes(b"mine")
    before = {path: path.read_bytes() for path in outdir.rglob("*") if path.is_file()}
    config.model.latent_dim = 2
    with pytest.raises(UserError, match=r"with other features or another model .*--stage=embed"):
        runner.run_stages(config, outdir, ["cluster"], None)
    assert {path: path.read_bytes() for path in outdir.rglob("*") if path.is_file()} == before
    done = runner.run_stages(config, outdir, ["train"], None)
    results = vae_jax.load(outdir)
    with pytest.raises(UserError, match="no latents yet"):
        _ = results.latents
    with pytest.raises(UserError, match="no clusters yet"):
        _ = results.metrics
    assert "AMI" not in report.report(done)
    assert "clusters.csv" not in report.report(done)
    runner.run_stages(config, outdir, ["embed"], None)
    results = vae_jax.load(outdir)
    assert results.latents.shape == (12, 2)
    with pytest.raises(UserError, match="no clusters yet"):
        _ = results.clusters
    assert not (outdir / run.CLUSTERS).exists()
    assert [path for path in (outdir / run.MAPS).rglob("*") if path.is_file()] == [edited]
    assert (outdir / run.CLUSTERING_METRICS).read_bytes() == before[outdir / run.CLUSTERING_METRICS]


READ_ONLY = """
import sys, vae_jax
from pathlib import Path
from vae_jax.stages import runner
config = vae_jax.load("results/first").config
runner.run_stages(config, Path(sys.argv[1]), ["features"], None)
"""


def test_records_that_may_only_be_read_are_enough(project, tmp_path, unprivileged):
    outdir = project / "results" / "first"
    records = (outdir / run.read_run(outdir)["records"]).resolve()
    os.utime(project / "music" / "audio" / "0.wav")
    before = {path: path.read_bytes() for path in records.iterdir()}

    def run_here():
        records.chmod(0o555)
        command = [*unprivileged, sys.executable, "-c", READ_ONLY, str(tmp_path / "results")]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True)
        records.chmod(0o755)
        return done

    assert run_here().returncode == 0
    assert {path: path.read_bytes() for path in records.iterdir()} == before
    marker = next(records.glob("shard-*.json"))
    marker.unlink()
    assert (
        f"the records in {records.relative_to(project.resolve())} are not up to date"
        in run_here().stderr
    )
    marker.write_bytes(before[marker])


def test_results_do_not_go_where_their_checkpoints_do(project, monkeypatch):
    monkeypatch.chdir(project)
    config = vae_jax.load("results/first").config
    config.model.latent_dim = 1
    folder = run.Run(config, Path("results/first")).checkpoint_dir()
    with pytest.raises(UserError, match="is where this config's checkpoints go"):
        runner.run_stages(config, folder, ["train"], None)


@pytest.mark.parametrize("named", ["results/../results/first", ".hidden/first"])
def test_the_report_lists_the_files_of_any_folder(project, tmp_path, monkeypatch, named):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    if named.startswith("."):
        Path(".hidden").mkdir()
        shutil.move("results/first", ".hidden/first")
    this = run.Run(vae_jax.load(named).config, Path(named))
    assert f"{named}/latents.npz" in report.report(this)


@pytest.mark.parametrize(
    ("values", "reference", "verdict"),
    [
        ((0.7, 0.72, 0.71), (0.5, 0.51, 0.5), "better than PCA: AMI 0.71, PCA 0.50"),
        ((0.3, 0.32, 0.31), (0.5, 0.51, 0.5), "less well than PCA: AMI 0.31, PCA 0.50"),
        ((0.3, 0.7, 0.5), (0.5, 0.4, 0.5), "no better than PCA: AMI 0.50, PCA 0.47"),
    ],
)
def test_a_difference_counts_where_its_interval_is_clear_of_zero(
    results, values, reference, verdict
):
    rows = [
        {"method": method, "k": 3, "seed": seed, "ami": value, "training": training}
        for method, numbers, training in (("vae", values, 0), ("pca", reference, ""))
        for seed, value in enumerate(numbers)
    ]
    this = run.Run(results.config, results.outdir)
    [sentence] = report._found(this, scores.summarise(rows))
    assert verdict in sentence


def test_a_run_says_why_tracks_are_together(project, results):
    described = files.read_csv(results.outdir / "descriptors.csv")
    assert [row["id"] for row in described] == results.ids
    assert [*results.descriptors] == [*described[0]][1:]
    reasons = results.reasons()
    assert {cluster["cluster"] for cluster in reasons} == {0, 1, 2}
    assert sum(cluster["size"] for cluster in reasons) == 12
    assert all({*one["typical"], *one["edge"]} <= {*results.ids} for one in reasons)
    assert [one["cluster"] for one in results.reasons("pca")]
    with pytest.raises(UserError, match="has no reasons of 'umap': there are vae, pca"):
        results.reasons("umap")
    text = (results.outdir / "clusters.md").read_text()
    assert all(f"## Cluster {number}" in text for number in range(3))
    written = (results.outdir / "latent_visualization").glob("*")
    assert {"vae_pca_clusters.png", "traversals.png"} <= {path.name for path in written}


def test_descriptors_choose_tracks_and_join_the_table(project, results, monkeypatch):
    monkeypatch.chdir(project)
    noisiness = dict(zip(results.ids, map(float, results.descriptors["noisiness"]), strict=True))
    found = results.similar("track-0", count=12, where="noisiness>0.3")
    assert {id_ for id_, _ in found} == {id_ for id_, x in noisiness.items() if x > 0.3} - {
        "track-0"
    }
    table = results.to_pandas()
    assert table["noisiness"].to_dict() == pytest.approx(noisiness)
    page = results.outdir / "map.html"
    results.explore(page)
    assert page.exists()


def test_a_name_that_a_person_gives_takes_the_place_of_the_suggested_one(
    project, tmp_path, monkeypatch
):
    shutil.copytree(project, tmp_path / "copy")
    outdir = tmp_path / "copy" / "results" / "first"
    rows = [{"id": "0", "name": "<b>Sunday</b>\x1b"}]
    files.write_csv(outdir / "cluster_names.csv", ["id", "name"], rows)
    monkeypatch.chdir(tmp_path / "copy")
    loaded = vae_jax.load(outdir)
    before = (outdir / "clusters.csv").read_bytes()
    done = runner.run_stages(loaded.config, outdir, ["cluster"], None)
    assert (outdir / "clusters.csv").read_bytes() == before
    given = {one["cluster"]: one["given"] for one in vae_jax.load(outdir).reasons()}
    assert given[0].startswith("<b>Sunday")
    text = (outdir / "clusters.md").read_text()
    assert "## Cluster 0: \\<b\\>Sunday" in text
    assert "\x1b" not in text
    assert "cluster 0 <b>Sunday" in report.report(done)


def test_a_run_without_descriptors_says_so(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    outdir = Path("results/first")
    config = vae_jax.load(outdir).config
    config.manifest, config.feature.descriptors = "music/metadata.csv", False
    before = (outdir / "latents.npz").stat().st_mtime_ns
    done = runner.run_stages(config, outdir, runner.STAGES, None)
    assert (outdir / "latents.npz").stat().st_mtime_ns == before  # nothing is trained anew
    assert not (outdir / "descriptors.csv").exists()
    sentence = "There are no descriptors: config.feature.descriptors is False."
    assert sentence in report.report(done)
    assert sentence in (outdir / "clusters.md").read_text()
