"""In which numbers clusters differ from the other tracks, and latent dimensions go with numbers.

Significance comes from permutations of the tracks. What is compared with a permutation's is its
largest statistic over all clusters and numbers at once (Westfall and Young 1993), so that a share
of at most `level` of the permutations would give any reason at all.

Letters: N tracks, K clusters, D numbers, L latent dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 499
SAMPLE = 10_000  # tracks, at most, that are permuted


@dataclass(frozen=True)
class Differences:
    """How the clusters differ from all other tracks; all arrays are [K, D].

    Attributes
    ----------
    effect
        Hedges' g: the difference of the means in standard deviations; NaN if undefined.
    low, high
        Its 95% interval (Hedges and Olkin 1985).
    inside, outside
        The medians in the cluster and elsewhere.
    p
        The probability of as large a statistic anywhere, were the clusters drawn at random.
    """

    effect: np.ndarray
    low: np.ndarray
    high: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    p: np.ndarray


def differences(values: np.ndarray, clusters: np.ndarray, seed: int) -> Differences:
    """Compare clusters, [N] from 0 to K - 1 (-1 is none), in numbers, [N, D], NaN where unknown."""
    shape = (clusters.max(initial=-1) + 1, values.shape[1])
    effect, spread, inside, outside = (np.full(shape, np.nan) for _ in range(4))
    for k, d in np.ndindex(shape):
        known = np.isfinite(values[:, d])
        own, others = values[known & (clusters == k), d], values[known & (clusters != k), d]
        if len(own) and len(others):
            inside[k, d], outside[k, d] = np.median(own), np.median(others)
            effect[k, d], spread[k, d] = _hedges_g(own, others)
    low, high = effect - 1.96 * spread, effect + 1.96 * spread
    p = _p_of_clusters(values, clusters, seed)
    return Differences(effect, low, high, inside, outside, p)


def rank_correlations(
    latents: np.ndarray, values: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return Spearman's correlation of latents [N, L] with numbers [N, D], and its p; [L, D].

    The p is the probability of as large a correlation anywhere, were the tracks permuted.
    """
    x, y = ranks(latents), ranks(values)
    count = max(len(x), 1)
    rows = sample(count, seed)
    drawn_x, drawn_y = ranks(latents[rows]), ranks(values[rows])

    def size(order: np.ndarray | slice) -> np.ndarray:
        return np.abs(drawn_x.T @ drawn_y[order])

    return x.T @ y / count, chance(size(slice(None)), size, len(rows), seed)


def ranks(values: np.ndarray) -> np.ndarray:
    """Return mid-ranks of columns [N, D], of mean 0 and variance 1; 0 where a value is NaN."""
    from scipy.stats import rankdata

    found = np.zeros(values.shape)
    for column, target in zip(values.T, found.T, strict=True):
        known = np.isfinite(column)
        if known.any():
            ranked = rankdata(column[known])
            target[known] = ranked - ranked.mean()
            scale = np.sqrt(np.mean(np.square(target)))
            target /= scale if scale > 0 else 1.0
    return found


def _hedges_g(own: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return the standardised difference of two samples' means, and its standard error."""
    n, m = len(own), len(others)
    if n + m < 4 or n < 2:
        return np.nan, np.nan
    pooled = (n * own.var() + m * others.var()) / (n + m - 2)
    if not pooled > 0:
        return np.nan, np.nan
    g = (own.mean() - others.mean()) / np.sqrt(pooled) * (1 - 3 / (4 * (n + m) - 9))
    return float(g), float(np.sqrt((n + m) / (n * m) + g**2 / (2 * (n + m))))


def _p_of_clusters(values: np.ndarray, clusters: np.ndarray, seed: int) -> np.ndarray:
    """Return p-values [K, D] of the clusters' rank sums."""
    num_clusters = clusters.max(initial=-1) + 1
    rows = sample(len(values), seed)
    rows = rows[np.argsort(clusters[rows], kind="stable")]
    x, sizes = ranks(values[rows]), np.bincount(clusters[rows] + 1, minlength=num_clusters + 1)
    ends = np.cumsum(sizes)
    # The sum of n values that are drawn from N of variance 1, without putting any back, has it.
    variance = sizes * (len(rows) - sizes) / max(len(rows) - 1, 1)
    scale = np.where(variance > 0, np.sqrt(np.maximum(variance, 1e-30)), np.inf)[1:, None]

    def scores(order: np.ndarray | slice) -> np.ndarray:
        total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x[order], axis=0)])
        return np.abs(np.diff(total[ends], axis=0)) / scale

    return chance(scores(slice(None)), scores, len(rows), seed)


def chance(
    found: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int
) -> np.ndarray:
    """Return how often the largest statistic of a permutation reaches each of those found."""
    rng = np.random.default_rng(seed)
    largest = np.sort(
        [statistic(rng.permutation(count)).max(initial=0.0) for _ in range(PERMUTATIONS)]
    )
    reached = PERMUTATIONS - np.searchsorted(largest, found - 1e-9)
    return (1 + reached) / (1 + PERMUTATIONS)


def sample(count: int, seed: int) -> np.ndarray:
    """Return which of `count` tracks are permuted, ascending."""
    if count <= SAMPLE:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False))
