"""Groups tracks by their latents: one table of clusterers, one result type.

`cluster` is called by the cluster stage for the VAE and every baseline alike. A new clusterer is
one function and one entry in `CLUSTERERS` (and its name in `config.CLUSTERERS`).
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vae_jax.config import AUTO
from vae_jax.embedding.latents import Latents
from vae_jax.errors import UserError

NOISE = -1
RESTART_SAMPLE = 100_000  # tracks on which k-means tries its restarts; the best is run on all

DBSCAN_BYTES = 26  # of memory per pair of neighbours, measured
DBSCAN_LIMIT = 4 * 2**30  # bytes


@dataclass(frozen=True)
class Clustering:
    """Which cluster each track belongs to.

    Attributes
    ----------
    labels
        [N] int32; 0 is the largest cluster, K - 1 the smallest, -1 noise (no cluster).
    centers
        [K, L]; fitted by k-means and the Gaussian mixture, else the mean of the members.
    confidence
        [N] posterior probability of the chosen cluster; only a Gaussian mixture has it.
    eps
        The neighbourhood radius that DBSCAN used, in units of the latents.
    """

    labels: np.ndarray
    centers: np.ndarray
    confidence: np.ndarray | None = None
    eps: float | None = None

    @property
    def num_clusters(self) -> int:
        """K, the number of clusters found; noise is not one."""
        return len(self.centers)

    @property
    def coverage(self) -> float:
        """The fraction of tracks that are in a cluster."""
        return float(np.mean(self.labels != NOISE))

    def part(self, rows: slice) -> "Clustering":
        """Return the same clusters of some of the tracks."""
        confidence = None if self.confidence is None else self.confidence[rows]
        return replace(self, labels=self.labels[rows], confidence=confidence)

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return each track's Euclidean distance [N] to its own centre; NaN for noise."""
        distances = np.full(len(points), np.nan)
        members = self.labels != NOISE
        offsets = points[members] - self.centers[self.labels[members]]
        distances[members] = np.linalg.norm(offsets, axis=1)
        return distances


@dataclass(frozen=True)
class Clusterer:
    """An entry of `CLUSTERERS`.

    Attributes
    ----------
    fit
        (points [N, L], config.cluster, seed) -> Clustering with labels in any order.
    seeded
        Whether the result depends on the seed.
    takes_k
        Whether the number of clusters is given; else the clusterer finds it.
    limit
        The largest N, or None.
    cost
        What stands behind the limit.
    """

    fit: Callable[[np.ndarray, ConfigDict, int], Clustering]
    seeded: bool
    takes_k: bool
    limit: int | None = None
    cost: str = ""


def check_size(options: ConfigDict, n: int) -> None:
    """Refuse fewer tracks than clusters, or more than a method can cluster in bearable time."""
    clusterer = CLUSTERERS[options.method]
    if clusterer.limit is not None and n > clusterer.limit:
        raise UserError(
            f"config.cluster.method={options.method} is limited to {clusterer.limit:,} tracks "
            f"({clusterer.cost}), but there are {n:,}: use kmeans or gmm."
        )
    if clusterer.takes_k and options.num_clusters != AUTO and options.num_clusters > n:
        raise UserError(
            f"config.cluster.num_clusters is {options.num_clusters}, more than the number of "
            f"tracks ({n}): ask for fewer clusters, or add tracks."
        )


def cluster(
    points: np.ndarray, options: ConfigDict, seed: int, centers: np.ndarray | None = None
) -> Clustering:
    """Cluster tracks.

    Parameters
    ----------
    points
        [N, L] finite latents.
    options
        `config.cluster`; `options.method` names the clusterer. If that takes a number of
        clusters, `options.num_clusters` is a number, perhaps 1, and not "auto".
    seed
        The seed of the clusterer's random starts.
    centers
        Where k-means starts instead, [K, L]; other clusterers have no use for it.

    Raises
    ------
    UserError
        If there are more tracks than the method can hold in memory (nothing is allocated before
        that is known), or fewer than clusters.
    """
    clusterer = CLUSTERERS[options.method]
    n = len(points)
    check_size(options, n)
    if clusterer.takes_k and options.num_clusters == 1:  # no structure was found
        return Clustering(np.zeros(n, np.int32), points.mean(axis=0, keepdims=True))
    distinct = _count_distinct(points, enough=options.num_clusters if clusterer.takes_k else 2)
    if distinct == 1:
        logging.warning("%d of %d tracks have the same latents: they are one cluster.", n, n)
        return Clustering(np.zeros(n, np.int32), points[:1].astype(np.float64))
    if clusterer.takes_k and distinct < options.num_clusters:
        logging.warning("only %d tracks differ: there are that many clusters.", distinct)
        options = ConfigDict({**options, "num_clusters": distinct})
    if (
        options.method != "kmeans"
        or len(() if centers is None else centers) != options.num_clusters
    ):
        centers = None
    if centers is not None:
        return _largest_first(_lloyd(points, centers))
    with _warnings_to_log(options.method):
        return _largest_first(clusterer.fit(points, options, seed))


def components(latents: Latents, num_clusters: int | None) -> Clustering:
    """Return the clusters that the model's own mixture has found.

    A track is in its most likely component. If there are more of these than `num_clusters`, they
    are merged by Ward's method (1963), whose criterion is that of k-means: each step merges the
    two that least increase the squared distances of tracks from their centres.
    """
    number = next(latents.assignments()).shape[1]
    labels = np.concatenate([part.argmax(axis=1) for part in latents.assignments()])
    sizes, sums = np.bincount(labels, minlength=number), np.zeros((number, latents.dim))
    for start, chunk in latents.spans():
        np.add.at(sums, labels[start : start + len(chunk)], chunk)
    centers = sums / np.maximum(sizes, 1)[:, None]
    merged = _merge(centers, sizes, num_clusters or number)
    membership = np.equal.outer(merged, merged)  # [K, K]: whether in the same cluster
    confidence = [
        np.einsum("nk,nk->n", part, membership[part.argmax(axis=1)])
        for part in latents.assignments()
    ]
    shares = membership * sizes
    centers = shares @ centers / np.maximum(shares.sum(axis=1), 1)[:, None]
    return _largest_first(
        Clustering(merged[labels], centers, confidence=np.concatenate(confidence))
    )


def _merge(centers: np.ndarray, sizes: np.ndarray, num_clusters: int) -> np.ndarray:
    """Return which cluster each of K is merged into, [K], so that `num_clusters` are left."""
    from sklearn.metrics import euclidean_distances

    merged = np.arange(len(sizes))
    centers, sizes = centers.copy(), sizes.astype(np.float64)
    while np.count_nonzero(sizes) > num_clusters:
        nonempty = np.flatnonzero(sizes)
        pairs = sizes[nonempty, None] * sizes[nonempty]
        pairs /= sizes[nonempty, None] + sizes[nonempty]
        cost = pairs * euclidean_distances(centers[nonempty], squared=True)
        np.fill_diagonal(cost, np.inf)
        kept, gone = nonempty[list(np.unravel_index(cost.argmin(), cost.shape))]
        centers[kept] = np.average(centers[[kept, gone]], axis=0, weights=sizes[[kept, gone]])
        sizes[kept], sizes[gone] = sizes[kept] + sizes[gone], 0
        merged[merged == gone] = kept
    return merged


def cluster_shards(
    latents: Latents, options: ConfigDict, seed: int, centers: np.ndarray | None = None
) -> Clustering:
    """Cluster an embedding in shards by k-means, with one of them in memory.

    The k-means of a sample, from given centres [K, L] if there are any, is the start; mini-batch
    k-means (Sculley 2010) then sees every shard once. If the sample has all tracks, the result is
    that of `cluster`.
    """
    from sklearn.cluster import MiniBatchKMeans

    positions, sample = latents.held(RESTART_SAMPLE, seed)
    start = cluster(sample, options, seed, centers)
    if len(positions) == len(latents):
        return start
    model = MiniBatchKMeans(
        start.num_clusters, init=start.centers, n_init=1, reassignment_ratio=0, random_state=seed
    )
    model.partial_fit(sample.astype(np.float64))  # gives the start its weight
    for chunk in latents.chunks():
        model.partial_fit(chunk.astype(np.float64))
    labels = [model.predict(chunk.astype(np.float64)) for chunk in latents.chunks()]
    return _largest_first(Clustering(np.concatenate(labels), model.cluster_centers_))


def knee_eps(points: np.ndarray, min_samples: int) -> float:
    """Choose DBSCAN's eps: the knee of the sorted distances to the `min_samples`-th neighbour.

    The curve is that of Ester et al. 1996 (section 4.2); its knee is the point farthest below
    the chord between its ends (Satopää et al. 2011). A point counts as its own neighbour, as in
    DBSCAN.
    """
    from sklearn.neighbors import NearestNeighbors

    neighbors = NearestNeighbors(n_neighbors=min(min_samples, len(points))).fit(points)
    distances = np.sort(neighbors.kneighbors(points)[0][:, -1])
    chord = np.linspace(distances[0], distances[-1], len(distances))
    knee = distances[np.argmax(chord - distances)]
    # The knee is 0 if most tracks coincide, but DBSCAN needs a positive radius.
    return float(max(knee, 1e-6 * distances[-1], np.finfo(np.float32).tiny))


def _kmeans(points: np.ndarray, options: ConfigDict, seed: int) -> Clustering:
    """Lloyd's k-means from the best of `n_init` k-means++ starts."""
    from sklearn.cluster import KMeans

    k = options.num_clusters
    start = KMeans(k, n_init=options.n_init, random_state=seed, algorithm="lloyd")
    if len(points) <= RESTART_SAMPLE:
        model = start.fit(points)
    else:  # 3x faster at a million tracks, with an inertia equal to six digits
        rng = np.random.default_rng(seed)
        sample = points[rng.choice(len(points), RESTART_SAMPLE, replace=False)]
        return _lloyd(points, start.fit(sample).cluster_centers_)
    return Clustering(model.labels_, model.cluster_centers_)


def _lloyd(points: np.ndarray, centers: np.ndarray) -> Clustering:
    """k-means from given centres, [K, L]."""
    from sklearn.cluster import KMeans

    model = KMeans(len(centers), init=centers.astype(points.dtype), n_init=1).fit(points)
    return Clustering(model.labels_, model.cluster_centers_)


def _agglomerative(points: np.ndarray, options: ConfigDict, seed: int) -> Clustering:
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(options.num_clusters, linkage=options.linkage)
    labels = model.fit_predict(points)
    return Clustering(labels, _means(points, labels))


def _dbscan(points: np.ndarray, options: ConfigDict, seed: int) -> Clustering:
    from sklearn.cluster import DBSCAN

    eps = options.eps
    if eps is None:
        eps = knee_eps(points, options.min_samples)
        logging.info("dbscan: eps %.4g, from the knee of the k-distances.", eps)
    _check_neighbors(points, eps)
    labels = DBSCAN(eps=eps, min_samples=options.min_samples).fit_predict(points)
    return Clustering(labels, _means(points, labels), eps=eps)


def _hdbscan(points: np.ndarray, options: ConfigDict, seed: int) -> Clustering:
    from sklearn.cluster import HDBSCAN

    size = max(2, options.min_samples)  # a cluster has at least two tracks
    model = HDBSCAN(min_cluster_size=size, min_samples=min(size, len(points)), copy=True)
    labels = model.fit_predict(points)
    return Clustering(labels, _means(points, labels))


def _gmm(points: np.ndarray, options: ConfigDict, seed: int) -> Clustering:
    """Gaussian mixture with diagonal covariances: full ones need more tracks than most have."""
    from sklearn.mixture import GaussianMixture

    points = points.astype(np.float64)
    model = GaussianMixture(
        options.num_clusters,
        covariance_type="diag",
        # It grows with the latents' scale, so that no component collapses onto one track.
        reg_covar=1e-3 * float(points.var(axis=0).mean()),
        n_init=options.n_init,
        max_iter=500,
        random_state=seed,
    ).fit(points)
    probability = model.predict_proba(points)
    labels = probability.argmax(axis=1)
    return Clustering(labels, model.means_, confidence=probability.max(axis=1))


def _spectral(points: np.ndarray, options: ConfigDict, seed: int) -> Clustering:
    """Spectral clustering of the nearest-neighbour graph, which needs no length scale."""
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import kneighbors_graph

    if options.num_clusters == len(points):  # the eigensolver needs K < N
        return Clustering(np.arange(len(points)), points)
    graph = kneighbors_graph(points, min(10, len(points)), include_self=True)
    model = SpectralClustering(
        options.num_clusters, affinity="precomputed", n_init=options.n_init, random_state=seed
    )
    labels = model.fit_predict((graph + graph.T) / 2)
    return Clustering(labels, _means(points, labels))


CLUSTERERS = {
    "kmeans": Clusterer(_kmeans, seeded=True, takes_k=True),
    "agglomerative": Clusterer(
        _agglomerative, seeded=False, takes_k=True, limit=20_000, cost="it takes 7.8 n^2 bytes"
    ),
    "dbscan": Clusterer(
        _dbscan, seeded=False, takes_k=False, limit=100_000, cost="its time grows with n^2"
    ),
    "hdbscan": Clusterer(
        _hdbscan, seeded=False, takes_k=False, limit=100_000, cost="its time grows with n^2"
    ),
    "gmm": Clusterer(_gmm, seeded=True, takes_k=True),
    "spectral": Clusterer(
        _spectral, seeded=True, takes_k=True, limit=20_000, cost="its time grows with n^2"
    ),
}


def _count_distinct(points: np.ndarray, enough: int) -> int:
    """Count the different rows, but no further than `enough`."""
    for rows in (points[: 100 * enough], points):  # the first rows nearly always hold enough
        count = len(np.unique(rows, axis=0))
        if count >= enough:
            return enough
    return count


def _check_neighbors(points: np.ndarray, eps: float) -> None:
    """Refuse a radius whose lists of neighbours, counted on a few tracks, would fill the memory."""
    from sklearn.metrics import euclidean_distances

    few = points[:: max(1, len(points) // 200)]
    neighbors = float(np.mean(euclidean_distances(few, points) <= eps)) * len(points)
    size = DBSCAN_BYTES * neighbors * len(points)
    if size > DBSCAN_LIMIT:
        raise UserError(
            f"config.cluster.method=dbscan with eps {eps:.4g} would take {size / 2**30:.0f} GiB "
            f"of memory ({neighbors:.0f} neighbours per track): set a smaller config.cluster.eps."
        )


def _means(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    means = [points[labels == c].mean(axis=0) for c in range(labels.max() + 1)]
    return np.array(means, dtype=np.float64).reshape(-1, points.shape[1])


def _largest_first(clustering: Clustering) -> Clustering:
    """Renumber by size, then by first member; clusters without members are dropped."""
    members = clustering.labels[clustering.labels != NOISE]
    found, first, sizes = np.unique(members, return_index=True, return_counts=True)
    order = found[np.lexsort((first, -sizes))]
    number = np.full(len(clustering.centers) + 1, NOISE, np.int32)  # noise indexes the last entry
    number[order] = np.arange(len(order))
    return replace(clustering, labels=number[clustering.labels], centers=clustering.centers[order])


@contextlib.contextmanager
def _warnings_to_log(what: str) -> Iterator[None]:
    """Log each warning of a library once, as one line, without file names."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught):
        logging.warning("%s: %s", what, message)
