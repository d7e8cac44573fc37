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
        What is subtracted from each column, and then multiplied with; float32.
    segment_frames
        T, the length of the segments that are cut from stored frames; None for vectors.
    window
        Frames of each of a track's windows, in which segments lie; None if there is one window.
    is_pooled
        Whether the stored vectors of a track's segments are seen as one, their mean.
    """

    mean: np.ndarray
    scale: np.ndarray
    segment_frames: int | None
    window: int | None = None
    is_pooled: bool = False

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
            return self.vectors(x, num_frames)
        start = self.starts(num_frames, key)
        return self.standardise(cut_frames(x, num_frames, start, self.segment_frames))

    def starts(self, num_frames: jax.Array, key: jax.Array) -> jax.Array:
        """Return where the segments begin that `sample` takes of tracks, [n]."""
        length, windows = self.windows(num_frames)
        starts = jnp.maximum(length - (self.segment_frames or 1), 0) + 1  # in each window
        chosen = jax.random.randint(key, num_frames.shape, 0, windows * starts)
        return chosen // starts * length + chosen % starts

    def vectors(self, x: jax.Array, num_frames: Any) -> jax.Array:
        """Return each track's vector, [n, D], standardised."""
        if self.is_pooled:
            counts = (jnp.arange(x.shape[1]) < num_frames[:, None])[..., None]
            x = jnp.sum(x, axis=1, where=counts) / jnp.maximum(num_frames, 1)[:, None]
        return self.standardise(x)

    def whole(self, x: jax.Array, num_frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return all segments, side by side, [n, S, T, F], and which of them exist, [n, S]."""
        most, phase = self.most(x.shape[1]), jnp.zeros_like(num_frames)
        number = jnp.broadcast_to(jnp.arange(most), (len(x), most))
        mask = number < self.count(num_frames, phase)[:, None]
        return self.segments(x, num_frames, phase, number), mask.astype(jnp.float32)

    def segments(
        self, x: jax.Array, num_frames: jax.Array, phase: jax.Array, number: jax.Array
    ) -> jax.Array:
        """Cut segments of the given numbers, [n, S], side by side from `phase` on, [n], on.

        Returns them standardised, [n, S, T, F]. None straddles two windows.
        """
        size = self.segment_frames or 1
        length, _ = self.windows(num_frames)
        each = jnp.maximum((length - phase) // size, 1)[:, None]  # segments of each window
        starts = number // each * length[:, None] + phase[:, None] + number % each * size
        cut = jax.vmap(lambda at: cut_frames(x, num_frames, at, size), in_axes=1, out_axes=1)
        return self.standardise(cut(starts))

    def count(self, num_frames: jax.Array, phase: jax.Array) -> jax.Array:
        """Return how many segments tracks have, side by side from `phase` on, [n]; at least 1."""
        length, windows = self.windows(num_frames)
        return windows * jnp.maximum((length - phase) // (self.segment_frames or 1), 1)

    def most(self, num_frames: int) -> int:
        """Return how many segments a track of so many frames has."""
        size, length = self.segment_frames or 1, min(self.window or num_frames, num_frames)
        return max(num_frames // max(length, 1), 1) * max(length // size, 1)

    def windows(self, num_frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the frames of each of a track's windows, and how many windows there are, [n]."""
        length = num_frames if self.window is None else jnp.minimum(num_frames, self.window)
        return length, jnp.maximum(num_frames // jnp.maximum(length, 1), 1)


def scaling(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the inverse standard deviation of each column, [D] float32."""
    return statistics.mean.astype(np.float32), (1 / statistics.std).astype(np.float32)


def cut_frames(x: jax.Array, num_frames: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """Cut [n, size, F] from frames [n, T, F] at `start` [n], repeating what is too short."""

    def one(frames: jax.Array, count: jax.Array, first: jax.Array) -> jax.Array:
        return frames[(first + jnp.arange(size)) % jnp.maximum(count, 1)]

    return jax.vmap(one)(x, num_frames, start)
