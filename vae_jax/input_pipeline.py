"""Turns records into batches: which tracks, in which order, placed where.

The order is a pure function of (seed, step, batch size), so a resumed run continues exactly, on
any number of devices and processes.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from vae_jax.records import Statistics

PADDING = -1  # index of an example that is not one; it gets weight 0


def split(
    ids: Sequence[str] | np.ndarray, validation_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Split tracks into training and validation positions, each sorted, int32.

    Tracks are ranked by a hash of their id, so the split depends on neither their order nor
    their labels, and adding tracks moves few of the others. At least one track is held out when
    there are at least five and the fraction is not zero.
    """
    held_out = round(len(ids) * validation_fraction)
    if validation_fraction and len(ids) >= 5:
        held_out = max(1, held_out)
    rank = sorted(range(len(ids)), key=lambda i: hashlib.sha256(str(ids[i]).encode()).digest())
    validation = np.sort(np.array(rank[:held_out], np.int32))
    return np.sort(np.array(rank[held_out:], np.int32)), validation


class Shuffle:
    """An endless stream of batches of positions, each epoch a new permutation."""

    def __init__(self, positions: np.ndarray, batch_size: int, seed: int) -> None:
        self.positions, self.batch_size, self.seed = positions, batch_size, seed
        self._epoch, self._order = -1, positions

    def batches(self, step: int, num_steps: int) -> np.ndarray:
        """Return the batches of steps `step` to `step + num_steps`, [num_steps, B], int32."""
        size = len(self.positions)
        start, stop = step * self.batch_size, (step + num_steps) * self.batch_size
        out = np.empty(stop - start, np.int32)
        while start < stop:
            epoch, first = divmod(start, size)
            taken = min(size - first, stop - start)
            filled = len(out) - (stop - start)
            out[filled : filled + taken] = self._permutation(epoch)[first : first + taken]
            start += taken
        return out.reshape(num_steps, self.batch_size)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._epoch, self._order = epoch, generator.permutation(self.positions)
        return self._order


def standardise(features: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Scale features, [..., D], to mean 0 and standard deviation 1 where they were measured."""
    return ((features - statistics.mean) / statistics.std).astype(np.float32)


def pad(batch: np.ndarray, multiple: int) -> np.ndarray:
    """Pad positions, [..., B], with `PADDING` until `multiple` divides the last axis."""
    missing = -batch.shape[-1] % multiple
    widths = [(0, 0)] * (batch.ndim - 1) + [(0, missing)]
    return np.pad(batch, widths, constant_values=PADDING)


def in_batches(positions: np.ndarray, batch_size: int) -> np.ndarray:
    """Cut positions into padded batches in order, [ceil(N / B), B]."""
    return pad(positions, batch_size).reshape(-1, batch_size)
