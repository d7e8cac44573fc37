import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import make_blobs

from vae_jax import config as config_lib
from vae_jax.clustering import clusterers
from vae_jax.clustering.clusterers import NOISE, Clustering
from vae_jax.collection.place import FALSE_RATE, Components, Known


def blobs(n: int, std: float, seed: int = 0, dims: int = 4) -> np.ndarray:
    centers = np.random.default_rng(7).normal(0, 3, (5, dims))
    return make_blobs(n, centers=centers, cluster_std=std, random_state=seed)[0]


def known_of(points: np.ndarray, method: str = "kmeans", num_clusters: int = 5) -> Known:
    config = config_lib.get_config().cluster
    config.update(method=method, num_clusters=num_clusters)

    def recluster(some: np.ndarray, start: np.ndarray | None) -> Clustering:
        return clusterers.cluster(some, config, 0, start)

    found = recluster(points, None)
    return Known(points, found.labels, recluster, found.centers if method == "kmeans" else None)


@pytest.mark.parametrize("method", ["kmeans", "agglomerative", "dbscan", "hdbscan", "gmm"])
def test_the_runs_own_tracks_are_placed_in_their_own_clusters(method):
    known = known_of(blobs(400, 1.5), method)
    placed = known.place(known.points)
    np.testing.assert_array_equal(placed.clusters[:, 0], known.clusters)
    np.testing.assert_array_equal(placed.nearest[:, 0], np.arange(400))


@pytest.mark.slow
@pytest.mark.parametrize("std", [1.5, 2.5])
@pytest.mark.parametrize("method", ["kmeans", "agglomerative"])
def test_new_tracks_agree_with_a_clustering_that_saw_them_as_often_as_is_said(method, std):
    """Also where the clusters overlap so much that one more track can change them all."""
    said, agreed = [], []
    for seed in range(4):
        points = blobs(500, std, seed)
        known = known_of(points[:400], method)
        placed = known.place(points[400:])
        everything = known.recluster(points, known.centers).labels
        table = np.zeros((5, 5))
        np.add.at(table, (known.clusters, everything[:400]), 1)
        match = linear_sum_assignment(-table)[1]
        agreed.append(match[placed.clusters[:, 0]] == everything[400:])
        said.append(placed.probabilities[:, 0])
    said, agreed = np.concatenate(said), np.concatenate(agreed)
    assert abs(said.mean() - agreed.mean()) < 0.1
    middle = np.median(said)
    assert agreed[said <= middle].mean() < agreed[said > middle].mean()


def test_probabilities_fall_towards_the_border_and_add_up_to_one():
    points = np.concatenate([np.random.default_rng(0).normal(x, 1, (200, 2)) for x in (0, 4)])
    known = known_of(points, num_clusters=2)
    left, right = known.centers[np.argsort(known.centers[:, 0])]
    placed = known.place(np.linspace(left, (left + right) / 2, 5))
    likely = placed.probabilities[:, 0]
    assert (np.diff(likely) <= 0).all()
    assert likely[-1] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(placed.probabilities.sum(axis=1), 1)


def test_what_is_unlike_anything_known_is_flagged_and_few_others_are():
    known = known_of(blobs(2000, 1.0))
    placed = known.place(np.concatenate([blobs(2000, 1.0, seed=1), np.full((3, 4), 50.0)]))
    assert placed.is_outlier[-3:].all()
    assert (placed.outlier_scores[-3:] == 1).all()
    assert placed.is_outlier[:-3].mean() == pytest.approx(FALSE_RATE, abs=0.01)


def test_noise_is_a_place_too():
    dense = np.random.default_rng(0).normal(0, 0.1, (100, 2))
    sparse = np.random.default_rng(1).uniform(20, 90, (20, 2))
    labels = np.repeat([0, NOISE], [100, 20])
    points = np.concatenate([dense, sparse])

    def recluster(some: np.ndarray, start: None) -> Clustering:
        return Clustering(np.where(np.abs(some).max(axis=1) < 5, 0, NOISE), np.zeros((1, 2)))

    placed = Known(points, labels, recluster).place(np.array([[0, 0], [60, 60.0]]))
    assert placed.clusters[:, 0].tolist() == [0, NOISE]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_tracks_and_a_single_cluster_give_finite_numbers(count):
    points = np.arange(count, dtype=float)[:, None]

    def recluster(some: np.ndarray, start: None) -> Clustering:
        raise AssertionError("there are too few tracks to hold some out")

    for centers in (None, points.mean(axis=0, keepdims=True)):
        labels = np.zeros(count, int)
        placed = Known(points, labels, recluster, centers).place(np.array([[0.2]]))
        assert placed.clusters.tolist() == [[0, 0]]
        assert placed.probabilities[0, 0] == 1
        assert np.isfinite(placed.outlier_scores).all()


def test_the_mixture_chooses_clusters_by_all_of_their_components_and_is_as_sure_as_it_should_be():
    """Components 0 and 2 are one cluster; they overlap with another, of which the model is sure."""
    rng = np.random.default_rng(0)
    means = np.array([[0, 0], [2, 0], [0, 40.0]])
    component = rng.integers(0, 3, 300)
    points = means[component] + rng.normal(size=(300, 2))
    distances = np.square(points[:, None] - means).sum(axis=2)
    sure = np.exp(-10 * (distances - distances.min(axis=1, keepdims=True)))
    known = Components(points, sure / sure.sum(axis=1, keepdims=True), np.array([4, 7, 4]))
    clusters, probabilities = known.choose(np.array([[0.1, 0.4, 0.5], [0.0, 1.0, 0.0]]))
    assert clusters.tolist() == [[4, 7], [7, 4]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert 0.5 < probabilities[0, 0] < 0.6
    assert 0.8 < probabilities[1, 0] < 1


@pytest.mark.parametrize("columns", [[0, 0], [0, NOISE]])
def test_a_mixture_of_one_cluster_is_sure(columns):
    shares = np.full((20, 2), 0.5)
    known = Components(np.zeros((20, 3)), shares, np.array(columns))
    clusters, probabilities = known.choose(shares[:1])
    assert (clusters.tolist(), probabilities.tolist()) == ([[0, 0]], [[1, 1]])
