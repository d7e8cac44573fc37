"""Scores a clustering: from the points alone, against labels, and the space by same-artist search.

The cluster stage calls these for every method and seed. All functions are pure; where a score is
sampled, the sample depends on an explicit seed and its size is returned.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging
from scipy.optimize import linear_sum_assignment
from scipy.special import xlogy
from scipy.stats import random_table
from sklearn.metrics import (
    adjusted_mutual_info_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    euclidean_distances,
)
from sklearn.metrics.cluster import expected_mutual_information

from vae_jax.clustering.clusterers import NOISE

NUM_PERMUTATIONS = 100  # of the labels, for the null
MAX_CELLS = 1_000_000  # of a labels x clusters table
REFERENCE = 1_000  # tracks that each track is compared with, where all pairs would be too many
STABILITY_SAMPLE = 100_000  # tracks, evenly spaced, on which clusterings are compared
CHUNK = 2**24  # distances in memory at a time (128 MiB)
RETRIEVAL_DISTANCES = 10**9  # at most, of one retrieval score
NAN = float("nan")


@dataclass(frozen=True)
class Internal:
    """Scores of a clustering from the points alone, over the tracks that are not noise.

    Attributes
    ----------
    silhouette
        -1 to 1, higher is better (Rousseeuw 1987).
    silhouette_sample
        The number of tracks that the silhouette was computed on.
    calinski_harabasz
        0 or more, higher is better.
    davies_bouldin
        0 or more, lower is better.
    """

    silhouette: float = NAN
    silhouette_sample: int = 0
    calinski_harabasz: float = NAN
    davies_bouldin: float = NAN


@dataclass(frozen=True)
class External:
    """Agreement of a clustering with labels, over labelled tracks that are not noise.

    Attributes
    ----------
    n_labelled
        Tracks that have a label, noise among them.
    ari
        Adjusted Rand index.
    nmi, v_measure
        Normalised mutual information (arithmetic mean), which is the V-measure.
    ami
        Adjusted mutual information.
    accuracy
        Accuracy of the best one-to-one assignment of clusters to labels.
    purity
        The fraction of tracks that carry the commonest label of their cluster.
    majority
        The fraction of the commonest label: the purity of a single cluster.
    nmi_null, ami_null, accuracy_null
        Means over permuted labels: what chance reaches.
    ami_null_95
        The 95th percentile of AMI over permuted labels.
    """

    n_labelled: int = 0
    ari: float = NAN
    nmi: float = NAN
    ami: float = NAN
    accuracy: float = NAN
    purity: float = NAN
    majority: float = NAN
    v_measure: float = NAN
    nmi_null: float = NAN
    ami_null: float = NAN
    ami_null_95: float = NAN
    accuracy_null: float = NAN


@dataclass(frozen=True)
class Retrieval:
    """How well nearest neighbours find the same artist.

    Attributes
    ----------
    num_queries
        Tracks whose neighbours were ranked.
    precision_at_1
        The fraction of queries whose nearest track is by the same artist.
    mean_average_precision
        Mean average precision over the rankings of all tracks with an artist.
    precision_at_1_chance, mean_average_precision_chance
        Their expected values for random rankings.
    """

    num_queries: int = 0
    precision_at_1: float = NAN
    mean_average_precision: float = NAN
    precision_at_1_chance: float = NAN
    mean_average_precision_chance: float = NAN


def is_scorable(labels: np.ndarray) -> bool:
    """Say whether there are at least two clusters, and fewer than tracks in them."""
    members = labels[labels != NOISE]
    return 2 <= len(np.unique(members)) < len(members)


def internal(points: np.ndarray, labels: np.ndarray, max_sample: int, seed: int) -> Internal:
    """Score a clustering by the distances within and between its clusters.

    Parameters
    ----------
    points
        [N, D], in the space to score in: the method's own, or the common one.
    labels
        [N] cluster numbers, -1 for noise; `is_scorable`.
    max_sample
        The silhouette, which is O(N^2), is computed on a sample of at most so many tracks.
    seed
        The seed of the sample.
    """
    members = labels != NOISE
    points, labels = points[members], labels[members]
    sample = np.arange(len(points))
    if len(points) > max_sample:
        sample = np.random.default_rng(seed).choice(len(points), max_sample, replace=False)
    silhouette = NAN
    if is_scorable(labels[sample]):
        values = _silhouettes(points[sample], labels[sample], np.arange(len(sample)))
        silhouette = float(values.mean())
    return Internal(
        silhouette=silhouette,
        silhouette_sample=len(sample),
        calinski_harabasz=float(calinski_harabasz_score(points, labels)),
        davies_bouldin=float(davies_bouldin_score(points, labels)),
    )


def silhouettes(points: np.ndarray, labels: np.ndarray, max_exact: int, seed: int) -> np.ndarray:
    """Return each track's silhouette [N]; NaN for noise.

    Up to `max_exact` tracks it is exact. Beyond, the mean distances to each cluster are estimated
    from about 1,000 tracks, the same number from every cluster, so that time grows with N.
    """
    values = np.full(len(labels), np.nan)
    members = np.flatnonzero(labels != NOISE)
    points, labels = points[members], labels[members]
    reference = np.arange(len(members))
    if len(members) > max_exact:
        reference = _same_number_of_each(labels, REFERENCE, np.random.default_rng(seed))
    values[members] = _silhouettes(points, labels, reference)
    return values


def external(labels: np.ndarray, classes: Sequence[str] | np.ndarray, seed: int) -> External:
    """Compare a clustering with labels that it did not see.

    Parameters
    ----------
    labels
        [N] cluster numbers, -1 for noise.
    classes
        [N] labels; an empty string is a missing label.
    seed
        The seed of the permutations of the null.

    Returns
    -------
    External
        Empty (all NaN) if fewer than two clusters or labels are left to compare.
    """
    names = np.asarray(classes)
    labelled = names != ""
    scored = labelled & (labels != NOISE)
    n, n_labelled = int(scored.sum()), int(labelled.sum())
    rows, row = np.unique(names[scored], return_inverse=True)
    columns, column = np.unique(labels[scored], return_inverse=True)
    if min(len(rows), len(columns)) in (0, 1, n):  # one group, or only groups of one, in both
        return External(n_labelled)
    if len(rows) * len(columns) > MAX_CELLS:
        logging.warning("%d labels x %d clusters: too many to compare.", len(rows), len(columns))
        return External(n_labelled)
    table = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(table, (row, column), 1)

    expected = float(expected_mutual_information(table, n))
    nmi, ami = _mutual_information(table, expected)
    null = _null(table, expected, seed)
    return External(
        n_labelled=n_labelled,
        ari=_adjusted_rand(table),
        nmi=nmi,
        ami=ami,
        accuracy=_accuracy(table),
        purity=float(table.max(axis=0).sum() / n),
        majority=float(np.max(table.sum(axis=1)) / n),
        v_measure=nmi,
        nmi_null=float(null[:, 0].mean()),
        ami_null=float(null[:, 1].mean()),
        ami_null_95=float(np.quantile(null[:, 1], 0.95)),
        accuracy_null=float(null[:, 2].mean()),
    )


def stability(clusterings: Sequence[np.ndarray], trainings: Sequence[int]) -> list[float]:
    """Return how far each clustering agrees with the others: its mean AMI with them.

    If there are several trainings, the others are those of other trainings.

    Repeats with other seeds, of training and of the clusterer, should find the same clusters. If
    they do not, there may be none (von Luxburg 2010). This needs no labels. A track that either of
    two clusterings leaves out as noise does not count between them.
    """
    step = max(1, len(clusterings[0]) // STABILITY_SAMPLE)
    agreement = np.full((len(clusterings), len(clusterings)), NAN)
    are_several = len(set(trainings)) > 1
    for i, j in itertools.combinations(range(len(clusterings)), 2):
        if are_several and trainings[i] == trainings[j]:
            continue
        pair = np.stack([clusterings[i][::step], clusterings[j][::step]])
        first, second = pair[:, (pair != NOISE).all(axis=0)]
        if len(first):
            agreement[i, j] = agreement[j, i] = adjusted_mutual_info_score(first, second)
    known = [row[~np.isnan(row)] for row in agreement]
    return [float(row.mean()) if len(row) else NAN for row in known]


def retrieval(points: np.ndarray, artists: Sequence[str] | np.ndarray, seed: int) -> Retrieval:
    """Search each track's nearest neighbours for tracks by the same artist.

    The distance is Euclidean after standardising each dimension; dimensions with under 1% of the
    largest variance, such as the inactive units of a VAE, hold noise and are left out. Ties count
    against the method. Beyond `RETRIEVAL_DISTANCES` the queries are a random sample.

    Parameters
    ----------
    points
        [N, D].
    artists
        [N]; tracks with an empty string are left out, artists with one track are not queries.
    seed
        The seed of the sample.
    """
    names = np.asarray(artists)
    points, names = points[names != ""], names[names != ""]
    _, artist, sizes = np.unique(names, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(sizes[artist] > 1)
    if not len(queries):
        return Retrieval()
    most = max(1000, RETRIEVAL_DISTANCES // len(points))
    if len(queries) > most:
        queries = np.random.default_rng(seed).choice(queries, most, replace=False)
    first, average = _search(_standardise(points), artist, queries)
    matches, others = sizes[artist[queries]] - 1, len(points) - 1
    return Retrieval(
        num_queries=len(queries),
        precision_at_1=float(first.mean()),
        mean_average_precision=float(average.mean()),
        precision_at_1_chance=float(np.mean(matches / others)),
        mean_average_precision_chance=float(np.mean(_chance_precision(matches, others))),
    )


def _silhouettes(points: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return silhouettes [N], from mean distances to the tracks in `reference` (indices [R]).

    Every cluster has a track in the reference.
    """
    reference = reference[np.argsort(labels[reference], kind="stable")]
    clusters, starts, counts = np.unique(labels[reference], return_index=True, return_counts=True)
    center = points[reference].mean(axis=0, dtype=np.float64)  # keeps |x|^2 - 2xy + |y|^2 exact
    others = points[reference] - center
    own = np.searchsorted(clusters, labels)
    peers = counts[own]  # in the reference, without the track itself
    peers[reference] -= 1
    values = np.zeros(len(points))
    step = max(1, CHUNK // len(reference))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        here = (np.arange(len(own[rows])), own[rows])
        distances = euclidean_distances(points[rows] - center, others)
        sums = np.add.reduceat(distances, starts, axis=1)  # [rows, K]
        inner = sums[here] / np.maximum(peers[rows], 1)
        sums[here] = np.inf
        outer = (sums / counts).min(axis=1)
        larger = np.maximum(inner, outer)
        # A cluster of one has silhouette 0 (Rousseeuw 1987), and so has a track amid duplicates.
        is_defined = (peers[rows] > 0) & (larger > 0)
        np.divide(outer - inner, larger, out=values[rows], where=is_defined)
    return values


def _same_number_of_each(labels: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Draw about `total` indices, as many from every cluster as it has, but 20 at least."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
    place = np.arange(len(labels)) - starts[labels[order]]
    return order[place < max(20, total // len(starts))]


def _mutual_information(table: np.ndarray, expected: float) -> tuple[float, float]:
    """Return NMI and AMI of a labels x clusters table (Vinh et al. 2010), arithmetic means.

    `expected` is the mutual information, in nats, of random tables with the same margins.
    """
    shares = table / table.sum()
    rows, columns, joint = (
        -float(xlogy(p, p).sum()) for p in (shares.sum(axis=1), shares.sum(axis=0), shares)
    )
    information, mean = rows + columns - joint, (rows + columns) / 2
    return information / mean, (information - expected) / (mean - expected)


def _null(table: np.ndarray, expected: float, seed: int) -> np.ndarray:
    """Return NMI, AMI and accuracy [P, 3] under permuted labels.

    A permutation leaves the margins as they are, so the tables are drawn directly: O(1) in N.
    """
    permuted = random_table(table.sum(axis=1), table.sum(axis=0), seed=np.random.default_rng(seed))
    tables = (permuted.rvs() for _ in range(NUM_PERMUTATIONS))
    return np.array([(*_mutual_information(t, expected), _accuracy(t)) for t in tables])


def _adjusted_rand(table: np.ndarray) -> float:
    """Hubert and Arabie 1985, equation 5."""

    def pairs(counts: np.ndarray) -> float:
        return float(np.sum(counts * (counts - 1.0)) / 2)

    rows, columns = pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = rows * columns / pairs(np.asarray(table.sum()))
    return (pairs(table) - expected) / ((rows + columns) / 2 - expected)


def _accuracy(table: np.ndarray) -> float:
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def _standardise(points: np.ndarray) -> np.ndarray:
    variance = points.var(axis=0, dtype=np.float64)
    kept = (variance >= 0.01 * np.max(variance)) & (variance > 0)
    center = points[:, kept].mean(axis=0, dtype=np.float64)
    return ((points[:, kept] - center) / np.sqrt(variance[kept])).astype(np.float32)


def _search(
    points: np.ndarray, artist: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the nearest track is a match, and the average precision, per query [Q]."""
    members = np.split(np.argsort(artist, kind="stable"), np.cumsum(np.bincount(artist))[:-1])
    norms = np.einsum("nd,nd->n", points, points)
    first, average = np.empty(len(queries)), np.empty(len(queries))
    step = max(1, CHUNK // len(points))
    for start in range(0, len(queries), step):
        rows = queries[start : start + step]
        distances = points[rows] @ points.T
        distances *= -2
        distances += norms  # squared, but for the query's own norm, which changes no rank
        distances[np.arange(len(rows)), rows] = np.inf
        ranked = np.sort(distances, axis=1)
        for i, row in enumerate(rows):
            matches = np.sort(distances[i, members[artist[row]]])[:-1]  # without itself
            ranks = np.searchsorted(ranked[i], matches, side="right")
            first[start + i] = ranks[0] == 1
            average[start + i] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
    return first, average


def _chance_precision(matches: np.ndarray, n: int) -> np.ndarray:
    """Return the expected average precision of a random ranking of n, R of them matches.

    By linearity: rank i is a match with probability R/n, and then i - 1 earlier ranks hold
    (i - 1)(R - 1)/(n - 1) further ones on average.
    """
    harmonic = np.sum(1 / np.arange(1, n + 1))
    further = (matches - 1) / max(1, n - 1)
    return (harmonic + further * (n - harmonic)) / n
