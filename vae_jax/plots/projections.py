"""Projects embeddings onto the plane for plots: UMAP, t-SNE or PCA, the same for the same seed."""

import os
import shutil
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import logging

FIT_LIMIT = 50_000  # tracks; above it, UMAP and t-SNE are fitted on a sample
FIT_SAMPLE = 12_000  # tracks; above 10,000 UMAP itself takes 200 epochs, below it 500
NUM_ANCHORS = 5  # fitted neighbours that place each of the remaining tracks
CACHE_BYTES = 2**28  # free on the disk, without which nothing is kept there
MIN_DISTINCT = 4  # distinct points below which there are no neighbourhoods to preserve

TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}


@dataclass(frozen=True)
class Projection:
    """A view of an embedding.

    Attributes
    ----------
    method
        The method used: "umap", "tsne" or "pca".
    coordinates
        float32 [N, 2].
    axes
        Names of the two coordinates; those of PCA carry their share of the variance.
    """

    method: str
    coordinates: np.ndarray
    axes: tuple[str, str]

    @property
    def title(self) -> str:
        """The method's name as papers write it."""
        return TITLES[self.method]


def project(
    latents: np.ndarray,
    method: str,
    seed: int,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    perplexity: float = 30.0,
    before: np.ndarray | None = None,
) -> Projection:
    """Project an embedding onto the plane.

    UMAP (McInnes, Healy and Melville 2018) and t-SNE (van der Maaten and Hinton 2008) of more
    than `FIT_LIMIT` tracks are fitted on a sample of `FIT_SAMPLE`; the other tracks are placed
    among their nearest fitted ones. With fewer than `MIN_DISTINCT` distinct tracks the result is
    their PCA, which is logged.

    Parameters
    ----------
    latents
        Finite numbers [N, L].
    method
        "umap", "tsne" or "pca".
    seed
        The seed of the sample and of the method's own choices.
    n_neighbors, min_dist
        UMAP's settings; the neighbours are limited to N - 1.
    perplexity
        t-SNE's setting, limited to (N - 1) / 3: its neighbourhoods hold three times as many tracks.
    before
        Where tracks were on an earlier map, [N, 2], NaN for new ones. UMAP and t-SNE start from
        there, new tracks between their nearest old ones. The map is then turned, mirrored and moved
        to lie on the earlier one as well as it can (Procrustes).
    """
    latents = np.asarray(latents, np.float32)
    if method != "pca" and _num_distinct(latents, MIN_DISTINCT) < MIN_DISTINCT:
        logging.info(
            "%s needs %d distinct tracks or more: plotting a PCA of these %d instead.",
            *(TITLES[method], MIN_DISTINCT, len(latents)),
        )
        method = "pca"
    if method == "pca":
        return _pca(latents, seed)
    start = None if before is None else _start(latents, before)

    def fit(rows: np.ndarray | slice) -> np.ndarray:
        points, init = latents[rows], None if start is None else start[rows]
        if method == "umap":
            return _umap(points, seed, n_neighbors, min_dist, init)
        return _tsne(points, seed, perplexity, init)

    if len(latents) > FIT_LIMIT:
        rows = np.random.default_rng(seed).choice(len(latents), FIT_SAMPLE, replace=False)
        coordinates = place(latents, latents[rows], fit(rows))
    else:
        coordinates = fit(slice(None))
    if before is not None and start is not None:
        coordinates = _laid_on(before, coordinates)
    name = TITLES[method]
    return Projection(method, coordinates, (f"{name} 1", f"{name} 2"))


def place(latents: np.ndarray, fitted: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Place every track at the inverse-distance weighted mean of its nearest fitted tracks.

    This is how UMAP initialises the transform of new points, without the optimisation that
    follows there: UMAP's own transform took 55 s for 20,000 tracks, this 5 s for 100,000.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NUM_ANCHORS, algorithm="brute").fit(fitted)
    distances, neighbors = index.kneighbors(latents)
    weights = 1.0 / np.maximum(distances, 1e-6)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkd->nd", weights, coordinates[neighbors]).astype(np.float32)


def _start(latents: np.ndarray, before: np.ndarray) -> np.ndarray | None:
    """Return where each track starts, [N, 2]; None if too few were on the earlier map."""
    known = np.isfinite(before).all(axis=1)
    if np.count_nonzero(known) < NUM_ANCHORS or not np.ptp(before[known], axis=0).all():
        return None
    start = before.astype(np.float32)
    if not known.all():
        start[~known] = place(latents[~known], latents[known], start[known])
    return start


def _laid_on(before: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Turn, mirror and move a map, [N, 2], so that known tracks are near their earlier places.

    Gower (1975); the size is kept.
    """
    known = np.isfinite(before).all(axis=1)
    then, now = before[known], coordinates[known]
    left, _, right = np.linalg.svd((now - now.mean(axis=0)).T @ (then - then.mean(axis=0)))
    turned = (coordinates - now.mean(axis=0)) @ (left @ right) + then.mean(axis=0)
    return turned.astype(np.float32)


def _num_distinct(latents: np.ndarray, enough: int) -> int:
    """Count the distinct rows of `latents`, up to `enough`."""
    count = 0
    while len(latents) and count < enough:
        latents = latents[(latents != latents[0]).any(axis=1)]
        count += 1
    return count


def _pca(latents: np.ndarray, seed: int) -> Projection:
    from sklearn.decomposition import PCA

    coordinates = np.zeros((len(latents), 2), np.float32)
    shares = np.zeros(2)
    if (latents != latents[:1]).any():  # else there is no variance to divide by
        pca = PCA(min(2, *latents.shape), random_state=seed)
        scores = pca.fit_transform(latents)
        coordinates[:, : scores.shape[1]] = scores
        shares[: scores.shape[1]] = pca.explained_variance_ratio_
    axes = tuple(f"PC {i} ({share:.0%} of variance)" for i, share in enumerate(shares, 1))
    return Projection("pca", coordinates, (axes[0], axes[1]))


def _umap(
    points: np.ndarray, seed: int, n_neighbors: int, min_dist: float, start: np.ndarray | None
) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    n_neighbors = min(n_neighbors, len(points) - 1)
    # Exact neighbours do not depend on threads, and spare the compilation of UMAP's approximate
    # search: 5,000 tracks took 5 s in all, against 33.
    distances, neighbors = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(points)
    with warnings.catch_warnings():
        # UMAP warns that there is no TensorFlow, that there is no index for new points, and which
        # initialisation it took. A user can act on none of these.
        warnings.simplefilter("ignore")
        from umap import UMAP

        _keep_compiled()
        reducer = UMAP(
            n_neighbors=n_neighbors,
            min_dist=min_dist,
            precomputed_knn=(neighbors, distances.astype(np.float32), None),
            init="spectral" if start is None else start,
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(reducer.fit_transform(points), np.float32)


def _keep_compiled() -> None:
    """Let Numba keep what it compiles for UMAP, which takes it several seconds.

    UMAP does not ask for that itself. `parallel.programs` says where it is kept.
    """
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_

    folder = os.environ.get("NUMBA_CACHE_DIR", "")
    if not folder or shutil.disk_usage(folder).free < CACHE_BYTES:
        return
    for module in (layouts, umap_):
        for function in vars(module).values():
            if isinstance(function, Dispatcher):
                function.enable_caching()


def _tsne(points: np.ndarray, seed: int, perplexity: float, start: np.ndarray | None) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(perplexity, (len(points) - 1) / 3)
    if points.shape[1] == 1:  # it begins with two principal components
        points = np.pad(points, [(0, 0), (0, 1)])
    settings: dict[str, Any] = {"init": "pca"}
    if start is not None:  # small, as t-SNE begins, and without what lets groups change places
        settings = {"init": 1e-4 * start / start[:, 0].std(), "early_exaggeration": 1.0}
    with threadpool_limits(1):  # sums over threads would differ from run to run
        return TSNE(perplexity=perplexity, random_state=seed, **settings).fit_transform(points)
