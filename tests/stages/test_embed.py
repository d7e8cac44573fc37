"""The embed stage on a small collection: by shards, whatever their number, and after a kill."""

import numpy as np
import pytest

from tests.conftest import write_collection
from vae_jax import config as config_lib
from vae_jax.embedding import baselines
from vae_jax.embedding.baselines import Projection
from vae_jax.embedding.latents import Latents, Shards
from vae_jax.plots import projections
from vae_jax.run import Run
from vae_jax.stages import runner
from vae_jax.storage import files
from vae_jax.training.track_view import describe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the config of a small run whose model is trained."""
    folder = tmp_path_factory.mktemp("trained")
    config = config_lib.get_config()
    config.manifest = str(write_collection(folder / "music", 15))
    config.data_dir, config.checkpoint_dir = str(folder / "data"), str(folder / "checkpoints")
    config.feature.update(name="mfcc_frames", sample_rate=8000, duration=1.0, n_mels=16, n_mfcc=8)
    config.model.update(name="conv2d", latent_dim=2, channels=(4, 4), segment_frames=8)
    config.train.update(num_steps=4, batch_size=8, checkpoint_every=2)
    config.baselines = ("pca", "raw", "plda")
    config_lib.validate(config)
    runner.run_stages(config, folder / "results", ["features", "train"], None)
    return config


def embed(config, outdir, shard_size):
    config = config.copy_and_resolve_references()
    config.embed.shard_size = shard_size
    runner.run_stages(config, outdir, ["embed"], None)
    names = ("latents", *(f"baselines/{name}" for name in config.baselines))
    return {name: files.read_npz(outdir / f"{name}.npz") for name in names}


def assert_same(first, second):
    for name, arrays in first.items():
        assert list(arrays) == list(second[name])
        for array, values in arrays.items():
            np.testing.assert_array_equal(second[name][array], values)


def test_the_size_of_the_shards_changes_no_embedding(trained, tmp_path):
    whole = embed(trained, tmp_path / "whole", 16384)
    parts = embed(trained, tmp_path / "parts", 4)
    assert len(whole["latents"]["ids"]) == 15
    assert np.isfinite(whole["baselines/raw"]["latents"]).all()
    assert parts["latents"]["latents"].shape == (15, 2)
    np.testing.assert_array_equal(parts["latents"]["latents"], whole["latents"]["latents"])
    for name, tolerance in (("baselines/raw", 1e-6), ("baselines/plda", 1e-4)):
        apart = np.abs(parts[name]["latents"]) - np.abs(whole[name]["latents"])  # axes may turn
        assert np.abs(apart).max() < tolerance


def test_plda_is_that_of_the_descriptions_of_all_segments(trained, tmp_path):
    embedded = embed(trained, tmp_path, 4)["baselines/plda"]["latents"]
    records = Run(trained, tmp_path).records
    known, size, means, counts = records.statistics["features"], 8, [], []
    for frames in records.load(np.arange(15))["features"]:
        x = (frames.astype(np.float64) - known.mean) / known.std
        cut = x[: len(x) // size * size].reshape(-1, size, x.shape[1])
        means.append(np.mean([describe(segment) for segment in cut], axis=0))
        counts.append(len(cut))
    projection = Projection.read(tmp_path / "baselines" / "plda_projection.npz")
    expected = projection(np.array(means), np.array(counts))
    np.testing.assert_allclose(embedded, expected, atol=1e-3)
    assert embedded.std() > 0.1


def test_a_projection_places_tracks_where_the_run_did(trained, tmp_path):
    embedded = embed(trained, tmp_path, 4)
    raw = embedded["baselines/raw"]["latents"]
    again = Projection.read(tmp_path / "baselines" / "pca_projection.npz")(raw)
    np.testing.assert_allclose(again, embedded["baselines/pca"]["latents"], atol=1e-6)
    kept = files.read_npz(tmp_path / "baselines" / "raw_projection.npz")
    records = Run(trained, tmp_path).records
    part = baselines.summaries(records, np.arange(15))["features"]
    standard = (part - kept["features_mean"]) / kept["features_std"]
    np.testing.assert_allclose(standard, raw, atol=1e-5)


def test_a_baseline_that_is_added_is_embedded(trained, tmp_path):
    fewer = trained.copy_and_resolve_references()
    fewer.baselines = ("raw",)
    embed(fewer, tmp_path, 4)
    assert not (tmp_path / "baselines" / "plda.npz").exists()
    embed(trained, tmp_path, 4)


@pytest.mark.slow
def test_the_number_of_workers_and_the_size_of_feature_shards_change_nothing_downstream(
    trained, tmp_path
):
    config = trained.copy_and_resolve_references()
    config.feature.update(shard_size=4, num_workers=3)
    runner.run_stages(config, tmp_path / "parts", ["features", "train"], None)
    assert_same(embed(trained, tmp_path / "whole", 16384), embed(config, tmp_path / "parts", 16384))


def test_a_killed_run_redoes_only_shards_that_are_missing_damaged_or_outdated(
    trained, tmp_path, monkeypatch
):
    expected = embed(trained, tmp_path / "expected", 3)
    outdir = tmp_path / "killed"
    write, written = Shards.write, []

    def killed_at_the_fourth(shards, shard, **arrays):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(shard)
        write(shards, shard, **arrays)

    monkeypatch.setattr(Shards, "write", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        embed(trained, outdir, 3)
    assert not (outdir / "latents.npz").exists()
    first, second, *_ = sorted((outdir / "latents").glob("*.npz"))
    arrays = files.read_npz(first) | {"made_from": np.array("another checkpoint")}
    files.write_npz(first, **arrays)
    second.write_bytes(second.read_bytes()[:-100])

    def counted(shards, shard, **arrays):
        if shards.folder.name != "raw":  # which needs the summaries of all tracks
            written.append(f"{shards.folder.name} {shard}")
        write(shards, shard, **arrays)

    written.clear()
    monkeypatch.setattr(Shards, "write", counted)
    assert_same(expected, embed(trained, outdir, 3))
    redone = ["latents 0", "latents 1", "latents 4"]
    assert written == [*redone, *(f"summaries {shard}" for shard in range(5))]
    assert not any(path.is_dir() for path in (outdir / "latents", outdir / "baselines/summaries"))


@pytest.mark.slow
def test_a_sharded_run_has_the_same_embeddings_and_goes_on_to_the_plots(
    trained, tmp_path, monkeypatch
):
    one = embed(trained, tmp_path, 4)
    monkeypatch.setattr(projections, "FIT_SAMPLE", 10)
    config = trained.copy_and_resolve_references()
    config.embed.update(format="sharded", shard_size=4)
    config.cluster.update(num_clusters=3, silhouette_sample=12)
    config.visualize.method = "pca"
    runner.run_stages(config, tmp_path, ["embed", "cluster", "visualize"], None)
    assert len([*(tmp_path / "latents").iterdir()]) == 4
    for name, arrays in one.items():
        assert not (tmp_path / f"{name}.npz").exists()
        _, points = Latents(tmp_path / name).held(15, 0)
        if name in ("baselines/pca", "baselines/plda"):  # axes have no direction
            points *= np.sign(points[0] * arrays["latents"][0])
        np.testing.assert_allclose(points, arrays["latents"], atol=1e-5)
    rows = files.read_csv(tmp_path / "clustering_metrics.csv")
    assert {(row["n"], row["silhouette_sample"]) for row in rows} == {("15", "12")}
    table = files.read_csv(tmp_path / "clusters.csv")
    assert [row["cluster"] != "" for row in table] == [True] * 15
    assert sum(row["silhouette"] != "" for row in table) == 12
    assert len(files.read_csv(tmp_path / "latent_visualization" / "vae_pca.csv")) == 10
    stamp = (tmp_path / "latents" / "latents-00000-of-00004.npz").stat().st_mtime_ns
    runner.run_stages(config, tmp_path, ["embed"], None)
    assert (tmp_path / "latents" / "latents-00000-of-00004.npz").stat().st_mtime_ns == stamp
