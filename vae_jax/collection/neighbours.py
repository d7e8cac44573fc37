"""Finds the tracks that are most alike: an exact search, without hubs.

In spaces of many dimensions some points, the hubs, are among the nearest neighbours of very many
others, and some are among those of none (Radovanovic et al. 2010). Mutual proximity (Schnitzer et
al. 2012, equation 2, with normal distances as in section 3.2) counters that: two tracks are alike
if their distance is small for both of them, each compared with its distances to all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

REFERENCES = 2000  # tracks from which the distances of each are described
CANDIDATES = 10_000  # nearest tracks that are ranked by mutual proximity, before all others
BLOCK = 2**24  # distances in memory at once
OCCURRENCE = 10  # neighbours in which occurrences are counted
QUERIES = 5000  # tracks whose neighbours are looked up to count occurrences


@dataclass(frozen=True)
class Hubness:
    """How unevenly tracks occur among the `OCCURRENCE` nearest neighbours of others.

    Attributes
    ----------
    skewness
        The third standardised moment of the occurrences: 0 without hubs, above 1 with strong ones.
    unreachable
        The share of tracks that are among the neighbours of no other.
    """

    skewness: float
    unreachable: float


@dataclass(frozen=True)
class Space:
    """Points in which neighbours are looked for.

    Attributes
    ----------
    points
        [N, L] finite numbers.
    seed
        The seed of the samples.
    """

    points: np.ndarray
    seed: int = 0

    def distances(self, queries: np.ndarray) -> np.ndarray:
        """Return Euclidean distances [Q, N] float64 of queries, [Q, L]."""
        from scipy.spatial.distance import cdist

        parts = np.array_split(self.points, -(-self.points.size // BLOCK))
        return np.concatenate([cdist(queries, part) for part in parts], axis=1)

    def dissimilarities(self, queries: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return -log of the mutual proximity, [Q, n], of queries [Q, L] with tracks.

        These are all of them, or those at the positions `rows`, [n]. The distances of a track to
        the others are taken to be normal, and those of two tracks to be independent.
        """
        from scipy.spatial.distance import cdist
        from scipy.special import log_ndtr

        points = self.points if rows is None else self.points[rows]
        mean, deviation = self._describe(queries)
        known = self._described if rows is None else self._describe(points)
        distances = cdist(queries, points)
        to_query = (distances - mean[:, None]) / deviation[:, None]
        to_known = (distances - known[0]) / known[1]
        return -(log_ndtr(-to_query) + log_ndtr(-to_known))

    def measure(self, queries: np.ndarray, mutual: bool) -> np.ndarray:
        """Return what tracks are ranked by, [Q, N]: dissimilarities if `mutual`, or distances."""
        return self.dissimilarities(queries) if mutual else self.distances(queries)

    def hubness(self, mutual: bool) -> Hubness:
        """Measure the hubs, among at most `QUERIES` tracks' neighbours."""
        from scipy.stats import skew

        total = len(self.points)
        k = min(OCCURRENCE, total - 1)
        if k < 1:
            return Hubness(0.0, 0.0)
        rows = np.arange(total)
        if total > QUERIES:
            rows = np.random.default_rng(self.seed).choice(total, QUERIES, replace=False)
        counts = np.zeros(total, int)
        for part in np.array_split(rows, -(-len(rows) * total // BLOCK)):
            queries = self.points[part]
            found = self.measure(queries, mutual)
            found[np.arange(len(part)), part] = np.inf
            counts += np.bincount(np.argpartition(found, k - 1)[:, :k].ravel(), minlength=total)
        is_uneven = np.ptp(counts) > 0
        return Hubness(float(skew(counts)) if is_uneven else 0.0, float(np.mean(counts == 0)))

    @cached_property
    def _references(self) -> np.ndarray:
        """The tracks to which distances are described, [R, L]."""
        if len(self.points) <= REFERENCES:
            return self.points
        rows = np.random.default_rng(self.seed).choice(len(self.points), REFERENCES, replace=False)
        return self.points[rows]

    @cached_property
    def _described(self) -> tuple[np.ndarray, np.ndarray]:
        return self._describe(self.points)

    def _describe(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of the distances [n] to the references, never 0."""
        from sklearn.metrics import euclidean_distances  # by products, several times faster

        parts, references = [], self._references.astype(np.float64)
        for part in np.array_split(points, -(-len(points) * len(references) // BLOCK)):
            distances = euclidean_distances(part.astype(np.float64), references)
            parts.append((distances.mean(axis=1), distances.std(axis=1)))
        mean, deviation = (np.concatenate(values) for values in zip(*parts, strict=True))
        return mean, np.where(deviation > 0, deviation, 1.0)


def nearest(
    space: Space,
    to: np.ndarray,
    away: np.ndarray | None = None,
    mutual: bool = True,
    union: bool = False,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank tracks by their likeness to one or several points.

    Parameters
    ----------
    space
        The tracks.
    to
        The points, [Q, L]. Tracks are to be near to their mean.
    away
        Points [M, L] that tracks must not resemble: those nearer to one of them are left out.
    mutual
        Whether to rank by mutual proximity instead of distance. Of many tracks the `CANDIDATES`
        nearest are, and the others follow by distance.
    union
        Whether tracks are to be near to any of the points instead of their mean.
    rows
        Positions of the tracks to rank, ascending; all if None.

    Returns
    -------
    rows
        Positions of the tracks [n], the most alike first; ties in their order.
    distances
        Their Euclidean distances, [n].
    """
    wanted = to if union else to.mean(axis=0, keepdims=True)
    distances = space.distances(wanted).min(axis=0)
    found = np.arange(len(distances)) if rows is None else np.asarray(rows)
    if away is not None:
        found = found[distances[found] <= space.distances(away).min(axis=0)[found]]
    found = found[np.argsort(distances[found], kind="stable")]
    if mutual and len(found):
        first = np.sort(found[:CANDIDATES])
        ranking = space.dissimilarities(wanted, first).min(axis=0)
        found = np.concatenate([first[np.argsort(ranking, kind="stable")], found[CANDIDATES:]])
    return found, distances[found]


def walk(points: np.ndarray, begin: int, end: int, count: int, rows: Sequence[int]) -> list[int]:
    """Return tracks on the way from one to another, in even steps.

    Parameters
    ----------
    points
        [N, L].
    begin, end
        Positions of the first and of the last track.
    count
        Tracks to return, both ends included.
    rows
        Positions of the tracks that may lie between.

    Returns
    -------
    list of int
        Positions. Each track between is matched with one of the points that divide the straight
        line evenly, so that the sum of squared distances is least (Kuhn 1955).
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    shares = np.linspace(0, 1, count)[1:-1, None]
    line = (1 - shares) * points[begin] + shares * points[end]
    between = np.array([row for row in rows if row not in (begin, end)], int)
    cost = cdist(line, points[between], "sqeuclidean")
    # Only the nearest `count` of each point can be matched with it.
    near = np.unique(np.argsort(cost, axis=1, kind="stable")[:, :count])
    places, chosen = linear_sum_assignment(cost[:, near])
    return [begin, *between[near[chosen[np.argsort(places)]]].tolist(), end]


def nearest_others(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other tracks and their distances, [N, min(count, N - 1)] each.

    The search is exact, by Euclidean distance.
    """
    count = min(count, len(points) - 1)
    if count < 1:
        return np.zeros((len(points), 0), np.int64), np.zeros((len(points), 0))
    from sklearn.neighbors import NearestNeighbors

    # In few dimensions scikit-learn takes a tree, in many it compares all; either is exact.
    index = NearestNeighbors(n_neighbors=count, n_jobs=-1).fit(points.astype(np.float64))
    distances, rows = index.kneighbors()
    return rows, distances
