"""Which labels are over-represented in a cluster: languages, genres, artists, keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_TRACKS = 2  # with a label in a cluster


@dataclass(frozen=True)
class Share:
    """A label that a cluster has more of than others.

    Attributes
    ----------
    cluster, column, value
        Where it is, and what it is.
    inside, size
        How many of the cluster's tracks have it, of those that have any label.
    total, count
        The same of all tracks.
    p
        The probability of as many, were the tracks drawn at random (hypergeometric), corrected for
        all clusters and labels that were tried (Holm 1979).
    """

    cluster: int
    column: str
    value: str
    inside: int
    size: int
    total: int
    count: int
    p: float

    @property
    def lift(self) -> float:
        """How many times as frequent it is in the cluster as among all tracks."""
        return (self.inside / self.size) / (self.total / self.count)


def shares(columns: Mapping[str, Sequence[str]], clusters: np.ndarray) -> list[Share]:
    """Return all labels that are in a cluster more often than among all tracks, the surest first.

    Parameters
    ----------
    columns
        Each track's label by the column's name, "" where it has none.
    clusters
        [N] from 0 to K - 1; -1 is none.
    """
    from scipy.stats import hypergeom

    found: list[Share] = []
    tried, chances = 0, list[float]()
    for column, cells in columns.items():
        values, codes = np.unique(np.asarray(cells, str), return_inverse=True)
        known = np.asarray(cells, str) != ""
        count, num_clusters = int(known.sum()), clusters.max(initial=-1) + 1
        total = np.bincount(codes[known], minlength=len(values))
        inside = np.zeros((num_clusters, len(values)), int)
        placed = known & (clusters >= 0)
        np.add.at(inside, (clusters[placed], codes[placed]), 1)
        sizes = inside.sum(axis=1)
        possible = (total >= MIN_TRACKS) & (total < count)
        tried += int(possible.sum()) * num_clusters
        more = possible & (inside >= MIN_TRACKS) & (inside * count > sizes[:, None] * total)
        for k, v in np.argwhere(more).tolist():
            found.append(
                Share(k, column, str(values[v]), int(inside[k, v]), int(sizes[k]),
                      int(total[v]), count, 1.0)
            )  # fmt: skip
        where = np.nonzero(more)
        chances += hypergeom.sf(inside[where] - 1, count, total[where[1]], sizes[where[0]]).tolist()
    order = np.argsort(chances, kind="stable")
    corrected = np.array(chances)[order] * np.maximum(tried - np.arange(len(order)), 1)
    corrected = np.minimum(np.maximum.accumulate(corrected), 1.0)
    return [
        Share(**{**found[i].__dict__, "p": float(p)})
        for i, p in zip(order.tolist(), corrected, strict=True)
    ]
