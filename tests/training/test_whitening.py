"""The two covariances of descriptions, against independent references."""

import json

import numpy as np
import pytest

from vae_jax.training import whitening
from vae_jax.training.whitening import Whitening

SIZE = 6


def described(num_tracks, num_segments, seed=0):
    """Return descriptions [N, D], their tracks, and the covariances within and between tracks."""
    rng = np.random.default_rng(seed)
    within, between = (a @ a.T for a in rng.normal(size=(2, SIZE, SIZE)))
    means = rng.multivariate_normal(np.zeros(SIZE), between, num_tracks)
    track = np.repeat(np.arange(num_tracks), num_segments)
    noise = rng.multivariate_normal(np.zeros(SIZE), within, len(track))
    return means[track] + noise, track, within, between


def test_the_noise_within_tracks_becomes_white_and_tracks_differ_most_along_the_first_axes():
    x, track, within, between = described(3000, 8)
    found = whitening.measure(x, track)
    matrix = found.matrix.astype(np.float64)
    np.testing.assert_allclose(matrix.T @ within @ matrix, np.eye(SIZE), atol=0.06)
    whitened = matrix.T @ between @ matrix
    scale = np.sqrt(np.outer(found.between, found.between))
    np.testing.assert_allclose(whitened / scale, np.eye(SIZE), atol=0.1)
    assert (np.diff(found.between) <= 0).all()


@pytest.mark.parametrize("num_segments", [1, 2])
@pytest.mark.parametrize("num_tracks", [1, 2, 5])
def test_few_tracks_and_segments_have_a_finite_whitening(num_tracks, num_segments):
    x, track, *_ = described(num_tracks, num_segments)
    for points in (x, np.zeros_like(x)):
        found = whitening.measure(points, track)
        assert np.isfinite(found.matrix).all()
        assert (found.between > 0).all()
        assert np.isfinite(found.inverse).all()


def test_the_principal_axes_are_those_of_the_tracks_means():
    x, track, _, between = described(3000, 8)
    axes = whitening.measure(x, track).principal_axes(2)
    expected = np.linalg.eigh(between).eigenvectors[:, :-3:-1]
    np.testing.assert_allclose(np.abs(axes.T @ expected), np.eye(2), atol=0.05)


def test_a_whitening_survives_json_exactly():
    found = whitening.measure(*described(20, 3)[:2])
    again = Whitening.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(found.matrix, again.matrix)
    np.testing.assert_array_equal(found.between, again.between)
