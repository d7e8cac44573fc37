"""The quality benchmark on a small collection with artists, and its statistics."""

import csv

import jax
import numpy as np
import pytest

from benchmarks import quality
from configs import mlp, track
from tests.conftest import write_collection
from tests.features.test_musicnn import made_up
from vae_jax.features import musicnn, pool
from vae_jax.parallel import devices
from vae_jax.storage import files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def artists(tmp_path_factory):
    """Return the manifest of a small collection; every artist has two tracks of one timbre."""
    path = write_collection(tmp_path_factory.mktemp("music") / "music", 18)
    rows = files.read_csv(path)
    for i, row in enumerate(rows):
        row["artist"] = f"artist {i % 9}"
    files.write_csv(path, list(rows[0]), rows)
    return path


@pytest.fixture(scope="module")
def table(artists, tmp_path_factory):
    """Return the benchmark's outdir, after a few steps of three of its models."""
    outdir = tmp_path_factory.mktemp("quality")
    files.write_npz(outdir / "musicnn" / "MSD_musicnn.npz", **made_up())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "models", _models)
        patch.setattr(quality, "model_on_musicnn", lambda: _model_on_musicnn(outdir / "musicnn"))
        patch.setitem(musicnn.DIGESTS, "MSD_musicnn", musicnn.digest(made_up()))
        patch.setattr(pool, "run", lambda jobs, processes, count: pool.run_here(jobs, count))
        mesh = devices.make_mesh(jax.devices()[:1])  # compiles faster than for eight devices
        patch.setattr(devices, "make_mesh", lambda chosen=None, num_seeds=1: mesh)
        quality.main(str(artists), "label", outdir, num_seeds=2, with_musicnn=True)
    return outdir


def _models(with_lyrics):
    configs = {"VAE": mlp.get_config(), "track VAE": track.get_config()}
    for config in configs.values():
        config.feature.update(sample_rate=8000, n_mels=32, n_mfcc=8)
        config.model.update(latent_dim=2, segment_frames=4, num_components=3)
        config.train.update(num_steps=4, batch_size=8)
    return configs


def _model_on_musicnn(folder):
    config = track.get_config("musicnn")
    config.feature.musicnn_dir = str(folder)
    config.model.update(latent_dim=2, prior="normal")
    config.train.update(num_steps=4, batch_size=8)
    return config


def test_all_methods_are_scored_with_every_seed_artists_included(table):
    with open(table / "quality.csv") as file:
        rows = list(csv.DictReader(file))
    methods = {row["method"] for row in rows}
    assert methods - {*quality.LINEAR, "VAE", "track VAE"} == {
        f"{name} on MusiCNN (features trained elsewhere with tags)"
        for name in ("raw", "PCA", "PLDA", "track VAE")
    }
    assert len(methods) == len(quality.LINEAR) + 6
    assert len(rows) == 2 * len(methods)
    for row in rows:
        assert 0 <= float(row["artist_precision_at_1"]) <= 1
        assert row["artist_num_queries"] == "18"
    text = (table / "quality.md").read_text()
    assert "artist P@1" in text
    assert text.count("(features trained elsewhere with tags)") == 4
    assert (table / "quality.png").stat().st_size > 10_000


def test_the_seeds_of_a_model_are_different_trainings(table):
    latents = files.read_npz(table / "runs" / "track-VAE" / "latents.npz")["seed_latents"]
    assert latents.shape[:2] == (18, 2)
    assert np.abs(latents[:, 0] - latents[:, 1]).max() > 1e-3


def test_the_interval_of_a_difference_holds_the_difference():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 200).astype(str)
    good = np.stack([classes.astype(int), classes.astype(int)])
    bad = rng.integers(0, 3, (2, 200))
    found = quality.bootstrap({"good": good, "bad": bad}, "bad", classes)
    assert found["bad"]["ami"] == (0, 0)
    low, high = found["good"]["ami"]
    assert 0.8 < low < high < 1.1
