"""Places new tracks among the clusters of a run, and says how certain that is.

k-means keeps its centres, so a new track belongs to the nearest one. Other clusterers leave no rule
for new tracks: the `VOTERS` nearest known tracks vote, each by the inverse of its distance, noise
included.

A probability is calibrated on the run's own tracks. A fifth of them at a time is held out, the rest
is clustered from the start, its clusters are matched with the run's (Kuhn 1955), and the one free
parameter is the likeliest for the clusters in which the run, which has seen all tracks, has the
held-out ones. Such a probability says how often a clustering that sees the new track would agree,
not that the cluster means anything. Where clusters change with every tenth track, it is low.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vae_jax.clustering.clusterers import Clustering

if TYPE_CHECKING:
    from sklearn.neighbors import NearestNeighbors

VOTERS = 5
FOLDS = 5
DENSITY_NEIGHBORS = 5
FALSE_RATE = 0.01  # of known tracks that would count as outliers
CALIBRATION = 10_000  # tracks, at most, on which probabilities are calibrated
BOUNDS = (-12.0, 12.0)  # of the logarithm of the parameter that is calibrated


@dataclass(frozen=True)
class Placed:
    """Where new tracks belong.

    Attributes
    ----------
    clusters
        The two likeliest clusters of each track, [M, 2]; -1 is noise. With a single cluster, both
        are that.
    probabilities
        Their probabilities, [M, 2].
    outlier_scores
        The share of known tracks that lie in denser places, [M].
    is_outlier
        Whether a track lies in a place less dense than that of all but `FALSE_RATE` of the known
        tracks, [M] bool.
    nearest
        Positions of the nearest known tracks, [M, up to VOTERS].
    distances
        Their distances.
    """

    clusters: np.ndarray
    probabilities: np.ndarray
    outlier_scores: np.ndarray
    is_outlier: np.ndarray
    nearest: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Known:
    """The tracks of a run and their clusters.

    Attributes
    ----------
    points
        [N, L].
    clusters
        [N] int; -1 is noise.
    recluster
        Clusters points, [n, L], as the run did; called for the folds.
    centers
        The centres of k-means, [K, L]; None for other clusterers.
    center_ids
        The clusters that these are of, ascending, [K]; the rows' numbers if None.
    seed
        The seed of the folds.
    """

    points: np.ndarray
    clusters: np.ndarray
    recluster: Callable[[np.ndarray], Clustering]
    centers: np.ndarray | None = None
    seed: int = 0
    center_ids: np.ndarray | None = None

    def place(self, new: np.ndarray) -> Placed:
        """Place new tracks, [M, L]."""
        distances, nearest = self._search(min(VOTERS, len(self.points)), new)
        probabilities = self._probabilities(self._evidence(new), self._parameter)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        if order.shape[1] == 1:
            order = np.repeat(order, 2, axis=1)
        sparseness = distances[:, : self._density_neighbors].mean(axis=1)
        known = self._sparseness
        scores = np.searchsorted(known, sparseness, side="left") / len(known)
        return Placed(
            clusters=self._ids[order],
            probabilities=np.take_along_axis(probabilities, order, axis=1),
            outlier_scores=scores,
            is_outlier=sparseness > np.quantile(known, 1 - FALSE_RATE),
            nearest=nearest,
            distances=distances,
        )

    @cached_property
    def _ids(self) -> np.ndarray:
        """The clusters that a track can be in, ascending, [C]."""
        if self.centers is None:
            return np.unique(self.clusters)
        return np.arange(len(self.centers)) if self.center_ids is None else self.center_ids

    @cached_property
    def _density_neighbors(self) -> int:
        return max(1, min(DENSITY_NEIGHBORS, len(self.points) - 1))

    @cached_property
    def _sparseness(self) -> np.ndarray:
        """The mean distance of each known track to its nearest others, ascending, [n]."""
        size = min(self._density_neighbors + 1, len(self.points))
        distances, _ = self._search(size, self.points[self._sample])
        return np.sort(distances[:, 1:].mean(axis=1)) if size > 1 else np.zeros(1)

    @cached_property
    def _sample(self) -> np.ndarray:
        """Known tracks in random order, at most `CALIBRATION`, [n]."""
        return np.random.default_rng(self.seed).permutation(len(self.points))[:CALIBRATION]

    def _search(self, k: int, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._index.kneighbors(new, n_neighbors=k)

    @cached_property
    def _index(self) -> "NearestNeighbors":
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors().fit(self.points)

    def _evidence(self, new: np.ndarray) -> np.ndarray:
        """Return squared distances to the centres, or shares of the votes, [M, C]."""
        if self.centers is not None:
            return _to_centers(new, self.centers)
        return _votes(new, self.points, self.clusters, self._ids)

    def _probabilities(self, evidence: np.ndarray, parameter: float) -> np.ndarray:
        if self.centers is not None:
            return _softmax(-parameter * evidence)
        return (evidence + parameter / evidence.shape[1]) / (1 + parameter)

    @cached_property
    def _parameter(self) -> float:
        """The precision of the softmax or the weight of uniform votes, by held-out tracks."""
        from scipy.optimize import minimize_scalar

        evidence, truth = self._held_out()
        if len(self._ids) < 2 or not len(truth):
            return 1.0
        scale = float(np.mean(evidence)) or 1.0
        unit = 1 / scale if self.centers is not None else 1.0

        def loss(logarithm: float) -> float:
            probabilities = self._probabilities(evidence, unit * np.exp(logarithm))
            chosen = probabilities[np.arange(len(truth)), truth]
            return float(-np.mean(np.log(np.maximum(chosen, 1e-12))))

        return float(unit * np.exp(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x))

    def _held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the evidence for held-out tracks, [n, C], and the columns of their clusters."""
        rows = self._sample
        if len(rows) < 2 * FOLDS:
            return np.zeros((0, len(self._ids))), np.zeros(0, int)
        evidence, truth = [], []
        for part in np.array_split(rows, FOLDS):
            rest = np.setdiff1d(rows, part)
            evidence.append(self._evidence_without(self.points[rest], self.clusters[rest], part))
            truth.append(np.searchsorted(self._ids, self.clusters[part]))
        return np.concatenate(evidence), np.concatenate(truth)

    def _evidence_without(
        self, points: np.ndarray, clusters: np.ndarray, part: np.ndarray
    ) -> np.ndarray:
        """Return the evidence for some tracks, [n, C], by a clustering of other ones alone."""
        found = self.recluster(points)
        columns = _matched(found.labels, np.searchsorted(self._ids, clusters), len(self._ids))
        new = self.points[part]
        if self.centers is not None:
            distances = _to_centers(new, found.centers)
            evidence = np.repeat(distances.max(axis=1, keepdims=True), len(self._ids), axis=1)
        else:
            distances = _votes(new, points, found.labels, np.array(sorted(columns)))
            evidence = np.zeros((len(new), len(self._ids)))
        for row, (_, column) in enumerate(sorted(columns.items())):
            if column is not None:
                evidence[:, column] = distances[:, row]
        return evidence


def _matched(labels: np.ndarray, columns: np.ndarray, count: int) -> dict[int, int | None]:
    """Match clusters with columns so that most tracks agree; those left over get None."""
    from scipy.optimize import linear_sum_assignment

    names, rows = np.unique(labels, return_inverse=True)
    table = np.zeros((len(names), count))
    np.add.at(table, (rows, columns), 1)
    matched = dict(zip(*linear_sum_assignment(-table), strict=True))
    return {int(name): matched.get(row) for row, name in enumerate(names)}


def _to_centers(new: np.ndarray, centers: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(new, centers, "sqeuclidean")


def _votes(
    new: np.ndarray, points: np.ndarray, clusters: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """Return the shares of the nearest tracks' votes, [M, C]; a track at distance 0 decides."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(min(VOTERS, len(points)), weights="distance")
    voters.fit(points, clusters)
    shares = np.zeros((len(new), len(ids)))
    shares[:, np.searchsorted(ids, voters.classes_)] = voters.predict_proba(new)
    return shares


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
