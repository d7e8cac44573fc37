"""The linear peer of the track VAE, in closed form: probabilistic LDA, whose classes are tracks.

A segment's description is m + y + e: y ~ N(0, B) is its track's, e ~ N(0, W) its own (PLDA, Ioffe
2006; with full covariances the two-covariance model of Brümmer and de Villiers 2010). No label is
seen: what tracks share is told from what changes within them. A track's latent is the mean of y
given its segments, along the axes on which tracks differ most in units of what changes within them
(as WCCN does, Hatch et al. 2006).

Both covariances come from sums over tracks, in one pass.

Letters: n tracks, S segments, T frames, F bands, D size of a description, L latent dimensions.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np

from vae_jax.embedding.baselines import Projection, Scale
from vae_jax.records.reader import Records
from vae_jax.training.track_view import describe

BLOCK = 64  # segments described at a time

_describe_block = jax.jit(describe)


@dataclass(frozen=True)
class Segments:
    """What is kept of the descriptions of n tracks' segments.

    Attributes
    ----------
    means
        Each track's mean description, [n, D].
    counts
        Its number of segments, [n].
    scatter
        The sum over all segments of the squared deviation from their track's mean, [D, D].
    """

    means: np.ndarray
    counts: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, descriptions: np.ndarray, counts: np.ndarray) -> "Segments":
        """Summarise descriptions, [S, D]; `counts`, [n], says how many each track has in turn."""
        means = np.add.reduceat(descriptions, np.cumsum(counts) - counts) / counts[:, None]
        deviations = descriptions - np.repeat(means, counts, axis=0)
        return cls(means, counts, deviations.T @ deviations)

    def join(self, other: "Segments") -> "Segments":
        """Return what is kept of both."""
        means = np.concatenate([self.means, other.means])
        counts = np.concatenate([self.counts, other.counts])
        return Segments(means, counts, self.scatter + other.scatter)


def summarise(
    records: Records, positions: np.ndarray, segment_frames: int, known: Scale
) -> Segments:
    """Describe the segments of n tracks that are stored as frames, or as vectors of segments.

    A track is cut into segments of so many frames; one that is shorter is repeated to fill one.
    `known` is what the stored features are standardised by.
    """
    parts = []
    size = records.arrays["features"].segment_rows(segment_frames)
    mean, scale = known.mean.astype(np.float32), (1 / known.std).astype(np.float32)
    for part in records.parts(positions):
        tracks = [_cut(frames, size) for frames in records.load(part)["features"]]
        segments = (np.concatenate(tracks).astype(np.float32) - mean) * scale
        parts.append(Segments.of(_describe(segments), np.array([*map(len, tracks)])))
    return functools.reduce(Segments.join, parts)


def fit(parts: Iterable[Segments], size: int) -> Projection:
    """Return the projection to the `size` latent dimensions on which tracks differ most.

    `parts` are all tracks, of which only sums are held. W is shrunk to a multiple of the identity,
    in units of each dimension's deviation (OAS, Chen et al. 2010, equation 23).
    """
    tracks, segments, inverse = 0, 0, 0.0
    total, products, scatter = np.zeros(()), np.zeros(()), np.zeros(())
    for part in parts:
        tracks, segments = tracks + len(part.counts), segments + int(part.counts.sum())
        inverse += float((1 / part.counts).sum())
        total, products = total + part.means.sum(axis=0), products + part.means.T @ part.means
        scatter = scatter + part.scatter
    mean, freedom = total / tracks, segments - tracks
    of_means = (products - tracks * np.outer(mean, mean)) / max(tracks - 1, 1)
    within = scatter / max(freedom, 1)
    variance = np.diag(within) + np.diag(of_means)
    scale = np.sqrt(np.where(variance > 1e-12, variance, 1.0))
    values, vectors = np.linalg.eigh(_shrunk(within / np.outer(scale, scale), freedom))
    whitening = vectors / np.sqrt(values) / scale[:, None]
    # The tracks' means vary by B + W / S, with the harmonic mean of their numbers of segments.
    values, axes = np.linalg.eigh(whitening.T @ of_means @ whitening)
    between = np.maximum(values - inverse / tracks, 0.0)
    return Projection(mean, (whitening @ axes).T[::-1][:size], between[::-1][:size])


def _shrunk(covariance: np.ndarray, freedom: int) -> np.ndarray:
    """Shrink a covariance, so that it is positive definite.

    It is the identity if nothing varies, as within tracks of one segment.
    """
    size = len(covariance)
    level, square = np.trace(covariance) / size, np.square(covariance).mean()
    if level <= 0:
        return np.eye(size)
    spread = (freedom + 1) * (square - level**2 / size)
    shrinkage = min(1.0, (square + level**2) / spread) if spread > 0 else 1.0
    return (1 - shrinkage) * covariance + shrinkage * level * np.eye(size)


def _cut(frames: np.ndarray, size: int) -> np.ndarray:
    """Cut a track's frames, [T, F], into segments, [S, size, F]."""
    number = max(len(frames) // size, 1)
    return np.resize(frames, (number, size, frames.shape[1]))


def _describe(segments: np.ndarray) -> np.ndarray:
    """Return the descriptions of standardised segments, [S, D] float64, block by block."""
    parts = []
    for start in range(0, len(segments), BLOCK):
        block = segments[start : start + BLOCK]
        padded = np.resize(block, (BLOCK, *block.shape[1:]))  # one shape is compiled
        parts.append(np.asarray(_describe_block(padded))[: len(block)])
    return np.concatenate(parts, dtype=np.float64)
