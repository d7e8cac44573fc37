"""Scores, against scikit-learn and definitions written out by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from vae_jax.clustering import metrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(4, size=300)
POINTS = RNG.normal(size=(300, 5)) + 2 * RNG.normal(size=(4, 5))[LABELS]
CLASSES = np.where(RNG.random(300) < 0.6, LABELS, RNG.integers(6, size=300)).astype(str)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_internal_scores_are_those_of_scikit_learn() -> None:
    scores = metrics.internal(POINTS, LABELS, max_sample=300, seed=0)
    assert scores.silhouette == pytest.approx(reference.silhouette_score(POINTS, LABELS))
    assert scores.silhouette_sample == 300
    assert scores.calinski_harabasz == reference.calinski_harabasz_score(POINTS, LABELS)
    assert scores.davies_bouldin == reference.davies_bouldin_score(POINTS, LABELS)


def test_internal_scores_leave_noise_out() -> None:
    noisy = np.where(np.arange(300) < 40, -1, LABELS)
    expected = metrics.internal(POINTS[40:], LABELS[40:], max_sample=300, seed=0)
    assert metrics.internal(POINTS, noisy, max_sample=300, seed=0) == expected


def test_stability_is_the_mean_agreement_with_the_others() -> None:
    renamed, other = (LABELS + 1) % 4, RNG.integers(4, size=300)
    ami = reference.adjusted_mutual_info_score(LABELS, other)
    expected = [(1 + ami) / 2, (1 + ami) / 2, ami]
    assert metrics.stability([LABELS, renamed, other], [0, 0, 0]) == pytest.approx(expected)
    of_other_trainings = metrics.stability([LABELS, renamed, other], [0, 0, 1])
    assert of_other_trainings == pytest.approx([ami, ami, ami])
    assert np.isnan(metrics.stability([LABELS], [0])).all()
    noise = np.full(300, -1)
    assert np.isnan(metrics.stability([LABELS, noise], [0, 0])).all()
    mended = metrics.stability([LABELS, np.where(other == 0, -1, LABELS)], [0, 0])
    assert mended == pytest.approx([1, 1])


@pytest.mark.parametrize("offset", [0, 1e4])
def test_the_silhouette_of_each_track_is_that_of_scikit_learn(
    offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CHUNK", 7 * 300)  # many chunks
    labels = LABELS.copy()
    labels[17] = 4  # a cluster of one has silhouette 0
    values = metrics.silhouettes(POINTS + offset, labels, max_exact=300, seed=0)
    np.testing.assert_allclose(values, reference.silhouette_samples(POINTS, labels), atol=1e-6)
    assert values[17] == 0


def test_silhouettes_of_noise_are_nan() -> None:
    noisy = np.where(np.arange(300) < 40, -1, LABELS)
    values = metrics.silhouettes(POINTS, noisy, max_exact=300, seed=0)
    assert np.isnan(values[:40]).all()
    np.testing.assert_allclose(
        values[40:], reference.silhouette_samples(POINTS[40:], LABELS[40:]), atol=1e-9
    )


def test_beyond_the_sample_size_silhouettes_are_estimated_closely(rng: np.random.Generator) -> None:
    labels = rng.choice(4, size=4000, p=[0.7, 0.2, 0.09, 0.01])
    points = rng.normal(size=(4000, 5)) + 2 * rng.normal(size=(4, 5))[labels]
    exact = reference.silhouette_samples(points, labels)
    scores = metrics.internal(points, labels, max_sample=2000, seed=0)
    assert scores.silhouette_sample == 2000
    assert scores.silhouette == pytest.approx(exact.mean(), abs=0.02)
    values = metrics.silhouettes(points, labels, max_exact=2000, seed=0)
    assert np.abs(values - exact).max() < 0.1
    assert values.mean() == pytest.approx(exact.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 1], True),
        ([0, 0, 0], False),
        ([0, 1, 2], False),
        ([-1, -1], False),
        ([0, 0, -1], False),
        ([0, 1, -1, -1], False),
        ([0, 1, 1, -1], True),
    ],
)
def test_two_clusters_at_least_and_fewer_than_tracks_can_be_scored(
    labels: list[int], expected: bool
) -> None:
    assert metrics.is_scorable(np.array(labels)) is expected


def test_external_scores_are_those_of_scikit_learn() -> None:
    scores = metrics.external(LABELS, CLASSES, seed=0)
    assert scores.n_labelled == 300
    assert scores.ari == pytest.approx(reference.adjusted_rand_score(CLASSES, LABELS))
    assert scores.nmi == pytest.approx(reference.normalized_mutual_info_score(CLASSES, LABELS))
    assert scores.ami == pytest.approx(reference.adjusted_mutual_info_score(CLASSES, LABELS))
    assert scores.v_measure == pytest.approx(reference.v_measure_score(CLASSES, LABELS))


def test_accuracy_purity_and_majority_are_those_counted_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    classes = ["a", "a", "b", "b", "a", "a", "c", "c"]
    scores = metrics.external(labels, classes, seed=0)
    # One to one: 0 -> b (2 tracks), 1 -> a (2), 2 -> c (1); commonest: 2 + 2 + 1; a: 4 of 8.
    assert (scores.accuracy, scores.purity, scores.majority) == (5 / 8, 5 / 8, 4 / 8)


def test_tracks_without_a_label_and_noise_are_left_out() -> None:
    classes, labels = CLASSES.copy(), LABELS.copy()
    classes[:50] = ""
    labels[40:90] = -1
    scores, expected = (
        metrics.external(labels, classes, seed=0),
        metrics.external(LABELS[90:], CLASSES[90:], seed=0),
    )
    assert (scores.n_labelled, expected.n_labelled) == (250, 210)
    assert (scores.ami, scores.ami_null) == (expected.ami, expected.ami_null)


def test_the_null_is_that_of_permuted_labels(rng: np.random.Generator) -> None:
    scores = metrics.external(LABELS, CLASSES, seed=0)
    shuffled = [metrics.external(LABELS, rng.permutation(CLASSES), seed=0) for _ in range(100)]
    assert scores.nmi_null == pytest.approx(np.mean([s.nmi for s in shuffled]), abs=0.004)
    assert scores.ami_null == pytest.approx(0, abs=0.004)
    assert scores.ami_null_95 == pytest.approx(
        np.quantile([s.ami for s in shuffled], 0.95), abs=0.006
    )
    assert scores.accuracy_null == pytest.approx(np.mean([s.accuracy for s in shuffled]), abs=0.01)
    assert metrics.external(LABELS, CLASSES, seed=0) == scores


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 0, 1], ["", "", ""]),
        ([0, 0, 1], ["a", "a", "a"]),
        ([0, 0, 1], ["a", "b", ""]),
        ([0, 1, 1], ["a", "b", ""]),
        ([-1, -1, -1], ["a", "b", "b"]),
    ],
)
def test_external_scores_are_empty_where_nothing_can_be_compared(
    labels: list[int], classes: list[str]
) -> None:
    scores = metrics.external(np.array(labels), classes, seed=0)
    assert scores.n_labelled == sum(map(bool, classes))
    assert np.isnan([scores.ami, scores.accuracy, scores.ami_null]).all()


def retrieval_by_definition(points: np.ndarray, artists: list[str]) -> tuple[float, float]:
    points = (points - points.mean(axis=0)) / points.std(axis=0)
    first, average = [], []
    for i, artist in enumerate(artists):
        order = np.argsort(np.linalg.norm(points - points[i], axis=1))
        hits = np.array([artists[j] == artist for j in order if j != i])
        if hits.any():
            first.append(hits[0])
            ranks = np.flatnonzero(hits) + 1
            average.append(np.mean([hits[:rank].mean() for rank in ranks]))
    return np.mean(first), np.mean(average)


def test_retrieval_is_that_of_the_definition(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CHUNK", 200)
    artists = [*rng.choice([*"abcdefgh"], size=60).tolist(), "alone", "solo"]
    points = rng.normal(size=(62, 4)) + rng.normal(size=(1, 4))
    points[:, 0] += [ord(artist[0]) for artist in artists]
    found = metrics.retrieval(points, artists, seed=0)
    assert found.num_queries == 60
    first, average = retrieval_by_definition(points, artists)
    assert found.precision_at_1 == pytest.approx(first)
    assert found.mean_average_precision == pytest.approx(average)


def test_retrieval_by_chance_is_what_random_points_reach(rng: np.random.Generator) -> None:
    artists = rng.choice([*"abcd"], size=40, p=[0.4, 0.3, 0.2, 0.1]).tolist()
    found = [metrics.retrieval(rng.normal(size=(40, 3)), artists, seed=0) for _ in range(200)]
    for name in ("precision_at_1", "mean_average_precision"):
        mean = np.mean([getattr(one, name) for one in found])
        assert mean == pytest.approx(getattr(found[0], f"{name}_chance"), abs=0.012)


def test_identical_latents_retrieve_nothing() -> None:
    found = metrics.retrieval(np.ones((20, 3)), [*"ab"] * 10, seed=0)
    assert found.precision_at_1 == 0
    assert found.mean_average_precision < found.mean_average_precision_chance


def test_retrieval_leaves_out_unknown_artists_and_is_empty_without_pairs(
    rng: np.random.Generator,
) -> None:
    points = rng.normal(size=(6, 2))
    artists = ["a", "a", "b", "", "", ""]
    known = metrics.retrieval(points[:3], artists[:3], seed=0)
    assert metrics.retrieval(points, artists, seed=0) == known
    assert known.num_queries == 2
    assert metrics.retrieval(points, ["a", "b", "c", "", "", ""], seed=0).num_queries == 0


def test_queries_are_sampled_where_all_would_take_too_long(
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "RETRIEVAL_DISTANCES", 1)
    artists = (np.arange(3000) % 300).astype(str)
    points = rng.normal(size=(3000, 2))
    found = metrics.retrieval(points, artists, seed=0)
    assert found.num_queries == 1000
    assert metrics.retrieval(points, artists, seed=0) == found
