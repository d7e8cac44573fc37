import numpy as np

from vae_jax.clustering import matching

IDS = [f"track {i}" for i in range(20)]
BEFORE = dict(zip(IDS, np.repeat([4, 0, 7], [8, 6, 6]).tolist(), strict=True))


def test_clusters_keep_the_numbers_that_most_of_their_tracks_had():
    labels = np.repeat([1, 2, 0], [7, 7, 6])  # one track has gone from 4 to 0
    found = matching.numbers(labels, IDS, BEFORE, unused=9)
    assert found[labels].tolist() == [4] * 7 + [0] * 7 + [7] * 6


def test_a_new_cluster_gets_a_number_that_none_ever_had():
    labels = np.repeat([0, 1, 2, 3], [8, 6, 6, 5])
    ids = [*IDS, *(f"new {i}" for i in range(5))]
    assert matching.numbers(labels, ids, BEFORE, unused=9).tolist() == [4, 0, 7, 9]


def test_a_cluster_that_shares_too_little_with_any_is_a_new_one():
    labels = np.arange(20) % 4
    found = matching.numbers(labels, IDS, dict.fromkeys(IDS, 2), unused=3)
    assert found.tolist() == [3, 4, 5, 6]


def test_noise_is_no_cluster_and_tracks_may_be_gone():
    labels = np.array([0, 0, -1, 1, 1, -1])
    before = {"a": 3, "b": 3, "c": 3, "d": -1, "gone": 5}
    found = matching.numbers(labels, ["a", "b", "c", "d", "e", "f"], before, unused=6)
    assert found.tolist() == [3, 6]


def test_with_nothing_shared_all_clusters_are_new():
    assert matching.numbers(np.array([0, 1]), ["x", "y"], BEFORE, unused=8).tolist() == [8, 9]


def test_k_means_starts_where_clusters_are_now():
    points = np.arange(40, dtype=np.float32).reshape(20, 2)
    centers = matching.centers(points, IDS, BEFORE, 3)
    assert np.allclose(centers[0], points[8:14].mean(axis=0))  # number 0
    assert matching.centers(points, IDS, BEFORE, 4) is None


def test_clusters_of_two_methods_that_share_tracks_get_the_same_number():
    vae = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1])
    renamed = np.array([2, 2, 2, 0, 0, 1, 1, 1, 0])
    assert matching.numbers_like(renamed, vae).tolist() == [1, 2, 0]
    assert matching.numbers_like(vae, vae).tolist() == [0, 1, 2]
    few = np.array([1, 1, 1, 0, 0, 0, 0, 0, -1])
    assert sorted(matching.numbers_like(few, vae).tolist()) == [0, 1]
    assert matching.numbers_like(np.full(9, -1), vae).tolist() == []
