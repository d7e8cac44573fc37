"""PLDA, against its definition, and on tracks whose segments vary more than tracks do."""

import numpy as np
import pytest
from sklearn.covariance import oas

from vae_jax.embedding import baselines, plda
from vae_jax.embedding.baselines import Projection

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(1, 9, 60)
MIXING = RNG.normal(size=(5, 5))


def segments(counts: np.ndarray, size: int = 5) -> np.ndarray:
    """Return descriptions, [S, D]: tracks differ in the first two, segments most in the others."""
    rng = np.random.default_rng(1)
    tracks = rng.normal(size=(len(counts), size)) * np.r_[3, 2, np.full(size - 2, 0.1)]
    own = rng.normal(size=(counts.sum(), size)) * np.r_[1, 1, np.full(size - 2, 20)]
    return (np.repeat(tracks, counts, axis=0) + own) @ MIXING[:size, :size]


def test_latents_are_the_posterior_means_in_units_of_what_changes_within_tracks() -> None:
    x = segments(COUNTS)
    part = plda.Segments.of(x, COUNTS)
    model = plda.fit([part], size=5)
    owner = np.repeat(np.arange(60), COUNTS)
    means = np.array([x[owner == i].mean(axis=0) for i in range(60)])
    within = sum(np.outer(d, d) for d in x - means[owner]) / (len(x) - 60)
    scale = np.sqrt(np.diag(within) + np.diag(np.cov(means.T)))
    within = plda._shrunk(within / np.outer(scale, scale), len(x) - 60) * np.outer(scale, scale)
    inverse = np.linalg.inv(within)
    # B = cov(means) - W / S where that is positive, in units of W.
    between = np.linalg.inv(model.axes) @ np.diag(model.between) @ np.linalg.inv(model.axes).T
    expected = [
        between @ np.linalg.inv(between + within / count) @ (mean - means.mean(axis=0))
        for mean, count in zip(means, COUNTS, strict=True)
    ]
    latents = model(part.means, part.counts)
    for i, j in ((0, 1), (5, 40), (59, 3)):
        apart = expected[i] - expected[j]
        distance = np.sum(np.square(latents[i] - latents[j]))
        assert distance == pytest.approx(apart @ inverse @ apart, rel=1e-4)
    residual = model.axes @ (np.cov(means.T) - within * (1 / COUNTS).mean()) @ model.axes.T
    np.testing.assert_allclose(np.maximum(np.diag(residual), 0), model.between, atol=1e-8)


def test_the_shrinkage_is_that_of_scikit_learn() -> None:
    x = RNG.normal(size=(40, 12)) * np.linspace(1, 4, 12)
    expected, shrinkage = oas(x, assume_centered=True)
    assert 0.01 < shrinkage < 0.9
    np.testing.assert_allclose(plda._shrunk(x.T @ x / 40, 40), expected, rtol=1e-10)


def test_it_finds_the_other_half_of_tracks_where_pca_does_not() -> None:
    counts = np.full(80, 12)
    x = segments(counts)
    halves = x.reshape(80, 2, 6, 5).mean(axis=2)
    model = plda.fit([plda.Segments.of(x, counts)], size=2)
    pca = baselines.pca(x.reshape(80, 12, 5).mean(axis=1), 2, seed=0)

    def found(project: Projection) -> float:
        first, second = project(halves[:, 0]), project(halves[:, 1])
        distances = np.square(first[:, None] - second).sum(axis=-1)
        return float(np.mean(distances.argmin(axis=1) == np.arange(80)))

    assert found(model) > 4 * found(pca)


def test_the_parts_in_which_tracks_come_change_nothing() -> None:
    x, ends = segments(COUNTS), np.cumsum(COUNTS)
    whole = plda.fit([plda.Segments.of(x, COUNTS)], size=3)
    cuts = [(0, 1), (1, 20), (20, 60)]
    parts = [plda.Segments.of(x[ends[a] - COUNTS[a] : ends[b - 1]], COUNTS[a:b]) for a, b in cuts]
    joined = parts[0].join(parts[1])
    for other in (plda.fit(parts, 3), plda.fit([joined, parts[2]], 3)):
        np.testing.assert_allclose(other.between, whole.between)
        np.testing.assert_allclose(np.abs(other.axes), np.abs(whole.axes), rtol=1e-6)


@pytest.mark.parametrize(
    "counts", [np.ones(20, int), np.array([6]), np.array([1]), np.full(3, 4)], ids=str
)
def test_few_tracks_few_segments_and_constant_descriptions_give_finite_latents(counts) -> None:
    x = segments(counts, 4)
    for descriptions in (x, x * [1, 1, 0, 1], np.ones_like(x)):
        part = plda.Segments.of(descriptions, counts)
        latents = plda.fit([part], size=8)(part.means, part.counts)
        assert latents.shape == (len(counts), 4)
        assert np.isfinite(latents).all()


def test_a_projection_is_read_as_it_was_written(tmp_path) -> None:
    pca = baselines.pca(RNG.normal(size=(9, 5)), 2, seed=0)
    for model in (plda.fit([plda.Segments.of(segments(COUNTS), COUNTS)], 2), pca):
        model.write(tmp_path / "model.npz")
        again = Projection.read(tmp_path / "model.npz")
        points = RNG.normal(size=(4, 5))
        np.testing.assert_array_equal(again(points, np.ones(4)), model(points, np.ones(4)))
