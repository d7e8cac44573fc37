"""Feature records: sharded TFRecord files with an index, readable by TFDS, without TensorFlow.

A records directory holds, per shard, a TFRecord file and a JSON marker that says what the shard
was made from; then `index.npz` (where each record lies), `statistics.json` (mean and standard
deviation for standardisation), `lyrics.json` (the fitted embedding, where lyrics are embedded) and
the TFDS metadata, so that a TensorFlow user can read it with
`tfds.builder_from_directory(directory).as_dataset()`. `features.extract` writes it,
`input_pipeline` and `embed` read it.

The framing is TensorFlow's: length (uint64), masked CRC32C of the length, data, masked CRC32C of
the data, all little-endian.
"""

import functools
import math
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from absl import logging

from vae_jax.errors import UserError
from vae_jax.records import tf_example
from vae_jax.records.tf_example import Places
from vae_jax.storage import files

DATASET = "tracks"
SPLIT = "train"
INDEX = "index.npz"
STATISTICS = "statistics.json"
LYRICS = "lyrics.json"
METADATA = ("dataset_info.json", "features.json")  # that TFDS reads
SUMMARIES = (INDEX, LYRICS, *METADATA)  # what `statistics.json` vouches for
TEXT_COLUMNS = ("label", "language", "genre")
HEADER_BYTES, FOOTER_BYTES = 12, 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
PART_BYTES = 2**25  # of records that are read at once
MAX_OPEN = 16_384  # shards mapped at a time; Linux allows a process 65,530 mappings by default


@dataclass(frozen=True)
class ArraySpec:
    """How one array is stored.

    Attributes
    ----------
    shape, dtype
        None stands for a length that differs by track.
    isotropic
        Whether standardising divides all columns by one number, which keeps their proportions.
        Those of an SVD are its meaning: to divide each by its own deviation would blow noise up.
    """

    shape: tuple[int | None, ...]
    dtype: str
    isotropic: bool = False

    def missing(self) -> np.ndarray:
        """Return what is stored for a track that lacks the array: zeros, of no length if any."""
        return np.zeros([size or 0 for size in self.shape], self.dtype)


class DamagedRecord(UserError):
    """A shard that is missing, cut short, or does not match its checksums."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged ({what}): run again, which redoes this shard.")
        self.path = path


def tfds_features(arrays: Mapping[str, ArraySpec]) -> Any:
    """Return the TFDS description of a record: id, texts, duration (s) and the arrays."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "duration": tfds.features.Scalar(np.float32),
            **{name: tfds.features.Text() for name in TEXT_COLUMNS},
            **{
                name: tfds.features.Tensor(
                    shape=spec.shape, dtype=np.dtype(spec.dtype), encoding="bytes"
                )
                for name, spec in arrays.items()
            },
        }
    )


def serializer(arrays: Mapping[str, ArraySpec]) -> Callable[[Mapping[str, Any]], bytes]:
    """Return the function from a record to tf.train.Example bytes: equal records, equal bytes."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = tfds_features(arrays)
    examples = ExampleSerializer(features.get_serialized_info())

    def serialize(record: Mapping[str, Any]) -> bytes:
        example = examples.get_tf_example(features.encode_example(record))
        # TFDS's own serialize_example leaves the order of the map's entries to chance.
        return example.SerializeToString(deterministic=True)

    return serialize


def write_metadata(
    directory: Path, arrays: Mapping[str, ArraySpec], lengths: Sequence[int]
) -> None:
    """Write TFDS's dataset_info.json and features.json for shards of the given record counts."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=directory,
        dataset_name=DATASET,
        split=SPLIT,
        filetype_suffix="tfrecord",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=list(lengths),
        num_bytes=sum(shard_path(directory, k).stat().st_size for k in range(len(lengths))),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=tfds_features(arrays),
        split_infos=[split],
        filename_template=template,
        check_data=False,  # the check imports TensorFlow
        description="Features of music tracks, extracted by vae_jax.",
    )


def shard_path(directory: Path, shard: int) -> Path:
    """Return a shard's TFRecord file."""
    return directory / f"{DATASET}-{SPLIT}.tfrecord-{shard:05d}"


def marker_path(directory: Path, shard: int) -> Path:
    """Return the JSON file that says what a finished shard was made from."""
    return directory / f"shard-{shard:05d}.json"


def file_state(path: Path) -> list[int]:
    """Return what changes when a file is written: its size and its time of modification (ns)."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def intact_marker(directory: Path, shard: int) -> dict[str, Any] | None:
    """Return what a shard was made from, if it is finished and as it was left."""
    path = shard_path(directory, shard)
    try:
        marker = files.read_sealed_json(marker_path(directory, shard))
        # An untouched file is trusted; a touched or copied one has to prove itself.
        if marker["file"] == file_state(path) or marker["sha256"] == files.sha256(path):
            return marker
        logging.warning("%s is damaged: its tracks are extracted again", path)
    except FileNotFoundError:
        pass
    except (OSError, UserError) as error:
        logging.warning("%s", error)
    return None


def fingerprint(markers: Iterable[Mapping[str, Any]]) -> str:
    """Return the fingerprint of all shards together, in order."""
    return files.fingerprint([marker["fingerprint"] for marker in markers])


def masked(crc: Any) -> Any:
    """Return TensorFlow's mask of a CRC32C, or of an array of them, uint32.

    A checksum that is itself checksummed would lose its strength.
    """
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.lru_cache(maxsize=4096)
def header(length: int) -> bytes:
    """Return what stands before a record of so many bytes."""
    size = struct.pack("<q", length)
    return size + struct.pack("<I", masked(google_crc32c.value(size)))


def write_record(file: BinaryIO, data: bytes) -> int:
    """Append one framed record; return the number of bytes written."""
    footer = struct.pack("<I", masked(google_crc32c.value(data)))
    return sum(map(file.write, (header(len(data)), data, footer)))  # joining them would copy


def are_sound(content: bytes, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Say which of framed records have the length that they state, and match their checksums, [n].

    `begin` and `end` say where each lies in `content`, [n] int64.
    """
    buffer, sound = np.frombuffer(content, np.uint8), end - begin >= FRAME_BYTES
    if not sound.all():  # what is shorter has no header and footer to look at
        if sound.any():
            sound[sound] = are_sound(content, begin[sound], end[sound])
        return sound
    headers = b"".join(map(header, (end - begin - FRAME_BYTES).tolist()))
    expected = np.frombuffer(headers, np.uint8).reshape(-1, HEADER_BYTES)
    sound &= (tf_example.windows(buffer, begin, HEADER_BYTES) == expected).all(axis=1)
    stated = tf_example.windows(buffer, end - FOOTER_BYTES, FOOTER_BYTES).view("<u4")[:, 0]
    places = zip((begin + HEADER_BYTES).tolist(), (end - FOOTER_BYTES).tolist(), strict=True)
    found = [google_crc32c.value(content[first:last]) for first, last in places]
    return sound & (stated == masked(np.array(found, np.uint32)))


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of one array over all tracks (and frames), for standardising.

    Merged shard by shard with the update of Chan, Golub and LeVeque (1983), in float64.

    Attributes
    ----------
    count
        Rows measured; 0 where no track has the array.
    mean
        Of each column, [D].
    squares
        Sum of squared deviations from the mean, of each column, [D]; of an isotropic array the
        mean over its columns, [1].
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, isotropic: bool = False) -> "Statistics":
        """Measure an array over all axes but the last."""
        rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1])
        mean = rows.sum(axis=0) / max(len(rows), 1)
        squares = np.square(rows - mean).sum(axis=0)
        return cls(len(rows), mean, squares.mean(keepdims=True) if isotropic else squares)

    @classmethod
    def none_of(cls, spec: ArraySpec) -> "Statistics":
        """Return the statistics of no rows of a stored array, to merge others into."""
        return cls.of(np.zeros((0, spec.shape[-1] or 0)), spec.isotropic)

    def merge(self, other: "Statistics") -> "Statistics":
        """Return the statistics of both parts together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / max(count, 1))
        between = np.square(delta) * (self.count * other.count / max(count, 1))
        if len(self.squares) == 1:
            between = between.mean(keepdims=True)
        return Statistics(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation, [D]; of an isotropic array the columns' root mean square.

        1 where a feature is constant or was never measured, which leaves it at 0.
        """
        std = np.sqrt(self.squares / max(self.count, 1))
        return np.where(std > 1e-6 * np.maximum(1, np.abs(self.mean)), std, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "squares": self.squares.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Statistics":
        """Rebuild from `to_dict`, exactly."""
        return cls(values["count"], np.array(values["mean"]), np.array(values["squares"]))


def shard_files(directory: Path, from_shard: int) -> list[Path]:
    """Return the files and markers of all shards from a number on."""
    keep = {kind(directory, k) for k in range(from_shard) for kind in (shard_path, marker_path)}
    found = {*directory.glob(f"{DATASET}-{SPLIT}.tfrecord-*"), *directory.glob("shard-*.json")}
    return sorted(found - keep)


def write_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write `statistics.json`, the last file of a records directory, which vouches for the rest."""
    paths = [directory / name for name in SUMMARIES]
    sha256 = {path.name: files.sha256(path) for path in paths if path.exists()}
    files.write_sealed_json(directory / STATISTICS, {**summary, "sha256": sha256})


def read_summary(directory: Path) -> dict[str, Any]:
    """Return what `write_summary` wrote.

    Raises
    ------
    UserError
        If the directory is not finished, or one of the files is not as it was left.
    """
    try:
        summary = files.read_sealed_json(directory / STATISTICS)
    except FileNotFoundError as error:
        raise UserError(
            f"{directory} holds no finished features: run --stage=features first."
        ) from error
    for name, sha256 in summary["sha256"].items():
        path = directory / name
        if not path.exists() or files.sha256(path) != sha256:
            raise UserError(f"{path} is damaged or missing: run --stage=features again.")
    return summary


def invalidate(damaged: DamagedRecord) -> None:
    """Forget that a damaged shard was finished, so that the next extraction redoes it."""
    shard = int(damaged.path.name.rsplit("-", 1)[1])
    marker_path(damaged.path.parent, shard).unlink(missing_ok=True)


def arrays_from_dict(values: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Rebuild specs by name from JSON, where tuples have become lists."""
    return {
        name: ArraySpec(tuple(spec["shape"]), spec["dtype"], spec.get("isotropic", False))
        for name, spec in values.items()
    }


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
        Per array, for standardisation.
    fingerprint
        Changes whenever any record may have changed.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        summary = read_summary(self.directory)
        index = files.read_npz(self.directory / INDEX)
        self.ids, self._shards, self._offsets = index["ids"], index["shards"], index["offsets"]
        self.num_frames = index["num_frames"]
        self.fingerprint: str = summary["fingerprint"]
        self.arrays = arrays_from_dict(summary["arrays"])
        self.statistics = {
            name: Statistics.from_dict(values) for name, values in summary["statistics"].items()
        }
        is_last = np.append(np.diff(self._shards) != 0, True)
        self._ends = np.where(is_last, sys.maxsize, np.append(self._offsets[1:], 0))
        open_shard = functools.partial(_open, self.directory)
        self._open = functools.lru_cache(maxsize=MAX_OPEN)(open_shard)

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
        most = int(self.num_frames.max())
        return sum(
            math.prod(size or most for size in spec.shape) * np.dtype(spec.dtype).itemsize
            for spec in self.arrays.values()
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
        buffer = np.frombuffer(content, np.uint8)
        try:
            places = tf_example.locate(buffer, begin + HEADER_BYTES, end - FOOTER_BYTES)
            self._check_ids(positions, tf_example.values(content, places["id"]))
            return {name: _array(content, places[name], spec) for name, spec in self.arrays.items()}
        except (KeyError, ValueError) as error:
            what = f"it holds other features: {error}"
            raise DamagedRecord(self._path(positions[0]), what) from error

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
        # What lies one after another is read at once, as a run.
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

    def _check_ids(self, positions: np.ndarray, found: list[bytes]) -> None:
        expected = self.ids[positions].tolist()
        if b"\n".join(found) == "\n".join(expected).encode():  # as one text, which is faster
            return
        wrong = next(i for i, id_ in enumerate(expected) if found[i] != id_.encode())
        what = f"it holds {found[wrong]!r} for {expected[wrong].encode()!r}"
        raise DamagedRecord(self._path(positions[wrong]), what)

    def _path(self, position: int) -> Path:
        return shard_path(self.directory, int(self._shards[position]))


def _run(shard: mmap.mmap | bytes, begin: int, end: int) -> bytes:
    """Return a shard's bytes; once the last are read, let go of its pages, as when read in order.

    They would else count as this process's memory, until all of a collection does.
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
    size = math.prod(shape) * np.dtype(spec.dtype).itemsize
    if (places.size != size).any():
        raise ValueError(f"an array is not of {size} bytes")
    stacked = tf_example.windows(np.frombuffer(content, np.uint8), places.begin, size)
    return stacked.view(spec.dtype).reshape(-1, *shape)


def _open(directory: Path, shard: int) -> mmap.mmap | bytes:
    path = shard_path(directory, shard)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""  # an empty file cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DamagedRecord(path, error.strerror or str(error)) from error
