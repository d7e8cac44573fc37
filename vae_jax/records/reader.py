"""Random access to finished feature records, every one verified.

`features.extract` writes them, `input_pipeline` and `embedding` read them; `layout` says which
files they are.
"""

import contextlib
import copy
import functools
import mmap
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.records import tf_example
from vae_jax.records.layout import (
    INDEX,
    LYRICS,
    DamagedRecord,
    read_summary,
    shard_path,
)
from vae_jax.records.statistics import ArraySpec, Statistics, arrays_from_dict
from vae_jax.records.tf_example import Places
from vae_jax.records.tfrecord import FOOTER_BYTES, HEADER_BYTES, are_sound
from vae_jax.storage import files

PART_BYTES = 2**25  # of records that are read at once
MAX_OPEN = 16_384  # shards mapped at a time; Linux allows a process 65,530 mappings by default


class Records:
    """Random access to a finished records directory.

    Attributes
    ----------
    ids
        Track ids in record order, [N] fixed-width unicode.
    num_frames
        Frames of each track, [N] int32; 0 where none are stored.
    arrays
        The stored arrays' specs by name.
    statistics
        Each array's mean and deviation, for standardisation.
    fingerprint
        Changes whenever any record may have changed, or their order.
    content
        Changes with the records' bytes alone.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        summary = read_summary(self.directory)
        index = files.read_npz(self.directory / INDEX)
        self.ids, self._shards, self._offsets = index["ids"], index["shards"], index["offsets"]
        self.num_frames = index["num_frames"]
        self.fingerprint: str = summary["fingerprint"]
        self.content: str = summary["content"]
        self.arrays = arrays_from_dict(summary["arrays"])
        self.statistics = {
            name: Statistics.from_dict(values) for name, values in summary["statistics"].items()
        }
        is_last = np.append(np.diff(self._shards) != 0, True)
        self._ends = np.where(is_last, sys.maxsize, np.append(self._offsets[1:], 0))
        open_shard = functools.partial(_open, self.directory)
        self._open = functools.lru_cache(maxsize=MAX_OPEN)(open_shard)

    def without(self, ids: Collection[str]) -> "Records":
        """Return the records of all tracks but some. The statistics remain those of all."""
        kept = ~np.isin(self.ids, [*ids])
        if kept.all():
            return self
        found, left_out = copy.copy(self), self.ids[~kept].tolist()
        for name in ("ids", "num_frames", "_shards", "_offsets", "_ends"):
            setattr(found, name, getattr(self, name)[kept])
        found.fingerprint = files.fingerprint(self.fingerprint, left_out)
        found.content = files.fingerprint(self.content, left_out)
        return found

    @property
    def lyrics(self) -> dict[str, Any] | None:
        """The fitted lyrics embedding (see `LyricsEmbedding.to_dict`), where lyrics are stored."""
        path = self.directory / LYRICS
        return files.read_json(path) if path.exists() else None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bytes_per_track(self) -> int:
        """Bytes of one track's arrays, with as many frames as any has."""
        return self.bytes_of_rows(int(self.num_frames.max()))

    def bytes_of_rows(self, count: int) -> int:
        """Return the bytes of a track's arrays, with so many frames."""
        return sum(
            spec.row_bytes * (count if None in spec.shape else 1) for spec in self.arrays.values()
        )

    def load(self, positions: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Return the arrays of n tracks by name, verified.

        An array of fixed shape is stacked, [n, ...]; one of frames is a list of n arrays
        [T, ...], which are read-only.

        Raises
        ------
        DamagedRecord
            If a record is missing, cut short, fails its checksum, or is of another track.
        """
        positions = np.asarray(positions)
        content, begin, end = self._read(positions)
        with self._names_damage(positions):
            ids, arrays = decode(content, begin + HEADER_BYTES, end - FOOTER_BYTES, self.arrays)
            self._check_ids(positions, ids)
            return arrays

    def locate(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Return where in their shards the values of n tracks' arrays begin, [n] each, verified.

        Raises
        ------
        DamagedRecord
            As `load` does.
        """
        content, begin, end = self._read(positions)
        buffer = np.frombuffer(content, np.uint8)
        with self._names_damage(positions):
            places = tf_example.locate(buffer, begin + HEADER_BYTES, end - FOOTER_BYTES)
            self._check_ids(positions, tf_example.values(content, places["id"]))
            for name, spec in self.arrays.items():
                rows = self.num_frames[positions] if None in spec.shape else 1
                _check_size(places[name], spec.row_bytes * rows)
            shift = self._offsets[positions] - begin
            return {name: places[name].begin + shift for name in self.arrays}

    def bytes_of(self, position: int) -> np.ndarray:
        """Return all bytes of the shard that holds a track, uint8; none is read yet."""
        return np.frombuffer(self._open(int(self._shards[position])), np.uint8)

    def parts(self, positions: np.ndarray) -> list[np.ndarray]:
        """Cut positions into parts that `load` can take at once in little memory."""
        size = max(1, PART_BYTES // max(1, self.bytes_per_track))
        return [positions[i : i + size] for i in range(0, len(positions), size)]

    def _read(self, positions: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray]:
        """Return bytes that hold the tracks' framed records, and where each begins and ends there.

        Their checksums match.
        """
        shards, offsets, ends = (
            column[positions] for column in (self._shards, self._offsets, self._ends)
        )
        # Records that lie one after another are read at once, as a run.
        follows = (np.diff(shards) == 0) & (offsets[1:] == ends[:-1])
        first = np.append(0, np.flatnonzero(~follows) + 1)
        counts = np.diff(np.append(first, len(positions)))
        columns = shards[first], offsets[first], ends[first + counts - 1]
        runs = [
            _run(self._open(shard), begin, end)
            for shard, begin, end in zip(*(column.tolist() for column in columns), strict=True)
        ]
        sizes = np.array([len(run) for run in runs])
        ends = np.minimum(ends, np.repeat(offsets[first] + sizes, counts))  # a cut file ends early
        shift = np.repeat(np.cumsum(sizes) - sizes - offsets[first], counts)
        content, begin, end = b"".join(runs), offsets + shift, ends + shift
        for wrong in np.flatnonzero(~are_sound(content, begin, end)):
            what = f"the record at byte {offsets[wrong]} fails its checksum"
            raise DamagedRecord(self._path(positions[wrong]), what)
        return content, begin, end

    @contextlib.contextmanager
    def _names_damage(self, positions: np.ndarray) -> Iterator[None]:
        """Say which file it is whose records turn out to be of another kind."""
        try:
            yield
        except (KeyError, ValueError) as error:
            what = f"it holds other features: {error}"
            raise DamagedRecord(self._path(positions[0]), what) from error

    def _check_ids(self, positions: np.ndarray, found: list[bytes]) -> None:
        expected = self.ids[positions].tolist()
        if b"\n".join(found) == "\n".join(expected).encode():  # as one text, which is faster
            return
        wrong = next(i for i, id_ in enumerate(expected) if found[i] != id_.encode())
        what = f"it holds {found[wrong]!r} for {expected[wrong].encode()!r}"
        raise DamagedRecord(self._path(positions[wrong]), what)

    def _path(self, position: int) -> Path:
        return shard_path(self.directory, int(self._shards[position]))


def decode(
    content: bytes, begin: np.ndarray, end: np.ndarray, specs: Mapping[str, ArraySpec]
) -> tuple[list[bytes], dict[str, Any]]:
    """Return the ids and the arrays of n records, whose data lie in given places, [n] int64.

    Raises
    ------
    KeyError, ValueError
        If they hold other features.
    """
    places = tf_example.locate(np.frombuffer(content, np.uint8), begin, end)
    arrays = {name: _array(content, places[name], spec) for name, spec in specs.items()}
    return tf_example.values(content, places["id"]), arrays


def _run(shard: mmap.mmap | bytes, begin: int, end: int) -> bytes:
    """Return a shard's bytes, and let go of its pages once the last of them are read.

    Otherwise, when records are read in order, the whole collection would come to count as this
    process's memory.
    """
    content = shard[begin:end]
    if end == sys.maxsize and isinstance(shard, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        shard.madvise(mmap.MADV_DONTNEED)
    return content


def _array(content: bytes, places: Places, spec: ArraySpec) -> Any:
    """Return the values of an array, stacked if it is of fixed shape."""
    shape = tuple(-1 if size is None else size for size in spec.shape)
    if -1 in shape:
        values = zip(places.begin.tolist(), places.size.tolist(), strict=True)
        return [
            np.frombuffer(content, np.uint8, size, begin).view(spec.dtype).reshape(shape)
            for begin, size in values
        ]
    _check_size(places, spec.row_bytes)
    buffer = np.frombuffer(content, np.uint8)
    stacked = tf_example.windows(buffer, places.begin, spec.row_bytes)
    return stacked.view(spec.dtype).reshape(-1, *shape)


def _check_size(places: Places, size: int | np.ndarray) -> None:
    if (wrong := places.size != size).any():
        found, expected = places.size[wrong][0], np.broadcast_to(size, wrong.shape)[wrong][0]
        raise ValueError(f"an array has {found} bytes, and not {expected}")


def _open(directory: Path, shard: int) -> mmap.mmap | bytes:
    path = shard_path(directory, shard)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""  # an empty file cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DamagedRecord(path, error.strerror or str(error)) from error
