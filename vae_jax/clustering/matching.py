"""Gives clusters the numbers that they had before, or that another method's clusters have."""

from collections.abc import Mapping, Sequence

import numpy as np

from vae_jax.clustering.clusterers import NOISE

SAME = 0.5  # Dice's coefficient of a cluster now and before, on shared tracks, to be the same one


def numbers(
    labels: np.ndarray, ids: Sequence[str], before: Mapping[str, int], unused: int
) -> np.ndarray:
    """Return a number for each cluster, [K].

    Clusters are matched one to one with those before, so that as many as possible of the shared
    tracks keep their number (Kuhn 1955). A match counts if the two have half of their shared tracks
    in common (Dice 1945). Other clusters get new numbers.

    Parameters
    ----------
    labels
        [N] from 0 to K - 1; -1 is noise.
    ids
        The tracks' ids, [N].
    before
        The clusters before, by track id; -1 is noise.
    unused
        The lowest number that no cluster ever had.
    """
    from scipy.optimize import linear_sum_assignment

    then = np.array([before.get(id_, NOISE - 1) for id_ in ids])
    shared = then > NOISE - 1
    names, columns = np.unique(then[shared & (then != NOISE)], return_inverse=True)
    overlap = np.zeros((labels.max(initial=NOISE) + 1, len(names)))
    where = (shared & (then != NOISE)).nonzero()[0]
    inside = labels[where] != NOISE
    np.add.at(overlap, (labels[where][inside], columns[inside]), 1)
    sizes = np.bincount(labels[shared & (labels != NOISE)], minlength=len(overlap))
    both = sizes[:, None] + np.bincount(columns, minlength=len(names))
    found = np.full(len(overlap), NOISE)
    for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
        if 2 * overlap[row, column] >= SAME * both[row, column] > 0:
            found[row] = names[column]
    new = found == NOISE
    found[new] = unused + np.arange(np.count_nonzero(new))
    return found


def numbers_like(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the numbers 0 to K - 1 of clusters, [K], so that they agree with another clustering.

    As many tracks as possible are in clusters of the same number in both (Kuhn 1955).

    Parameters
    ----------
    labels, others
        Two clusterings of the tracks, [N]; -1 is noise.
    """
    from scipy.optimize import linear_sum_assignment

    count = labels.max(initial=NOISE) + 1
    overlap = np.zeros((count, count))
    both = (labels != NOISE) & (others != NOISE) & (others < count)
    np.add.at(overlap, (labels[both], others[both]), 1)
    return linear_sum_assignment(-overlap)[1]


def centers(
    points: np.ndarray, ids: Sequence[str], before: Mapping[str, int], num_clusters: int
) -> np.ndarray | None:
    """Return the means [K, L] of the clusters before, where these tracks are now.

    None if there are not as many clusters of them as wanted.
    """
    then = np.array([before.get(id_, NOISE) for id_ in ids])
    names = np.unique(then[then != NOISE])
    if len(names) != num_clusters:
        return None
    return np.stack([points[then == name].mean(axis=0) for name in names]).astype(np.float64)
