"""Clusterers, against what is known of the points they are given."""

import warnings

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from vae_jax import config
from vae_jax.clustering import clusterers
from vae_jax.embedding.latents import Latents, Shards
from vae_jax.errors import UserError

METHODS = list(clusterers.CLUSTERERS)
TAKES_K = [name for name, entry in clusterers.CLUSTERERS.items() if entry.takes_k]


def options(method: str, **changes: object) -> ConfigDict:
    result = config.get_config().cluster
    result.update(method=method, **changes)
    return result


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three far-apart groups of 60, 40 and 20 points."""
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0, 2], [60, 40, 20])
    centers = np.array([[0, 0, 0], [20, 0, 0], [0, 20, 0]])
    return (centers[truth] + rng.normal(size=(120, 3))).astype(np.float32), truth


def test_the_config_names_the_clusterers_of_the_table() -> None:
    assert tuple(clusterers.CLUSTERERS) == config.CLUSTERERS


@pytest.mark.parametrize("method", METHODS)
def test_every_clusterer_finds_well_separated_groups_and_numbers_them_by_size(
    method: str, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    points, truth = blobs
    found = clusterers.cluster(points, options(method, num_clusters=3), seed=0)
    kept = found.labels >= 0
    assert kept.mean() > 0.9
    assert found.coverage == kept.mean()
    assert adjusted_rand_score(truth[kept], found.labels[kept]) == 1
    assert found.labels.dtype == np.int32
    assert found.num_clusters == 3
    sizes = np.bincount(found.labels[kept])
    assert list(sizes) == sorted(sizes, reverse=True)
    means = [points[found.labels == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(found.centers, means, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_clusters(
    method: str, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    first, second = (clusterers.cluster(blobs[0], options(method), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)


def test_k_means_is_that_of_scikit_learn_and_of_the_given_seed() -> None:
    points = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    found = clusterers.cluster(points, options("kmeans", num_clusters=6, n_init=2), seed=5)
    expected = KMeans(6, n_init=2, random_state=5).fit(points).labels_
    assert adjusted_rand_score(expected, found.labels) == 1


def test_restarts_on_a_sample_end_as_well_as_restarts_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4000, 4)) + 4 * rng.normal(size=(8, 4))[rng.integers(8, size=4000)]
    monkeypatch.setattr(clusterers, "RESTART_SAMPLE", 1000)
    found = clusterers.cluster(points, options("kmeans", num_clusters=8), seed=0)
    expected = KMeans(8, n_init=10, random_state=0).fit(points).inertia_
    assert np.sum(found.distances(points) ** 2) == pytest.approx(expected, rel=1e-3)


def test_equally_large_clusters_are_numbered_by_their_first_track() -> None:
    points = np.array([[5.0], [5.1], [0.0], [0.1]])
    found = clusterers.cluster(points, options("agglomerative", num_clusters=2), seed=0)
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_distances_are_to_the_own_centre_and_nan_for_noise() -> None:
    points = np.concatenate([np.zeros((12, 2)), np.full((12, 2), 3.0), [[100, 100]]])
    points[:24, 0] += np.tile([-1, 1], 12)
    found = clusterers.cluster(points, options("dbscan", eps=2.5), seed=0)
    assert found.labels.tolist() == [0] * 12 + [1] * 12 + [-1]
    np.testing.assert_allclose(found.distances(points), [1] * 24 + [np.nan])


def test_dbscan_without_eps_takes_the_knee_of_the_distances_to_its_neighbours(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    points = np.concatenate([blobs[0], [[100, 100, 100], [-100, 50, 0]]]).astype(np.float32)
    found = clusterers.cluster(points, options("dbscan", min_samples=5), seed=0)
    distances = np.sort(NearestNeighbors(n_neighbors=5).fit(points).kneighbors()[0][:, 3])
    assert found.eps is not None
    assert distances[60] < found.eps < distances[-2] / 5  # above most, far below the outliers'
    assert found.labels[-2:].tolist() == [-1, -1]


def test_a_given_eps_is_used_as_it_is(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    found = clusterers.cluster(blobs[0], options("dbscan", eps=1e-6), seed=0)
    assert (found.eps, found.num_clusters, found.coverage) == (1e-6, 0, 0)
    assert found.centers.shape == (0, 3)


def test_the_mixture_says_how_sure_it_is(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    points = np.concatenate([blobs[0], [[10, 0, 0]]]).astype(np.float32)  # between two groups
    confidence = clusterers.cluster(points, options("gmm", num_clusters=3), seed=0).confidence
    assert confidence is not None
    assert confidence[:-1].min() > 0.99
    assert 1 / 3 < confidence.min() <= 1


@pytest.mark.parametrize("method", TAKES_K)
def test_more_clusters_than_tracks_are_refused(method: str) -> None:
    with pytest.raises(UserError, match=r"num_clusters is 4, more than .* tracks \(3\)"):
        clusterers.cluster(np.eye(3), options(method, num_clusters=4), seed=0)


@pytest.mark.parametrize("method", TAKES_K)
def test_as_many_clusters_as_tracks_gives_each_its_own(method: str) -> None:
    found = clusterers.cluster(np.eye(4, 3) * 9, options(method, num_clusters=4), seed=0)
    assert sorted(found.labels) == [0, 1, 2, 3]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [2, 30])
def test_identical_tracks_are_one_cluster(method: str, n: int) -> None:
    found = clusterers.cluster(np.ones((n, 4)), options(method, num_clusters=2), seed=0)
    assert found.labels.tolist() == [0] * n
    np.testing.assert_array_equal(found.distances(np.ones((n, 4))), np.zeros(n))


@pytest.mark.parametrize("method", METHODS)
def test_fewer_different_tracks_than_clusters_gives_one_cluster_for_each(method: str) -> None:
    points = np.repeat(np.eye(2, 4), [20, 15], axis=0).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clusterers.cluster(points, options(method, num_clusters=5), seed=0)
    assert found.labels.tolist() == [0] * 20 + [1] * 15


@pytest.mark.parametrize("method", [m for m in METHODS if clusterers.CLUSTERERS[m].limit])
def test_too_many_tracks_are_refused_before_anything_is_allocated(method: str) -> None:
    points = np.broadcast_to(np.float32(0), (10**9, 16))  # 4 bytes; 64 GB if copied
    with pytest.raises(UserError, match=f"method={method} is limited to .* tracks"):
        clusterers.cluster(points, options(method), seed=0)


def test_an_eps_that_makes_all_tracks_neighbours_is_refused_before_it_fills_the_memory() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    with pytest.raises(UserError, match=r"config\.cluster\.eps"):
        clusterers.cluster(points, options("dbscan", eps=100.0), seed=0)


def test_k_means_over_shards_agrees_with_k_means_over_all(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 4)).astype(np.float32)
    points[:, 0] += np.sort(rng.integers(0, 3, 3000)) * 4  # in the order of the groups
    shards = Shards(tmp_path / "latents", np.arange(3000).astype(str), 500, "")
    for shard in range(len(shards)):
        shards.write(shard, latents=points[shards.positions(shard)])
    settings, latents = options("kmeans", num_clusters=3), Latents(shards.folder)
    whole = clusterers.cluster(points, settings, 0)
    same = clusterers.cluster_shards(latents, settings, 0)
    np.testing.assert_array_equal(same.labels, whole.labels)
    monkeypatch.setattr(clusterers, "RESTART_SAMPLE", 300)
    given = clusterers.cluster_shards(latents, settings, 0, same.centers + 0.1)
    np.testing.assert_allclose(given.centers, same.centers, rtol=1e-5)
    first, second = (clusterers.cluster_shards(latents, settings, 0) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    inertia = [np.square(one.distances(points)).sum() for one in (whole, first)]
    assert inertia[1] < 1.005 * inertia[0]
    assert adjusted_rand_score(whole.labels, first.labels) > 0.95
