"""From records to batches: which tracks, in which order, and where they are placed.

The order is a pure function of (seed, step, batch size), so a resumed run continues exactly, on
any number of devices. Features that fit are kept on the device whole, and a batch is a list of
positions in them. Features that do not are read and sent with each dispatch, while the devices work
on the one before; where a model sees one segment of a track, that alone is read.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vae_jax.parallel import devices, processes
from vae_jax.records.reader import Records
from vae_jax.records.slices import Slices

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

    @cached_property
    def slices(self) -> Slices:
        """Where segments of tracks are read from."""
        return Slices(self.records)

    def load_segments(self, positions: np.ndarray, starts: np.ndarray, size: int) -> Arrays:
        """Read one segment of each track, [n, size, ...], as if it were all of the track."""
        arrays = self.slices.load(positions, starts, size)
        arrays["num_frames"] = np.full(len(positions), size, np.int32)
        if self.conditions is not None:
            arrays["condition"] = self.conditions[positions]
        return arrays


@dataclass(frozen=True)
class Cut:
    """Which segment of each track training sees.

    Attributes
    ----------
    size
        Rows of a segment.
    starts
        From the first step's number, and the numbers of frames of its batch and those of the steps
        after it, [M, S, B] for S seeds, to the first row of each track's segment, [M, S, B].
    """

    size: int
    starts: Callable[[int, np.ndarray], np.ndarray]


class Feed:
    """Feeds a jitted program: the resident tracks once, then batches, dispatch by dispatch.

    Parameters
    ----------
    cut
        Which segments to send of tracks that are not resident; None to send all of each track.

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
        cut: Cut | None = None,
    ) -> None:
        self._source, self._mesh, self._cut = source, mesh, cut
        self._batch_size = batch_size
        size = source.records.bytes_per_track * len(source)
        self._is_streamed = processes.any_says(size > max_resident)
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[tuple[int, int], Future] = {}  # what is being prepared
        tracks = {} if self._is_streamed else precompute(source.load(np.arange(len(source))))
        self.resident = devices.place_whole(mesh, tracks)

    def place(self, batches: np.ndarray) -> dict[str, jax.Array]:
        """Place global batches of positions, [M, B], or [M, S, B] for several seeds.

        If tracks are not resident, theirs are placed too: each process reads those of its own part.
        """
        return self._place(self._padded(batches), self._source.load)

    def dispatches(
        self, shuffles: Sequence[Shuffle], begin: int, end: int, max_steps: int, last: int
    ) -> Iterator[tuple[dict[str, jax.Array], int]]:
        """Yield placed batches, [num_steps, S, B], and how many of these steps count.

        Those that follow, up to the step `last`, are prepared while these are used.
        """
        records, cut = self._source.records, self._cut
        each = records.bytes_of_rows(cut.size) if cut else records.bytes_per_track
        most = int(min(max_steps, max(1, self._max_batches(each) / len(shuffles))))

        def task(step: int, until: int) -> tuple[int, int]:
            return step, min(most, until - step)

        def submit(step: int, count: int) -> Future:
            return self._pool.submit(self._prepare, shuffles, step, count, most)

        while begin < end:
            step, count = task(begin, end)
            wanted = self._ahead.pop((step, count), None) or submit(step, count)
            begin += count
            following = task(begin, end if begin < end else last)
            self._ahead = {following: submit(*following)} if following[1] else {}
            yield wanted.result(), count

    def validation(self, positions: np.ndarray) -> dict[str, jax.Array]:
        """Place tracks for evaluation: all of them, or as many as one dispatch may hold."""
        batches = in_batches(positions, self._batch_size)
        most = max(1, self._max_batches(self._source.records.bytes_per_track))
        return self.place(batches[: int(min(len(batches), most))])

    def _max_batches(self, bytes_per_track: int) -> float:
        """Return how many batches one dispatch may hold."""
        batch = bytes_per_track * self._batch_size
        return DISPATCH_BYTES // batch if self._is_streamed else math.inf

    def _prepare(
        self, shuffles: Sequence[Shuffle], first: int, count: int, most: int
    ) -> dict[str, jax.Array]:
        """Read and place the batches of `count` steps, as an array of `most` steps' size."""
        shape = (most, len(shuffles), self._batch_size)
        batches = np.full(shape, shuffles[0].positions[0], np.int32)
        for i, shuffle in enumerate(shuffles):
            batches[:count, i] = shuffle.batches(first, count)
        batches = self._padded(batches)
        if not (self._is_streamed and self._cut):
            return self._place(batches, self._source.load)
        num_frames = self._source.records.num_frames[np.maximum(batches, 0)]
        starts = devices.own_part(self._mesh, self._cut.starts(first, num_frames)).ravel()
        return self._place(
            batches, partial(self._source.load_segments, starts=starts, size=self._cut.size)
        )

    def _padded(self, batches: np.ndarray) -> np.ndarray:
        return pad(batches, self._mesh.shape[devices.DATA])

    def _place(
        self, batches: np.ndarray, load: Callable[[np.ndarray], Arrays]
    ) -> dict[str, jax.Array]:
        """Place padded batches with their tracks, as `load` reads them."""
        positions = devices.own_part(self._mesh, batches)
        placed = {"position": positions}
        if self._is_streamed:
            placed |= {
                name: array.reshape(*positions.shape, *array.shape[1:])
                for name, array in load(np.maximum(positions, 0).ravel()).items()
            }
        leading = (None, devices.SEED)[: positions.ndim - 1]
        return devices.place_batches(self._mesh, placed, *leading)


def pad(batch: np.ndarray, multiple: int) -> np.ndarray:
    """Pad positions, [..., B], with `PADDING` until `multiple` divides the last axis."""
    missing = -batch.shape[-1] % multiple
    widths = [(0, 0)] * (batch.ndim - 1) + [(0, missing)]
    return np.pad(batch, widths, constant_values=PADDING)


def in_batches(positions: np.ndarray, batch_size: int) -> np.ndarray:
    """Cut positions into padded batches in order, [ceil(N / B), B]."""
    return pad(positions, batch_size).reshape(-1, batch_size)
