"""Another model's vectors of segments, as the track VAE sees them."""

import jax
import numpy as np
import pytest

from vae_jax.config import get_config, to_dict
from vae_jax.embedding import plda
from vae_jax.errors import UserError
from vae_jax.features import extract
from vae_jax.manifest import Manifest
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec
from vae_jax.training import views
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec

NUM_SEGMENTS = np.array([9, 1, 4, 12, 2, 7])
VECTORS = np.random.default_rng(0).normal([5, -3, 0.01], [2, 9, 0.003], (NUM_SEGMENTS.sum(), 3))
STANDARDISED = (VECTORS - VECTORS.mean(axis=0)) / VECTORS.std(axis=0)


@pytest.fixture
def records(tmp_path, in_process):
    ids = [f"track-{i}" for i in range(len(NUM_SEGMENTS))]
    np.savez(tmp_path / "mert.npz", ids=ids, num_segments=NUM_SEGMENTS, vectors=VECTORS)
    feature = get_config().feature
    feature.update(name="embedding", embedding=str(tmp_path / "mert.npz"), num_workers=1)
    tracks = Manifest(tmp_path / "metadata.csv", ids, {})
    extract.extract(tracks, feature.to_dict(), tmp_path / "records")
    return Records(tmp_path / "records")


def settings(**model):
    config = get_config()
    config.feature.name = "embedding"
    config.model.update({"name": "track", "num_segments": 12, "input_noise": 0.0} | model)
    return to_dict(config)


def rows(inputs, track):
    """Return a track's segments in a certain order."""
    mask = np.asarray(inputs.mask[track]) > 0
    return sorted(np.asarray(inputs.x["description"][track])[mask].tolist())


@pytest.mark.parametrize("is_resident", [True, False])
def test_every_row_is_one_segment_whether_all_are_seen_or_as_many_are_drawn(records, is_resident):
    _, view = ModelSpec.of(settings(), records, []).build()
    tracks = Source(records).load(np.arange(len(records)))
    if is_resident:
        tracks = view.precompute(tracks)
        assert tracks["descriptions"].shape == (6, 1, 12, 3)
    expected = np.split(STANDARDISED, np.cumsum(NUM_SEGMENTS)[:-1])
    for seed in range(3):
        drawn = jax.jit(view.sample)(tracks, jax.random.key(seed))
        for inputs in (drawn, view.whole(tracks)):
            for track, segments in enumerate(expected):
                found = rows(inputs, track)
                np.testing.assert_allclose(found, sorted(segments.tolist()), atol=2e-4)


def test_fewer_are_drawn_from_all_rows_of_a_track(records):
    _, view = ModelSpec.of(settings(num_segments=2), records, []).build()
    tracks = Source(records).load(np.arange(len(records)))
    sample, seen = jax.jit(view.sample), set()
    for seed in range(60):
        inputs = sample(tracks, jax.random.key(seed))
        assert np.asarray(inputs.mask).sum(axis=1).tolist() == np.minimum(NUM_SEGMENTS, 2).tolist()
        seen |= {tuple(np.round(row, 2)) for row in rows(inputs, 3)}
    assert len(seen) == 12


def test_a_model_of_vectors_sees_the_standardised_means_of_segments(records):
    _, view = ModelSpec.of(settings(name="mlp"), records, []).build()
    tracks = Source(records).load(np.arange(len(records)))
    means = [rows.mean(axis=0) for rows in np.split(VECTORS, np.cumsum(NUM_SEGMENTS)[:-1])]
    expected = (np.array(means) - np.mean(means, axis=0)) / np.std(means, axis=0)
    for inputs in (view.sample(tracks, jax.random.key(0)), view.whole(tracks)):
        np.testing.assert_allclose(inputs.x, expected, atol=2e-3)


def test_plda_takes_every_row_for_a_segment(records):
    part = plda.summarise(records, np.arange(6), 128, records.statistics["features"])
    assert part.counts.tolist() == NUM_SEGMENTS.tolist()
    expected = [rows.mean(axis=0) for rows in np.split(STANDARDISED, np.cumsum(NUM_SEGMENTS)[:-1])]
    np.testing.assert_allclose(part.means, expected, atol=2e-4)


def test_plda_refuses_one_vector_of_each_track():
    config = settings(name="mlp") | {"baselines": ["pca", "plda"]}
    with pytest.raises(UserError, match=r"baselines=plda needs vectors of its segments"):
        views.check(config, {"features": ArraySpec((3,), "float32")})


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "conv2d"), ("encoder", "conv2d")],
)
def test_a_model_of_spectra_refuses_vectors_of_segments(records, key, value):
    with pytest.raises(UserError, match=rf"model\.{key}={value} needs .*=embedding gives vectors"):
        ModelSpec.of(settings(**{key: value}), records, [])
