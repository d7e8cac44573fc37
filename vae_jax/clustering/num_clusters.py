"""Chooses the number of clusters from the points alone, or finds that there are no clusters.

The cluster stage calls `choose_num_clusters` where `config.cluster.num_clusters` is "auto".

Two criteria cover each other's weakness. The gap statistic (Tibshirani, Walther and Hastie 2001)
compares the clusters' tightness with that in structureless points; its own rule, the first k that
beats k + 1, stops at one cluster where two of many explain little. So k must beat k + 1 *and* one
cluster. A k that does may still be an accident of skewed or few points, so it must be found again
too: two halves, clustered separately, have to agree on it (Lange et al. 2004).
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score
from threadpoolctl import threadpool_limits

MAX_CLUSTERS = 20  # that are tried; at most one for every `MIN_SIZE` tracks
MIN_SIZE = 5
SAMPLE = 3_000  # tracks, at most, that are looked at
STARTS = 3  # of each k-means
REFERENCES = 10  # structureless sets of points
SPLITS = 10  # into halves
MIN_AGREEMENT = 0.6  # of two halves, in AMI


@dataclass(frozen=True)
class Trial:
    """One number of clusters that was tried.

    Attributes
    ----------
    num_clusters
        k.
    gap
        How much tighter k clusters are than in structureless points: the difference of the
        logarithms of the sums of squares.
    gap_error
        Its standard error over the sets of structureless points.
    agreement
        Mean AMI of two halves' clusters; NaN where the gap had ruled k out.
    """

    num_clusters: int
    gap: float
    gap_error: float
    agreement: float = math.nan


@dataclass(frozen=True)
class Selection:
    """The number of clusters chosen, and what was tried.

    Attributes
    ----------
    num_clusters
        The number; 1 if no structure was found.
    trials
        What was tried, from one cluster up; empty if there are too few different points to try.
    """

    num_clusters: int
    trials: tuple[Trial, ...]

    @property
    def reason(self) -> str:
        """Why it is this number, in a few words and with the values of the criteria."""
        if len(self.trials) < 2:
            return "there are too few different tracks to tell"
        one, chosen = self.trials[0], self.trials[self.num_clusters - 1]
        tried = f"of 1 to {len(self.trials)}"
        if self.num_clusters > 1:
            return (
                f"gap {chosen.gap:.3f} ± {chosen.gap_error:.3f}, one cluster {one.gap:.3f}; "
                f"halves agree by an AMI of {chosen.agreement:.2f}; {tried}"
            )
        found = [trial for trial in self.trials if not math.isnan(trial.agreement)]
        if not found:
            return f"no number {tried} makes clusters tighter than those of structureless points"
        best = max(found, key=lambda trial: trial.agreement)
        return (
            f"{best.num_clusters} clusters would be tight, but are not found again in halves of "
            f"the tracks (AMI {best.agreement:.2f}, below {MIN_AGREEMENT})"
        )


def choose_num_clusters(points: np.ndarray, seed: int) -> Selection:
    """Choose the number of clusters that k-means should look for.

    It is the smallest k of 2 or more whose gap is above that of one cluster and not below that of
    k + 1, by one standard error each, and on which halves of the points agree.

    Parameters
    ----------
    points
        [N, L] finite latents, of which a sample of at most `SAMPLE` is used.
    seed
        The seed of the sample, the structureless points, the halves and the starts of k-means.
    """
    rng = np.random.default_rng(seed)
    if len(points) > SAMPLE:
        points = points[rng.choice(len(points), SAMPLE, replace=False)]
    distinct = len(np.unique(points, axis=0))
    largest = min(MAX_CLUSTERS, len(points) // MIN_SIZE, distinct)
    if largest < 2:
        return Selection(1, ())
    with threadpool_limits(1):  # threads cost a small k-means more than they give
        return _choose(_along_principal_axes(points), largest, rng, seed)


def _choose(points: np.ndarray, largest: int, rng: np.random.Generator, seed: int) -> Selection:
    """Choose among 1 to `largest` clusters of points that lie along their principal axes."""
    trials = _gaps(points, largest, rng, seed)
    for i, trial in enumerate(trials):
        following = trials[i + 1 : i + 2]  # none, if the gap grows to the end
        is_peak = all(trial.gap >= after.gap - after.gap_error for after in following)
        if is_peak and trial.gap - trial.gap_error > trials[0].gap:
            trials[i] = trial = _with_agreement(trial, points, seed)
            if trial.agreement >= MIN_AGREEMENT:
                return Selection(trial.num_clusters, tuple(trials))
    return Selection(1, tuple(trials))


def _along_principal_axes(points: np.ndarray) -> np.ndarray:
    """Centre and rotate points, so that a box around them is as long and flat as they are."""
    centered = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    return centered @ np.linalg.svd(centered, full_matrices=False)[2].T


def _gaps(points: np.ndarray, largest: int, rng: np.random.Generator, seed: int) -> list[Trial]:
    """Return the gap of every k up to the largest (Tibshirani et al. 2001, section 4, step b)."""
    low, high = points.min(axis=0), points.max(axis=0)
    ks = range(1, largest + 1)

    def log_spread(x: np.ndarray) -> np.ndarray:
        spread = [_kmeans(x, k, seed).inertia_ for k in ks]
        return np.log(np.maximum(spread, 1e-12 * spread[0]))  # 0 where tracks coincide

    own = log_spread(points)
    boxes = [log_spread(rng.uniform(low, high, size=points.shape)) for _ in range(REFERENCES)]
    gaps = np.mean(boxes, axis=0) - own
    errors = np.std(boxes, axis=0) * np.sqrt(1 + 1 / REFERENCES)
    return [
        Trial(k, *values) for k, *values in zip(ks, gaps.tolist(), errors.tolist(), strict=True)
    ]


def _with_agreement(trial: Trial, points: np.ndarray, seed: int) -> Trial:
    """Add how far the clusters of one half, continued to the other half, are that half's own."""
    k, half = trial.num_clusters, len(points) // 2
    scores = []
    for split in range(SPLITS):
        shuffled = np.random.default_rng([seed, split]).permutation(points)
        first, second = (_kmeans(part, k, seed) for part in (shuffled[:half], shuffled[half:]))
        scores.append(adjusted_mutual_info_score(first.predict(shuffled[half:]), second.labels_))
    return replace(trial, agreement=float(np.mean(scores)))


def _kmeans(points: np.ndarray, k: int, seed: int) -> KMeans:
    with warnings.catch_warnings():  # of a half in which fewer than k points differ
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, n_init=STARTS, random_state=seed).fit(points)
