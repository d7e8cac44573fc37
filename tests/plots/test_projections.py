import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from vae_jax.plots import projections
from vae_jax.plots.projections import project

pytestmark = pytest.mark.filterwarnings("error")


def blobs(n: int, num_blobs: int = 4, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    blob = np.arange(n) % num_blobs
    points = 6 * np.eye(num_blobs, size)[blob] + 0.5 * rng.normal(size=(n, size))
    return points.astype(np.float32), blob


def neighbor_agreement(coordinates: np.ndarray, blob: np.ndarray) -> float:
    _, neighbors = NearestNeighbors(n_neighbors=4).fit(coordinates).kneighbors(coordinates)
    return float(np.mean(blob[neighbors[:, 1:]] == blob[:, None]))


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_neighbors_stay_neighbors_and_the_seed_decides_every_bit(method):
    points, blob = blobs(60)
    first = project(points, method, seed=3)
    again = project(points, method, seed=3)
    assert first.coordinates.shape == (60, 2)
    assert first.coordinates.dtype == np.float32
    assert first.method == method
    assert first.coordinates.tobytes() == again.coordinates.tobytes()
    assert neighbor_agreement(first.coordinates, blob) > (0.9 if method != "pca" else 0.7)


def test_what_is_compiled_for_umap_is_kept():
    project(blobs(30)[0], "umap", seed=0)
    kept = {path.name.split("-")[0] for path in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc")}
    slowest = ("smooth_knn_dist", "compute_membership_strengths", "epoch")
    assert all(any(name in one for one in kept) for name in slowest)


def test_another_seed_gives_another_view():
    points, _ = blobs(30)
    views = [project(points, "umap", seed=seed).coordinates for seed in (0, 1)]
    assert not np.array_equal(*views)


@pytest.mark.parametrize("method", ["umap", "tsne"])
@pytest.mark.parametrize("n", [4, 5, 11])
def test_neighborhoods_larger_than_the_collection_are_clipped(method, n):
    points = np.random.default_rng(0).normal(size=(n, 3))
    view = project(points, method, seed=0, n_neighbors=200, perplexity=500.0)
    assert view.method == method
    assert np.isfinite(view.coordinates).all()


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_latents_of_one_dimension_are_drawn_in_two(method):
    coordinates = project(blobs(30, size=8)[0][:, :1], method, seed=0).coordinates
    assert coordinates.shape == (30, 2)
    assert np.isfinite(coordinates).all()


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_duplicated_tracks_are_no_trouble(method):
    points = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 20, axis=0)
    assert np.isfinite(project(points, method, seed=0).coordinates).all()


@pytest.mark.parametrize("method", ["umap", "tsne"])
@pytest.mark.parametrize(
    "points",
    [np.ones((1, 4)), np.eye(2, 4), np.eye(3, 4), np.ones((50, 4))],
    ids=["one track", "two tracks", "three tracks", "all the same"],
)
def test_too_few_distinct_tracks_fall_back_to_pca_and_say_so(method, points, caplog):
    caplog.set_level("INFO", logger="absl")
    view = project(points, method, seed=0)
    assert view.method == "pca"
    assert view.coordinates.shape == (len(points), 2)
    assert np.isfinite(view.coordinates).all()
    assert "plotting a PCA" in caplog.text


def test_pca_equals_a_singular_value_decomposition_with_its_shares_of_variance():
    points = np.random.default_rng(1).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    view = project(points, "pca", seed=0)
    centred = points - points.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(view.coordinates), np.abs(u * s)[:, :2], atol=1e-4)
    shares = s**2 / np.sum(s**2)
    assert view.axes == tuple(f"PC {i + 1} ({shares[i]:.0%} of variance)" for i in range(2))


def test_pca_of_one_dimension_keeps_it_and_adds_a_zero():
    points = np.arange(5.0)[:, None]
    view = project(points, "pca", seed=0)
    np.testing.assert_allclose(np.abs(view.coordinates[:, 0]), [2, 1, 0, 1, 2], atol=1e-6)
    np.testing.assert_array_equal(view.coordinates[:, 1], 0)


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_a_large_collection_is_fitted_on_a_sample_and_the_rest_placed_among_it(method, monkeypatch):
    monkeypatch.setattr(projections, "FIT_LIMIT", 200)
    monkeypatch.setattr(projections, "FIT_SAMPLE", 80)
    points, blob = blobs(400)
    view = project(points, method, seed=0)
    assert view.coordinates.shape == (400, 2)
    assert neighbor_agreement(view.coordinates, blob) > 0.95
    sample = np.random.default_rng(0).choice(400, 80, replace=False)
    monkeypatch.setattr(projections, "FIT_LIMIT", 400)
    fitted = project(points[sample], method, seed=0).coordinates
    np.testing.assert_allclose(view.coordinates[sample], fitted, atol=1e-2)


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_a_map_of_more_tracks_lies_on_the_earlier_one(method):
    points, _ = blobs(66)
    first = project(points[:60], method, seed=3).coordinates
    turned = first @ np.array([[0, -1], [1, 0]], np.float32) + 100
    before = np.concatenate([turned, np.full((6, 2), np.nan)])
    grown = project(points, method, seed=3, before=before).coordinates
    spread = np.linalg.norm(turned - turned.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(grown[:60] - turned, axis=1).mean() < 0.5 * spread
    unaided = project(points, method, seed=3).coordinates
    assert np.linalg.norm(unaided[:60] - turned, axis=1).mean() > spread


def test_a_map_of_other_tracks_starts_anew():
    points, _ = blobs(30)
    alone = project(points, "umap", seed=0)
    unknown = project(points, "umap", seed=0, before=np.full((30, 2), np.nan))
    assert np.array_equal(alone.coordinates, unknown.coordinates)
