import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from vae_jax.collection import neighbours
from vae_jax.collection.neighbours import Space, nearest

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(200, 5)).astype(np.float32)


def test_the_nearest_tracks_are_those_of_scikit_learn():
    expected, order = NearestNeighbors(n_neighbors=200).fit(POINTS).kneighbors(POINTS[[3]])
    rows, distances = nearest(Space(POINTS), POINTS[[3]], mutual=False)
    np.testing.assert_array_equal(rows, order[0])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)


def test_mutual_proximity_is_the_product_of_two_survival_functions():
    """Schnitzer et al. 2012, equation 2, computed track by track in float64."""
    points = POINTS[:40].astype(np.float64)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    survival = np.array([stats.norm(row.mean(), row.std()).sf(row) for row in distances])
    expected = -np.log(survival * survival.T)
    found = Space(points).dissimilarities(points)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_mutual_proximity_has_fewer_hubs_where_there_are_many_dimensions():
    space = Space(RNG.normal(size=(600, 60)))
    plain, mutual = space.hubness(mutual=False), space.hubness(mutual=True)
    assert plain.skewness > 2
    assert mutual.skewness < 0.5 * plain.skewness
    assert mutual.unreachable < 0.5 * plain.unreachable


@pytest.mark.parametrize("block", [2**24, 700])
def test_occurrences_are_counted_among_the_ten_nearest(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    order = NearestNeighbors(n_neighbors=11).fit(POINTS).kneighbors(POINTS)[1][:, 1:]
    counts = np.bincount(order.ravel(), minlength=200)
    found = Space(POINTS).hubness(mutual=False)
    assert found.skewness == pytest.approx(stats.skew(counts))
    assert found.unreachable == pytest.approx(np.mean(counts == 0))


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.ones((1, 3)), np.eye(2)])
def test_equal_or_few_points_give_finite_numbers(points):
    space = Space(points)
    assert np.isfinite(space.dissimilarities(points)).all()
    for mutual in (False, True):
        assert space.hubness(mutual).skewness == 0
        assert len(nearest(space, points[:1], mutual=mutual)[0]) == len(points)


def test_several_points_stand_for_their_mean_or_for_any_of_them():
    line = np.arange(11.0)[:, None]
    rows, distances = nearest(Space(line), line[[0, 10]], mutual=False)
    assert (rows[0], distances[0]) == (5, 0)
    rows, distances = nearest(Space(line), line[[0, 10]], mutual=False, union=True)
    assert set(rows[:2].tolist()) == {0, 10}
    assert rows[-1] == 5


def test_tracks_nearer_to_those_to_stay_away_from_are_left_out():
    line = np.arange(11.0)[:, None]
    rows, _ = nearest(Space(line), line[[4]], away=line[[8]], mutual=False)
    assert sorted(rows.tolist()) == [0, 1, 2, 3, 4, 5, 6]


def test_a_walk_goes_in_even_steps_and_visits_no_track_twice():
    line = np.column_stack([np.arange(101.0), np.zeros(101)])
    points = np.concatenate([line, np.add(line, [0, 30])])
    assert neighbours.walk(points, 0, 100, 11, range(202)) == list(range(0, 101, 10))
    assert neighbours.walk(points, 0, 100, 5, [60, 150, 7]) == [0, 7, 150, 60, 100]
    assert neighbours.walk(points, 3, 9, 2, range(202)) == [3, 9]
