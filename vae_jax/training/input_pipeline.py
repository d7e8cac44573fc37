"""From records to batches: which tracks, in which order, and where they are placed.

The order is a pure function of (seed, step, batch size), so a resumed run continues exactly, on
any number of devices. Features that fit are kept on the device whole, and a batch is a list of
positions in them; features that do not are read and sent with each dispatch.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vae_jax.parallel import devices, processes
from vae_jax.records.reader import Records

PADDING = -1  # position of an example that is not one; it gets weight 0
DISPATCH_BYTES = 2**28  # sent with one dispatch, at most, if features do not fit the device

Arrays = dict[str, np.ndarray]


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


@dataclass(frozen=True)
class Source:
    """Tracks as arrays that a view understands, in host memory.

    Attributes
    ----------
    records
        Where the stored arrays are read from.
    conditions
        The class of each track, [N] int32, -1 where unknown; None without a condition.
    """

    records: Records
    conditions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.records)

    def load(self, positions: np.ndarray) -> Arrays:
        """Read the arrays of tracks, [n, ...]; frames are padded to the longest track's."""
        most = int(self.records.num_frames.max())
        arrays = {
            name: np.zeros((len(positions), *(size or most for size in spec.shape)), spec.dtype)
            for name, spec in self.records.arrays.items()
        }
        done = 0
        for part in self.records.parts(positions):
            for name, values in self.records.load(part).items():
                rows = arrays[name][done : done + len(part)]
                if isinstance(values, list):
                    for row, frames in zip(rows, values, strict=True):
                        row[: len(frames)] = frames
                else:
                    rows[:] = values
            done += len(part)
        if most:
            arrays["num_frames"] = self.records.num_frames[positions]
        if self.conditions is not None:
            arrays["condition"] = self.conditions[positions]
        return arrays


class Feed:
    """Feeds a jitted program: the resident tracks once, then batches, dispatch by dispatch.

    Attributes
    ----------
    resident
        All tracks' arrays on every device, [N, ...], as the view precomputes them; empty when
        they are streamed.
    """

    def __init__(
        self,
        source: Source,
        mesh: Mesh,
        batch_size: int,
        max_resident: int,
        precompute: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        self._source, self._mesh = source, mesh
        self._batch_size = batch_size
        per_track = source.records.bytes_per_track
        fits = not processes.any_says(per_track * len(source) > max_resident)
        self._max_batches = math.inf if fits else DISPATCH_BYTES // (per_track * batch_size)
        tracks = precompute(source.load(np.arange(len(source)))) if fits else {}
        self.resident = devices.place_whole(mesh, tracks)

    def place(self, batches: np.ndarray) -> dict[str, jax.Array]:
        """Place global batches of positions, [M, B], or [M, S, B] for several seeds.

        If tracks are not resident, theirs are placed too: each process reads those of its own part.
        """
        multiple = self._mesh.shape[devices.DATA]
        positions = devices.own_part(self._mesh, pad(batches, multiple))
        placed = {"position": positions}
        if not self.resident:
            tracks = self._source.load(np.maximum(positions, 0).ravel())
            placed |= {
                name: array.reshape(*positions.shape, *array.shape[1:])
                for name, array in tracks.items()
            }
        leading = (None, devices.SEED)[: positions.ndim - 1]
        return devices.place_batches(self._mesh, placed, *leading)

    def dispatches(
        self, shuffles: Sequence[Shuffle], begin: int, end: int, max_steps: int
    ) -> Iterator[tuple[dict[str, jax.Array], int]]:
        """Yield placed batches, [num_steps, S, B], and how many of these steps count."""
        most = int(min(max_steps, max(1, self._max_batches / len(shuffles))))
        for first in range(begin, end, most):
            count = min(most, end - first)
            shape = (most, len(shuffles), self._batch_size)
            batches = np.full(shape, shuffles[0].positions[0], np.int32)
            for i, shuffle in enumerate(shuffles):
                batches[:count, i] = shuffle.batches(first, count)
            yield self.place(batches), count

    def validation(self, positions: np.ndarray) -> dict[str, jax.Array]:
        """Place tracks for evaluation: all of them, or as many as one dispatch may hold."""
        batches = in_batches(positions, self._batch_size)
        return self.place(batches[: int(min(len(batches), max(1, self._max_batches)))])


def pad(batch: np.ndarray, multiple: int) -> np.ndarray:
    """Pad positions, [..., B], with `PADDING` until `multiple` divides the last axis."""
    missing = -batch.shape[-1] % multiple
    widths = [(0, 0)] * (batch.ndim - 1) + [(0, missing)]
    return np.pad(batch, widths, constant_values=PADDING)


def in_batches(positions: np.ndarray, batch_size: int) -> np.ndarray:
    """Cut positions into padded batches in order, [ceil(N / B), B]."""
    return pad(positions, batch_size).reshape(-1, batch_size)
