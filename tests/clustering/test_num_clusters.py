import numpy as np
import pytest

from vae_jax.clustering import num_clusters

RNG = np.random.default_rng(0)
N, D = 60, 8


def blobs(k: int, distance: float = 8.0) -> np.ndarray:
    centers = RNG.normal(size=(k, D)) * distance / np.sqrt(2 * D)
    return (centers[np.arange(N) % k] + RNG.normal(size=(N, D))).astype(np.float32)


@pytest.mark.parametrize("k", [2, 4])
def test_clusters_that_lie_apart_are_counted(k):
    found = num_clusters.choose_num_clusters(blobs(k), seed=0)
    assert found.num_clusters == k
    chosen = found.trials[k - 1]
    assert chosen.num_clusters == k
    assert chosen.gap > found.trials[0].gap
    assert chosen.agreement > 0.8
    assert f"gap {chosen.gap:.3f}" in found.reason


@pytest.mark.parametrize(
    "points",
    [
        RNG.normal(size=(N, D)),
        RNG.normal(size=(N, D)) * ([10] + [1] * (D - 1)) @ np.linalg.qr(RNG.normal(size=(D, D)))[0],
        RNG.normal(size=(N, D)) / np.sqrt(RNG.chisquare(3, size=(N, 1)) / 3),
        RNG.uniform(size=(N, D)),
    ],
    ids=["round", "long", "heavy-tailed", "cube"],
)
def test_points_without_structure_are_one_cluster(points):
    found = num_clusters.choose_num_clusters(points, seed=0)
    assert found.num_clusters == 1
    assert "structureless" in found.reason or "halves" in found.reason


def test_tight_clusters_that_halves_do_not_find_again_do_not_count(monkeypatch):
    points = blobs(4)
    monkeypatch.setattr(num_clusters, "MIN_AGREEMENT", 1.1)
    found = num_clusters.choose_num_clusters(points, seed=0)
    assert found.num_clusters == 1
    assert "not found again in halves" in found.reason


@pytest.mark.parametrize("points", [np.ones((50, 3)), RNG.normal(size=(7, 3))])
def test_too_few_different_points_are_one_cluster(points):
    found = num_clusters.choose_num_clusters(points, seed=0)
    assert (found.num_clusters, found.trials) == (1, ())
    assert "too few" in found.reason


def test_tracks_that_coincide_in_a_few_places_are_as_many_clusters():
    points = RNG.normal(size=(3, D))[np.arange(N) % 3]
    assert num_clusters.choose_num_clusters(points, seed=0).num_clusters == 3


def test_the_choice_depends_on_the_seed_alone_and_large_collections_are_sampled(monkeypatch):
    monkeypatch.setattr(num_clusters, "SAMPLE", 50)
    points = blobs(3)
    first, second = (num_clusters.choose_num_clusters(points, seed=1) for _ in range(2))
    assert repr(first) == repr(second)  # a NaN of an agreement is equal to no other
    assert first.num_clusters == 3
    assert len(first.trials) == 50 // num_clusters.MIN_SIZE
