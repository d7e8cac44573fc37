"""One stored array as a model sees it: standardised vectors, or segments cut from frames.

Letters: n tracks, T frames, F bands, D columns, S segments.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.records.statistics import Statistics

Tracks = dict[str, jax.Array]  # stored arrays by name, [n, ...]; frames are padded to one length


@dataclass(frozen=True)
class ArrayView:
    """How one stored array is seen.

    Attributes
    ----------
    mean, scale
        Subtracted, and multiplied with, per column; float32.
    segment_frames
        T, the length of the segments that are cut from stored frames; None for vectors.
    """

    mean: np.ndarray
    scale: np.ndarray
    segment_frames: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what a model sees of one track: (D,) or (T, F)."""
        size = len(self.mean)
        return (size,) if self.segment_frames is None else (self.segment_frames, size)

    def standardise(self, x: jax.Array) -> jax.Array:
        """Scale [..., D] to mean 0 and standard deviation 1 where it was measured."""
        return (x.astype(jnp.float32) - self.mean) * self.scale

    def sample(self, x: jax.Array, num_frames: Any, key: jax.Array) -> jax.Array:
        """Return vectors as they are, or one random segment of each track's frames.

        A track that is shorter than a segment is repeated to fill it.
        """
        if self.segment_frames is None:
            return self.standardise(x)
        last = jnp.maximum(num_frames - self.segment_frames, 0)
        start = jax.random.randint(key, num_frames.shape, 0, last + 1)
        return self.standardise(cut_frames(x, num_frames, start, self.segment_frames))

    def whole(self, x: jax.Array, num_frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return all segments, side by side, [n, S, T, F], and which there are, [n, S]."""
        size, most = self.segment_frames or 1, x.shape[1]
        count = jnp.maximum(num_frames // size, 1)
        starts = jnp.arange(max(most // size, 1)) * size
        at = jnp.broadcast_to(starts[:, None], (len(starts), len(x)))
        segments = jax.vmap(lambda start: cut_frames(x, num_frames, start, size), out_axes=1)(at)
        mask = (jnp.arange(len(starts)) < count[:, None]).astype(jnp.float32)
        return self.standardise(segments), mask


def scaling(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the inverse standard deviation of each column, [D] float32."""
    return statistics.mean.astype(np.float32), (1 / statistics.std).astype(np.float32)


def cut_frames(x: jax.Array, num_frames: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """Cut [n, size, F] from frames [n, T, F] at `start` [n], repeating what is too short."""

    def one(frames: jax.Array, count: jax.Array, first: jax.Array) -> jax.Array:
        return frames[(first + jnp.arange(size)) % jnp.maximum(count, 1)]

    return jax.vmap(one)(x, num_frames, start)
