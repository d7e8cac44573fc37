"""Collections with nothing to find in them give right answers, or one clear sentence."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.stress.jobs import Ended, long_only, run, stress_only
from vae_jax.storage import files

pytestmark = stress_only
RATE = 8000
QUICK = ("--config.train.num_steps=10", "--config.train.batch_size=4")


def collection(folder: Path, sounds: list[np.ndarray], labels: list[str]) -> None:
    """Write one track per sound."""
    (folder / "music").mkdir(parents=True)
    rows = []
    for i, (sound, label) in enumerate(zip(sounds, labels, strict=True)):
        soundfile.write(folder / "music" / f"{i}.wav", sound, RATE)
        rows.append({"id": f"t{i}", "audio_path": f"{i}.wav", "label": label})
    files.write_csv(folder / "music" / "metadata.csv", ("id", "audio_path", "label"), rows)


def noises(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(0, 0.1, (count, RATE)))


def tone() -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def metrics(folder: Path, ended: Ended) -> list[dict[str, str]]:
    """Return the rows, every cell of which is a finite number, empty or a word."""
    assert ended.code == 0, ended.err
    rows = files.read_csv(folder / "results" / "clustering_metrics.csv")
    for row in rows:
        assert {"nan", "inf", "-inf", "None"}.isdisjoint(row.values())
    latents = files.read_npz(folder / "results" / "latents.npz")
    assert np.isfinite(latents["latents"]).all()
    assert np.isfinite(latents["log_variances"]).all()
    training = (folder / "results" / "train_metrics.jsonl").read_text()
    assert "NaN" not in training
    assert "null" not in training
    return rows


def test_one_track_is_one_cluster_or_a_sentence(tmp_path):
    collection(tmp_path, noises(1), ["a"])
    ended = run(tmp_path, *QUICK)
    assert ended.is_one_sentence, ended.err
    assert "config.cluster.num_clusters is 3" in ended.err
    rows = metrics(tmp_path, run(tmp_path, *QUICK, "--config.cluster.method=dbscan"))
    assert {(row["n"], row["silhouette"], row["ami"]) for row in rows} == {("1", "", "")}


def test_identical_tracks_are_one_cluster_without_scores(tmp_path):
    collection(tmp_path, [tone()] * 6, list("abcabc"))
    rows = metrics(tmp_path, run(tmp_path, *QUICK))
    assert {(row["k"], row["silhouette"], row["ami"]) for row in rows} == {("1", "", "")}
    latents = files.read_npz(tmp_path / "results" / "latents.npz")["latents"]
    np.testing.assert_allclose(latents, np.repeat(latents[:1], 6, axis=0), atol=1e-6)


def test_more_clusters_than_tracks_is_one_sentence(tmp_path):
    collection(tmp_path, noises(5), list("ababa"))
    ended = run(tmp_path, *QUICK, "--config.cluster.num_clusters=6")
    assert ended.is_one_sentence, ended.err
    assert "config.cluster.num_clusters is 6, more than the number of tracks (5)" in ended.err


def test_a_single_label_scores_nothing_that_chance_would_not(tmp_path):
    collection(tmp_path, noises(9), ["same"] * 9)
    for row in metrics(tmp_path, run(tmp_path, *QUICK)):
        assert row["n_labelled"] == "9"
        assert (row["purity"], row["majority"]) in {("1.0", "1.0"), ("", "")}
        assert float(row["ami"] or 0) == float(row["ari"] or 0) == 0


def test_missing_labels_are_left_out_and_counted(tmp_path):
    collection(tmp_path, noises(9), ["a", "b", "", "a", "b", "", "a", "b", "  "])
    assert {row["n_labelled"] for row in metrics(tmp_path, run(tmp_path, *QUICK))} == {"6"}


def test_a_collection_of_noise_to_dbscan_has_no_cluster_and_no_score(tmp_path):
    collection(tmp_path, noises(8), list("abababab"))
    arguments = ("--config.cluster.method=dbscan", "--config.cluster.eps=1e-6")
    rows = metrics(tmp_path, run(tmp_path, *QUICK, *arguments))
    assert {(row["k"], float(row["coverage"]), row["silhouette"]) for row in rows} == {
        ("0", 0.0, "")
    }
    clusters = files.read_csv(tmp_path / "results" / "clusters.csv")
    assert {(row["cluster"], row["distance"], row["silhouette"]) for row in clusters} == {
        ("-1", "", "")
    }


def test_two_identical_tracks_among_others_share_a_cluster(tmp_path):
    sounds = [*noises(5), tone(), tone()]
    collection(tmp_path, sounds, list("aaaaabb"))
    metrics(tmp_path, run(tmp_path, *QUICK))
    clusters = files.read_csv(tmp_path / "results" / "clusters.csv")
    assert clusters[5]["cluster"] == clusters[6]["cluster"]


def test_a_constant_feature_stays_finite_and_counts_for_nothing(tmp_path):
    # One band holds the whole signal of every track: all others are at the floor.
    sounds = [tone() * amplitude for amplitude in (0.1, 0.2, 0.4, 0.8, 1.0, 1.2)]
    collection(tmp_path, sounds, list("ababab"))
    metrics(tmp_path, run(tmp_path, *QUICK, "--config.cluster.num_clusters=2"))
    raw = files.read_npz(tmp_path / "results" / "baselines" / "raw.npz")["latents"]
    assert np.isfinite(raw).all()
    assert np.abs(raw).max() < 10


@long_only
@pytest.mark.parametrize("method", ["agglomerative", "hdbscan", "gmm", "spectral", "dbscan"])
@pytest.mark.parametrize("tracks", [2, 3, 4])
@pytest.mark.parametrize("view", ["umap", "tsne"])
def test_tiny_collections_go_through_every_clusterer_and_projection(tmp_path, method, tracks, view):
    collection(tmp_path, [tone(), tone(), *noises(2)][:tracks], list("aabb")[:tracks])
    arguments = (f"--config.cluster.method={method}", f"--config.visualize.method={view}")
    ended = run(tmp_path, *QUICK, *arguments, "--config.cluster.num_clusters=2")
    for row in metrics(tmp_path, ended):
        assert math.isfinite(float(row["coverage"]))


@pytest.mark.parametrize("rate", ["1e9"])
def test_a_loss_that_is_not_finite_names_the_step_and_the_checkpoints(tmp_path, rate):
    collection(tmp_path, noises(6), list("ababab"))
    steps = ("--config.train.num_steps=2000", "--config.train.warmup_steps=0")
    clip = ("--config.train.clip_norm=1e9", "--config.train.log_every=10")
    ended = run(tmp_path, *steps, *clip, f"--config.train.learning_rate={rate}")
    assert ended.is_one_sentence, ended.err
    assert "the loss is" in ended.err
    assert "config.train.learning_rate" in ended.err
