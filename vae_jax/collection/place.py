"""Places new tracks among the clusters of a run, and says how certain that is.

k-means keeps its centres, so a new track belongs to the nearest one. Other clusterers leave no rule
for new tracks: the `VOTERS` nearest known tracks vote, each by the inverse of its distance, noise
included. The model's own mixture gives new tracks probabilities itself.

A probability is calibrated on the run's own tracks. One half of them is clustered, the other half
is placed, and then all are clustered, from the clusters of the first half on, as a run that follows
another does. Clusters are matched by the tracks that both clusterings have seen (Kuhn 1955). Two
parameters, how sharp probabilities are and the share that is spread evenly, are the likeliest for
the clusters in which the placed tracks end. So a probability says how often a clustering that goes
on from this one, and sees the new track, would agree; not that the cluster means anything.

The mixture is not trained anew for that: held-out tracks are given to a mixture of
Gaussians that is fitted to the latents of the rest, from the model's own components on.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vae_jax.clustering.clusterers import NOISE, Clustering

if TYPE_CHECKING:
    from sklearn.neighbors import NearestNeighbors

VOTERS = 5
SPLITS = 3  # into halves, to calibrate probabilities
FOLDS = 5  # of the mixture's
DENSITY_NEIGHBORS = 5
FALSE_RATE = 0.01  # of known tracks that would count as outliers
CALIBRATION = 5_000  # tracks, at most, on which probabilities are calibrated
LEAST = 1e-12  # of a probability, whose logarithm is taken
BOUNDS = (-12.0, 12.0)  # of the logarithms, or log odds, that are calibrated


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
        Clusters points, [n, L], as the run did, from given centres, [K, L], if the clusterer can;
        called for the folds.
    centers
        The centres of k-means, [K, L]; None for other clusterers.
    center_ids
        The clusters that these are of, ascending, [K]; the rows' numbers if None.
    seed
        The seed of the folds.
    """

    points: np.ndarray
    clusters: np.ndarray
    recluster: Callable[[np.ndarray, np.ndarray | None], Clustering]
    centers: np.ndarray | None = None
    seed: int = 0
    center_ids: np.ndarray | None = None

    def place(self, new: np.ndarray) -> Placed:
        """Place new tracks, [M, L]."""
        distances, nearest = self._search(min(VOTERS, len(self.points)), new)
        probabilities = _probabilities(self._evidence(new), *self._certainty)
        clusters, probabilities = _likeliest(probabilities, self._ids)
        sparseness = distances[:, : self._density_neighbors].mean(axis=1)
        known = self._sparseness
        scores = np.searchsorted(known, sparseness, side="left") / len(known)
        return Placed(
            clusters=clusters,
            probabilities=probabilities,
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
        """Return how much speaks for each cluster, [M, C], as logarithms up to a factor."""
        if self.centers is not None:
            return _nearness(new, self.centers)
        return _votes(new, self.points, self.clusters, self._ids)

    @cached_property
    def _certainty(self) -> tuple[float, float]:
        """How sharp probabilities are, and the share that is spread evenly, by held-out tracks."""
        evidence, truth = self._held_out()
        return _calibrated(evidence, truth)

    def _held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the evidence for held-out tracks, [n, C], and the columns of their clusters."""
        if len(self._sample) < 2 * max(FOLDS, len(self._ids)):
            return np.zeros((0, len(self._ids))), np.zeros(0, int)
        rng = np.random.default_rng(self.seed)
        halves = [np.array_split(rng.permutation(self._sample), 2) for _ in range(SPLITS)]
        pairs = [pair for first, second in halves for pair in ((first, second), (second, first))]
        parts = [self._placed_and_seen(first, second) for first, second in pairs]
        evidence, truth = zip(*parts, strict=True)
        return np.concatenate(evidence), np.concatenate(truth)

    def _placed_and_seen(self, rest: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place some tracks without having seen them, and look where they end.

        Returns the evidence, [n, C], by a clustering of the rest alone, and the columns of the
        clusters that they are in when all are clustered, [n].
        """
        points, new = self.points[rest], self.points[part]
        found = self.recluster(points, None)
        if self.centers is None:  # which does not depend on where it starts
            seen = np.searchsorted(self._ids, self.clusters[np.append(rest, part)])
            scores = _votes(new, points, found.labels, np.unique(found.labels))
        else:
            seen = self.recluster(np.concatenate([points, new]), found.centers).labels
            scores = _nearness(new, found.centers)
        columns = _matched(found.labels, seen[: len(rest)], len(self._ids))
        evidence = np.repeat(scores.min(axis=1, keepdims=True), len(self._ids), axis=1)
        for row, (_, column) in enumerate(sorted(columns.items())):
            if column is not None:
                evidence[:, column] = scores[:, row]
        return evidence, seen[len(rest) :]


@dataclass(frozen=True)
class Components:
    """The components of the mixture that a run's model has learned.

    Attributes
    ----------
    points
        The latents of the run's tracks, [N, L].
    assignments
        The probabilities of the components for these, [N, K].
    columns
        The cluster that each component is part of, [K]; -1 if no track is in it.
    seed
        The seed of the folds.
    """

    points: np.ndarray
    assignments: np.ndarray
    columns: np.ndarray
    seed: int = 0

    def choose(self, assignments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the two likeliest clusters and their probabilities, [M, 2], of new tracks.

        `assignments` are the model's probabilities of the components for them, [M, K].
        """
        probabilities = _probabilities(self._evidence(assignments), *self._certainty)
        return _likeliest(probabilities, self._ids)

    @cached_property
    def _ids(self) -> np.ndarray:
        return np.unique(self.columns[self.columns != NOISE])

    def _evidence(self, assignments: np.ndarray) -> np.ndarray:
        """Return the logarithms of the clusters' probabilities by the model alone, [M, C]."""
        return np.log(np.maximum(assignments @ np.equal.outer(self.columns, self._ids), LEAST))

    @cached_property
    def _certainty(self) -> tuple[float, float]:
        rows = np.random.default_rng(self.seed).permutation(len(self.points))[:CALIBRATION]
        if len(rows) < 2 * FOLDS or len(self._ids) < 2:
            return 1.0, 0.0
        found = [self._fitted_without(rows, part) for part in np.array_split(rows, FOLDS)]
        truth = np.searchsorted(self._ids, np.concatenate(found))
        return _calibrated(self._evidence(self.assignments[rows]), truth)

    def _fitted_without(self, rows: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Return the clusters [n] of tracks under a mixture that is fitted to all others."""
        from sklearn.mixture import GaussianMixture

        rest = np.setdiff1d(rows, part)
        points, shares = self.points[rest].astype(np.float64), self.assignments[rest]
        used = (self.columns != NOISE) & (shares.sum(axis=0) > 1)
        shares = shares[:, used] + LEAST
        mass = shares.sum(axis=0)[:, None]
        means = shares.T @ points / mass
        # As in `clusterers`: it grows with the latents' scale.
        least = 1e-3 * float(points.var(axis=0).mean())
        variances = np.maximum(shares.T @ points**2 / mass - means**2, 0) + least
        model = GaussianMixture(
            len(mass),
            covariance_type="diag",
            weights_init=mass[:, 0] / mass.sum(),
            means_init=means,
            precisions_init=1 / variances,
            reg_covar=least,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged does not matter here
            model.fit(points)
        return self.columns[used][model.predict(self.points[part].astype(np.float64))]


def _likeliest(probabilities: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two likeliest of C clusters, [M, 2], and their probabilities; one cluster twice.

    `probabilities` are of the clusters `ids`, [M, C].
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    if order.shape[1] == 1:
        order = np.repeat(order, 2, axis=1)
    return ids[order], np.take_along_axis(probabilities, order, axis=1)


def _probabilities(evidence: np.ndarray, sharpness: float, even: float) -> np.ndarray:
    """Return probabilities, [M, C], of which a share is spread evenly."""
    return (1 - even) * _softmax(sharpness * evidence) + even / evidence.shape[1]


def _calibrated(evidence: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the sharpness and the even share that make the true columns, [n], likeliest."""
    from scipy.optimize import minimize
    from scipy.special import expit

    if not len(truth) or evidence.shape[1] < 2:
        return 1.0, 0.0
    unit = 1 / (float(np.mean(evidence.max(axis=1) - evidence.mean(axis=1))) or 1.0)

    def parameters(x: np.ndarray) -> tuple[float, float]:
        return unit * float(np.exp(x[0])), float(expit(x[1]))

    def loss(x: np.ndarray) -> float:
        chosen = _probabilities(evidence, *parameters(x))[np.arange(len(truth)), truth]
        return float(-np.mean(np.log(np.maximum(chosen, LEAST))))

    found = minimize(loss, [1.0, -2.0], method="Nelder-Mead", bounds=[BOUNDS, BOUNDS])
    return parameters(found.x)


def _matched(labels: np.ndarray, columns: np.ndarray, count: int) -> dict[int, int | None]:
    """Match clusters with columns so that most tracks agree; those left over get None."""
    from scipy.optimize import linear_sum_assignment

    names, rows = np.unique(labels, return_inverse=True)
    table = np.zeros((len(names), count))
    np.add.at(table, (rows, columns), 1)
    matched = dict(zip(*linear_sum_assignment(-table), strict=True))
    return {int(name): matched.get(row) for row, name in enumerate(names)}


def _nearness(new: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return squared distances below 0, [M, K], as of Gaussians of one size."""
    from scipy.spatial.distance import cdist

    return -cdist(new, centers, "sqeuclidean")


def _votes(
    new: np.ndarray, points: np.ndarray, clusters: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """Return the logarithms of shares of the nearest tracks' votes, [M, C].

    A track at distance 0 decides.
    """
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(min(VOTERS, len(points)), weights="distance")
    voters.fit(points, clusters)
    shares = np.zeros((len(new), len(ids)))
    shares[:, np.searchsorted(ids, voters.classes_)] = voters.predict_proba(new)
    return np.log(np.maximum(shares, LEAST))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
