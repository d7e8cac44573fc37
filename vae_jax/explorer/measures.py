"""What the explorer says of each track: its neighbours, whether to trust the map, and more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vae_jax.clustering.clusterers import NOISE

DENSITY_NEIGHBORS = 5
TRUE_NEIGHBORS = 10  # at most, whose places on the map tell how faithful it is
NEAR = 2  # times as many tracks count as near on the map
TYPICAL = 5  # tracks of a cluster
CURVE_BITS = 12  # of each coordinate


@dataclass(frozen=True)
class Between:
    """Where tracks lie between clusters.

    Attributes
    ----------
    second
        The position in `names` of the nearest other cluster, [N]; -1 where there is none.
    share
        How far towards it, [N] in 0..1: 0 is at the own centre, .5 in the middle. 0 for noise and
        where there is no other cluster.
    typical
        Positions of the tracks nearest to each cluster's centre, nearest first.
    """

    second: np.ndarray
    share: np.ndarray
    typical: list[list[int]]


def unusual(distances: np.ndarray) -> np.ndarray:
    """Return the share of tracks that lie in denser places, [N], of distances to neighbours."""
    if not distances.shape[1]:
        return np.zeros(len(distances))
    sparseness = distances[:, :DENSITY_NEIGHBORS].mean(axis=1)
    return np.searchsorted(np.sort(sparseness), sparseness, side="left") / len(sparseness)


def looked_at(total: int) -> int:
    """Return how many true neighbours of each of so many tracks `faithfulness` looks at."""
    return max(0, min(TRUE_NEIGHBORS, max(1, total // 10), total - 1))


def faithfulness(rows: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the share of each track's true neighbours that are near it on a map, [N].

    Parameters
    ----------
    rows
        The true neighbours, nearest first, [N, k]; the first `looked_at(N)` count.
    coordinates
        The map, [N, 2]. Near are `NEAR` times as many tracks as true neighbours are looked at.
    """
    total = len(coordinates)
    true = rows[:, : looked_at(total)]
    if not true.shape[1]:
        return np.ones(total)
    from scipy.spatial import KDTree

    size = min(NEAR * true.shape[1], total - 1)
    _, found = KDTree(coordinates).query(coordinates, k=size + 1)
    found = np.where(found == np.arange(total)[:, None], -1, found)
    return (true[:, :, None] == found[:, None, :]).any(axis=2).mean(axis=1)


def faithfulness_at(row: int, rows: np.ndarray, coordinates: np.ndarray) -> float:
    """Return the same for one track, of its true neighbours, nearest first, [k]."""
    total = len(coordinates)
    true = rows[: looked_at(total)]
    if not len(true):
        return 1.0
    apart = np.square(coordinates - coordinates[row]).sum(axis=1)
    apart[row] = np.inf
    return float(np.isin(true, least(apart, min(NEAR * len(true), total - 1))).mean())


def least(values: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the least values, the least first; ties in their order."""
    if not count:
        return np.zeros(0, int)
    bound = np.partition(values, count - 1)[count - 1]
    within = np.flatnonzero(values <= bound)
    return within[np.argsort(values[within], kind="stable")][:count]


def along(coordinates: np.ndarray) -> np.ndarray:
    """Return where each place of a map lies on a curve that keeps near places near, [N].

    It is that of Morton (1966): the bits of both coordinates in turn.
    """
    sides = np.maximum(np.ptp(coordinates, axis=0), 1e-12)
    cells = ((coordinates - coordinates.min(axis=0)) / sides * (2**CURVE_BITS - 1)).astype(np.int64)
    bits = np.arange(CURVE_BITS)
    spread = ((cells[..., None] >> bits & 1) << 2 * bits).sum(axis=-1)
    return spread[:, 0] + 2 * spread[:, 1]


def between(points: np.ndarray, clusters: np.ndarray, names: Sequence[int]) -> Between:
    """Compare each track's distance to its cluster's mean with that to the nearest other mean.

    Parameters
    ----------
    points
        [N, L].
    clusters
        [N] int.
    names
        The clusters, noise included.
    """
    from scipy.spatial.distance import cdist

    real = [position for position, name in enumerate(names) if name != NOISE]
    second, share = np.full(len(points), -1), np.zeros(len(points))
    typical: list[list[int]] = [[] for _ in names]
    if not real:
        return Between(second, share, typical)
    members = [np.flatnonzero(clusters == names[position]) for position in real]
    centers = np.stack([points[rows].mean(axis=0) for rows in members])
    distances = cdist(points, centers)
    for number, (position, rows) in enumerate(zip(real, members, strict=True)):
        own = distances[rows, number].copy()
        typical[position] = rows[np.argsort(own, kind="stable")[:TYPICAL]].tolist()
        distances[rows, number] = np.inf
        if len(real) > 1:
            other = distances[rows].min(axis=1)
            second[rows] = np.array(real)[distances[rows].argmin(axis=1)]
            share[rows] = own / np.maximum(own + other, 1e-12)
    return Between(second, share, typical)
