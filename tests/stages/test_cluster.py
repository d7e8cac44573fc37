"""The cluster stage, on embedding files as the embed stage writes them."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, silhouette_samples, silhouette_score

from vae_jax import compare, config
from vae_jax.clustering import metrics_file
from vae_jax.errors import UserError
from vae_jax.manifest import Manifest
from vae_jax.run import Run
from vae_jax.stages import cluster
from vae_jax.storage import files

N = 60
METHODS = ("vae", "pca", "raw")
RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [30, 20, 10])
RAW = (RNG.normal(size=(N, 6)) + 3 * np.eye(3, 6)[LABELS]).astype(np.float32)
IDS = np.array([f"track {i}" for i in range(N)])


def write_embeddings(outdir: Path, latents: np.ndarray = RAW[:, :3], raw: bool = True) -> None:
    files.write_npz(outdir / "latents.npz", ids=IDS, latents=latents, log_variances=latents)
    files.write_npz(outdir / "baselines" / "pca.npz", ids=IDS, latents=RAW[:, 1:3])
    if raw:
        files.write_npz(outdir / "baselines" / "raw.npz", ids=IDS, latents=RAW)


def settings(method: str = "kmeans", num_clusters: int | str = 3, **cluster: object) -> ConfigDict:
    result = config.get_config()
    result.cluster.update(method=method, num_clusters=num_clusters, num_seeds=2, **cluster)
    return result


def clustered(outdir, methods, tracks, config, run_id, supervised=()):
    """Run the stage with the first method, the VAE, and the baselines after it."""
    config = config.copy_and_resolve_references()
    config.baselines = tuple(methods[1:])
    config.model.condition = "label" if supervised else ""
    run = Run(config, outdir)
    run.__dict__["manifest"] = tracks
    return cluster.cluster(run, run_id)


def write_models(outdir: Path, num_models: int, components: np.ndarray = LABELS) -> np.ndarray:
    """Write latents of several models, the last the best, and the components of their mixtures.

    The first model's mixture has one component only. Returns the latents of all, [N, S, 3].
    """
    noise = RNG.normal(0, 0.1, (N, num_models, 3))
    latents = (RAW[:, None, :3] + noise).astype(np.float32)
    write_embeddings(outdir)
    assignments = np.zeros((N, num_models, components.max() + 2), np.float32)  # the last is empty
    assignments[np.arange(N), :, components] = 1
    if num_models > 1:
        assignments[:, 0] = np.eye(assignments.shape[2])[0]
    files.write_npz(
        outdir / "latents.npz",
        ids=IDS,
        latents=latents[:, -1],
        assignments=assignments[:, -1],
        **({"seed_latents": latents, "seed_assignments": assignments} if num_models > 1 else {}),
    )
    return latents


def manifest(*columns: str) -> Manifest:
    values = {"label": [f"genre {c}" for c in LABELS], "artist": [f"a{i // 4}" for i in range(N)]}
    reverse = {name: values[name][::-1] for name in columns}  # its order does not matter
    return Manifest(Path("metadata.csv"), IDS[::-1].tolist(), reverse)


def test_each_model_is_clustered_from_every_start_and_the_best_is_shown(tmp_path: Path) -> None:
    latents = write_models(tmp_path, num_models=3)
    rows = clustered(tmp_path, METHODS, manifest("label"), settings(), "run 1")
    assert [(row["method"], row["training"], row["seed"]) for row in rows] == [
        *(("vae", training, seed) for training in range(3) for seed in range(2)),
        *((method, None, seed) for method in METHODS[1:] for seed in range(2)),
        *(("mixture", training, 0) for training in range(3)),
    ]
    for row in rows[:6]:
        points = latents[:, row["training"]]
        found = KMeans(3, n_init=10, random_state=row["seed"]).fit_predict(points)
        assert row["silhouette"] == pytest.approx(silhouette_score(points, found), 1e-4)
    table = files.read_csv(tmp_path / "clusters.csv")
    best = KMeans(3, n_init=10, random_state=0).fit_predict(latents[:, -1])
    assert adjusted_mutual_info_score([row["cluster"] for row in table], best) == pytest.approx(1)


def test_the_mixture_of_every_model_is_scored_and_that_of_the_best_is_shown(tmp_path: Path) -> None:
    write_models(tmp_path, num_models=3)
    rows = clustered(tmp_path, METHODS, manifest("label"), settings(), "run 1")[-3:]
    assert {row["clusterer"] for row in rows} == {"mixture"}
    assert [row["k"] for row in rows] == [1, 3, 3]
    assert [row["ami"] for row in rows] == [None, pytest.approx(1), pytest.approx(1)]
    table = files.read_csv(tmp_path / "clusters.csv")
    shown = [row["mixture_cluster"] for row in table]
    assert adjusted_mutual_info_score(shown, LABELS) == pytest.approx(1)


def test_the_components_of_a_mixture_are_merged_into_as_many_clusters(tmp_path: Path) -> None:
    halves = 2 * LABELS + (RAW[:, 3] > 0)  # two components for each cluster
    write_models(tmp_path, 1, halves)
    row = clustered(tmp_path, METHODS, manifest("label"), settings(), "run 1")[-1]
    assert (row["method"], row["k"], row["k_chosen_by"]) == ("mixture", 3, "config")
    assert row["ami"] == pytest.approx(1)
    table = files.read_csv(tmp_path / "clusters.csv")
    assert {row["mixture_confidence"] for row in table} == {"1"}
    distances = [float(row["mixture_distance"]) for row in table]
    points = files.read_npz(tmp_path / "latents.npz")["latents"]
    centers = np.array([points[c == LABELS].mean(axis=0) for c in range(3)])
    expected = np.linalg.norm(points - centers[LABELS], axis=1)
    np.testing.assert_allclose(distances, expected, rtol=1e-4)


def test_the_cluster_that_each_component_of_a_mixture_is_part_of_is_written(tmp_path: Path) -> None:
    write_models(tmp_path, 1, 2 * LABELS + (RAW[:, 3] > 0))
    clustered(tmp_path, METHODS, manifest("label"), settings(), "run")
    columns = files.read_npz(tmp_path / "cluster_centers.npz")["mixture_columns"]
    components = files.read_npz(tmp_path / "latents.npz")["assignments"].argmax(axis=1)
    table = files.read_csv(tmp_path / "clusters.csv")
    assert columns[components].tolist() == [int(row["mixture_cluster"]) for row in table]


def test_clusters_keep_the_numbers_of_the_run_that_is_followed(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    clustered(tmp_path, METHODS, manifest("label"), settings(), "run")
    table = files.read_csv(tmp_path / "clusters.csv")
    for row in table:
        row["cluster"] = {"0": "5", "1": "0", "2": "3"}[row["cluster"]]
    kept = tmp_path / "history" / "001"
    files.write_csv(kept / "clusters.csv", list(table[0]), table[:-3])  # three tracks are new
    files.write_sealed_json(kept / "kept.json", {"next_ids": {"cluster": 9}})
    files.write_json(tmp_path / "run.json", {"previous": "history/001"})
    clustered(tmp_path, METHODS, manifest("label"), settings(), "again")
    again = files.read_csv(tmp_path / "clusters.csv")
    assert [row["cluster"] for row in again] == [row["cluster"] for row in table]
    centers = files.read_npz(tmp_path / "cluster_centers.npz")
    assert centers["vae_ids"].tolist() == [0, 3, 5]
    members = np.array([row["cluster"] == "3" for row in table])
    assert np.allclose(centers["vae"][1], RAW[members, :3].mean(axis=0), atol=1e-5)


def test_a_mixture_with_fewer_components_is_not_split(tmp_path: Path) -> None:
    write_models(tmp_path, num_models=1)
    rows = clustered(tmp_path, METHODS, manifest("label"), settings(num_clusters=5), "run 1")
    assert (rows[0]["k"], rows[-1]["k"]) == (5, 3)
    text = compare.table(rows)
    assert "k=5:" in text
    assert "k=3:" in text
    assert "mixture - pca" not in text  # rows of different k are not subtracted


def test_every_method_is_clustered_with_the_same_seeds_and_all_scores_are_written(
    tmp_path: Path,
) -> None:
    write_embeddings(tmp_path)
    rows = clustered(tmp_path, METHODS, manifest("label", "artist"), settings(), "run 1", {"vae"})
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for method in METHODS for seed in (0, 1)
    ]
    assert [row["latent_dim"] for row in rows] == [3, 3, 2, 2, 6, 6]
    assert [row["supervised"] for row in rows] == [True] * 2 + [False] * 4
    assert {row["eps"] for row in rows} == {None}
    empty = {name for row in rows for name, value in row.items() if value is None}
    assert empty == {"eps", "training"}
    assert all(datetime.fromisoformat(row["time"]).utcoffset() is not None for row in rows)
    for row in rows[4:]:  # raw features are the common space
        assert row["silhouette"] == row["common_silhouette"]
        assert row["davies_bouldin"] == row["common_davies_bouldin"]
    written = metrics_file.read(tmp_path / metrics_file.NAME)
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == written


def test_clusters_are_written_with_distances_and_silhouettes_per_track(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    rows = clustered(tmp_path, METHODS, manifest("label"), settings(), "run 1")
    table = files.read_csv(tmp_path / "clusters.csv")
    assert [row["id"] for row in table] == IDS.tolist()
    labels = np.array([int(row["cluster"]) for row in table])
    assert adjusted_mutual_info_score(LABELS, labels) == pytest.approx(rows[0]["ami"], abs=1e-5)
    silhouettes = [float(row["silhouette"]) for row in table]
    expected = silhouette_samples(RAW[:, :3].astype(float), labels)
    np.testing.assert_allclose(silhouettes, expected, atol=1e-5)
    centers = np.array([RAW[labels == c, :3].mean(axis=0) for c in range(3)])
    distances = [float(row["distance"]) for row in table]
    np.testing.assert_allclose(
        distances, np.linalg.norm(RAW[:, :3] - centers[labels], axis=1), rtol=1e-3
    )
    assert {row["pca_cluster"] for row in table} == {"0", "1", "2"}
    assert all(row["raw_silhouette"] for row in table)


def test_a_second_run_replaces_its_own_rows_and_keeps_the_others(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    for run_id in ("run 1", "run 2", "run 2"):
        clustered(tmp_path, ["vae"], manifest(), settings(), run_id)
    rows = metrics_file.read(tmp_path / metrics_file.NAME)
    assert [row["run_id"] for row in rows] == ["run 1"] * 2 + ["run 2"] * 2


def test_a_clusterer_without_randomness_runs_once(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    rows = clustered(tmp_path, METHODS, manifest(), settings("agglomerative"), "run 1")
    assert [(row["method"], row["seed"]) for row in rows] == [(method, 0) for method in METHODS]


def test_without_labels_artists_or_common_space_those_scores_are_empty(tmp_path: Path) -> None:
    write_embeddings(tmp_path, raw=False)
    row = clustered(tmp_path, ["vae", "pca"], manifest(), settings(), "run 1")[0]
    assert row["silhouette"] is not None
    assert (row["common_silhouette"], row["ami"], row["artist_precision_at_1"]) == (None,) * 3
    assert (row["n_labelled"], row["artist_num_queries"]) == (0, 0)


@pytest.mark.parametrize("method", ["kmeans", "gmm", "spectral", "dbscan", "hdbscan"])
def test_a_collapsed_latent_space_yields_empty_metrics_not_a_crash(
    tmp_path: Path, method: str
) -> None:
    write_embeddings(tmp_path, np.ones((N, 3), np.float32))
    rows = clustered(tmp_path, ["vae"], manifest("label"), settings(method), "run 1")
    assert (rows[0]["k"], rows[0]["n_labelled"]) == (1, N)
    assert rows[0]["silhouette"] is rows[0]["ami"] is rows[0]["common_silhouette"] is None
    table = files.read_csv(tmp_path / "clusters.csv")
    assert {(row["cluster"], row["silhouette"]) for row in table} == {("0", "")}


def test_the_number_of_clusters_can_be_chosen_from_the_latents_for_all_methods(
    tmp_path: Path,
) -> None:
    write_embeddings(tmp_path, np.eye(3, dtype=np.float32)[LABELS] * 9 + RAW[:, 3:])
    run = settings(num_clusters="auto")
    rows = clustered(tmp_path, METHODS, manifest("label"), run, "run 1")
    assert {(row["method"], row["k"], row["k_chosen_by"]) for row in rows} == {
        (method, 3, "auto") for method in METHODS
    }
    assert rows[0]["ami"] == 1
    rows = clustered(tmp_path, METHODS, manifest("label"), settings(), "run 2")
    assert {row["k_chosen_by"] for row in rows} == {"config"}


def test_without_structure_all_methods_have_one_cluster_and_no_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_embeddings(tmp_path, np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32))
    run = settings("gmm", num_clusters="auto")
    rows = clustered(tmp_path, METHODS, manifest("label"), run, "run 1")
    assert {(row["k"], row["silhouette"], row["ami"]) for row in rows} == {(1, None, None)}
    assert "no cluster structure found" in caplog.text
    text = compare.table(rows)
    assert "k=1 (auto)" in text
    assert "no two clusters" in text
    table = files.read_csv(tmp_path / "clusters.csv")
    assert {(row["cluster"], row["raw_cluster"]) for row in table} == {("0", "0")}
    assert all(float(row["distance"]) > 0 for row in table)


def test_a_clusterer_that_finds_the_number_itself_is_not_changed_by_auto(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    found = {}
    for k in (3, "auto"):
        run = settings("dbscan", num_clusters=k)
        row = clustered(tmp_path, ["vae"], manifest("label"), run, "run 1")[0]
        found[k] = {name: value for name, value in row.items() if name != "time"}
    assert found[3] == found["auto"]
    assert found[3]["k_chosen_by"] == "clusterer"


def test_noise_is_cluster_minus_one_with_empty_cells_and_lowers_coverage(tmp_path: Path) -> None:
    latents = RAW[:, :3].copy()
    latents[-3:] += 1000 * np.arange(1, 4)[:, None]
    write_embeddings(tmp_path, latents)
    run = settings("dbscan", min_samples=4)
    row = clustered(tmp_path, ["vae"], manifest("label"), run, "run 1")[0]
    table = files.read_csv(tmp_path / "clusters.csv")
    noise = [r for r in table if r["cluster"] == "-1"]
    assert {r["id"] for r in noise} >= set(IDS[-3:])
    assert {(r["distance"], r["silhouette"]) for r in noise} == {("", "")}
    assert row["coverage"] == pytest.approx(1 - len(noise) / N, abs=1e-5)
    assert row["eps"] > 0


def test_the_mixture_writes_its_confidence(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    clustered(tmp_path, ["vae"], manifest(), settings("gmm"), "run 1")
    table = files.read_csv(tmp_path / "clusters.csv")
    assert all(0.3 < float(row["confidence"]) <= 1 for row in table)


def test_embeddings_that_are_missing_damaged_or_of_other_tracks_are_named(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    pca = tmp_path / "baselines" / "pca.npz"
    for arrays, message in (
        ({"ids": IDS[::-1], "latents": RAW}, "other tracks"),
        ({"ids": IDS, "latents": RAW * np.nan}, "not finite"),
        ({"ids": IDS}, "damaged"),
        ({"ids": IDS, "latents": RAW[1:]}, "damaged"),
    ):
        files.write_npz(pca, **arrays)
        with pytest.raises(UserError, match=rf"pca\.npz .*{message}"):
            clustered(tmp_path, METHODS, manifest(), settings(), "run 1")
    pca.unlink()
    with pytest.raises(UserError, match=r"pca\.npz does not exist"):
        clustered(tmp_path, METHODS, manifest(), settings(), "run 1")
    assert not (tmp_path / metrics_file.NAME).exists()


def test_the_stage_imports_neither_jax_nor_flax_nor_librosa() -> None:
    code = (
        "import sys, vae_jax.stages.cluster; "
        "sys.exit(bool({'jax', 'flax', 'librosa', 'umap', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_spellings_and_further_values_of_labels_change_no_score_and_are_listed(
    tmp_path: Path, caplog
) -> None:
    names, artists = ["Rock", "Electronic", "Folk"], [f"A{i // 4}" for i in range(N)]
    plain = [names[c] for c in LABELS]
    spoilt = [
        (name, name.lower(), f" {name}", f"{name}; Live")[i % 4] for i, name in enumerate(plain)
    ]
    shown = {}
    for kind, labels, by in (
        ("plain", plain, artists),
        ("spoilt", spoilt, [a.lower() if i % 2 else a for i, a in enumerate(artists)]),
    ):
        write_embeddings(tmp_path / kind)
        tracks = Manifest(Path("metadata.csv"), IDS.tolist(), {"label": labels, "artist": by})
        with caplog.at_level("INFO"):
            rows = clustered(tmp_path / kind, METHODS, tracks, settings(), "run 1")
        shown[kind] = [{name: row[name] for name in row if name != "time"} for row in rows]
    assert shown["plain"] == shown["spoilt"]
    assert files.read_csv(tmp_path / "plain" / "labels.csv") == []
    listed = files.read_csv(tmp_path / "spoilt" / "labels.csv")
    assert {row["label"] for row in listed} == {*names}
    assert {row["kind"] for row in listed} == {"spelling", "several values"}
    assert sum(int(row["tracks"]) for row in listed) == 45
    assert "several values of 15 tracks" in caplog.text


def test_labels_that_may_be_one_are_named_in_a_warning(tmp_path: Path, caplog) -> None:
    write_embeddings(tmp_path)
    values = [("Hip Hop", "Hip-Hop", "Jazz")[i % 3] for i in range(N)]
    tracks = Manifest(Path("metadata.csv"), IDS.tolist(), {"label": values})
    rows = clustered(tmp_path, METHODS, tracks, settings(), "run 1")
    assert "'Hip Hop' and 'Hip-Hop' in 'label' may be one" in caplog.text
    assert rows[0]["n_labelled"] == N
    (row,) = files.read_csv(tmp_path / "labels.csv")
    assert (row["cell"], row["label"], row["tracks"]) == ("Hip-Hop", "Hip Hop", "20")
