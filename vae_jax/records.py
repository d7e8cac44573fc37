"""Feature records: sharded TFRecord files with an index, readable by TFDS, without TensorFlow.

A records directory holds, per shard, a TFRecord file and a JSON marker that says what the shard
was made from; then `index.npz` (where each record lies), `statistics.json` (mean and standard
deviation for standardisation) and the TFDS metadata, so that a TensorFlow user can read it with
`tfds.builder_from_directory(directory).as_dataset()`. `features.extract` writes it,
`input_pipeline` and `embed` read it.

The framing is TensorFlow's: length (uint64), masked CRC32C of the length, data, masked CRC32C of
the data, all little-endian.
"""

import functools
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from vae_jax import files
from vae_jax.errors import UserError

DATASET = "tracks"
SPLIT = "train"
INDEX = "index.npz"
STATISTICS = "statistics.json"
TEXT_COLUMNS = ("label", "language", "genre")
HEADER_BYTES, FOOTER_BYTES = 12, 4


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one stored array; None stands for a length that differs by track."""

    shape: tuple[int | None, ...]
    dtype: str


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


def masked_crc(data: bytes | memoryview) -> int:
    """Return TensorFlow's masked CRC32C, which stays sound when it is itself checksummed."""
    crc = google_crc32c.value(bytes(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file: BinaryIO, data: bytes) -> int:
    """Append one framed record; return the number of bytes written."""
    length = struct.pack("<Q", len(data))
    header = length + struct.pack("<I", masked_crc(length))
    return file.write(header + data + struct.pack("<I", masked_crc(data)))


def read_record(buffer: bytes | mmap.mmap, offset: int, path: Path) -> tuple[bytes, int]:
    """Return the record at `offset` and the offset of the next.

    Raises
    ------
    DamagedRecord
        If the record is cut short or a checksum does not match.
    """
    header = buffer[offset : offset + HEADER_BYTES]
    if len(header) == HEADER_BYTES:
        length, length_crc = struct.unpack("<QI", header)
        end = offset + HEADER_BYTES + length
        if length_crc == masked_crc(header[:8]) and end + FOOTER_BYTES <= len(buffer):
            data = buffer[offset + HEADER_BYTES : end]
            (data_crc,) = struct.unpack("<I", buffer[end : end + FOOTER_BYTES])
            if data_crc == masked_crc(data):
                return data, end + FOOTER_BYTES
    raise DamagedRecord(path, f"the record at byte {offset} fails its checksum")


def read_shard(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, data) for every record of a TFRecord file."""
    buffer, offset = path.read_bytes(), 0
    while offset < len(buffer):
        data, after = read_record(buffer, offset, path)
        yield offset, data
        offset = after


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of one array over all tracks (and frames), for standardising.

    Merged shard by shard with the update of Chan, Golub and LeVeque (1983), in float64.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray  # sum of squared deviations from the mean

    @classmethod
    def of(cls, array: np.ndarray) -> "Statistics":
        """Measure an array over all axes but the last."""
        rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1])
        mean = rows.mean(axis=0)
        return cls(len(rows), mean, np.square(rows - mean).sum(axis=0))

    def merge(self, other: "Statistics") -> "Statistics":
        """Return the statistics of both parts together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        squares = self.squares + other.squares
        return Statistics(
            count, mean, squares + np.square(delta) * (self.count * other.count / count)
        )

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation; 1 where a feature is constant, which leaves it at 0."""
        std = np.sqrt(self.squares / self.count)
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


def invalidate(damaged: DamagedRecord) -> None:
    """Forget that a damaged shard was finished, so that the next extraction redoes it."""
    shard = int(damaged.path.name.rsplit("-", 1)[1])
    marker_path(damaged.path.parent, shard).unlink(missing_ok=True)


def arrays_from_dict(values: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Rebuild specs by name from JSON, where tuples have become lists."""
    return {name: ArraySpec(tuple(spec["shape"]), spec["dtype"]) for name, spec in values.items()}


class Records:
    """Random access to a finished records directory.

    Attributes
    ----------
    ids
        Track ids in record order, [N] fixed-width unicode.
    arrays
        The stored arrays' specs by name.
    statistics
        Per array, for standardisation.
    fingerprint
        Changes whenever any record may have changed.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        if not (self.directory / INDEX).exists():
            raise UserError(f"{directory} holds no finished features: run --stage=features first.")
        index = files.read_npz(self.directory / INDEX)
        self.ids, self._shards, self._offsets = index["ids"], index["shards"], index["offsets"]
        summary = files.read_json(self.directory / STATISTICS)
        self.fingerprint: str = summary["fingerprint"]
        self.arrays = arrays_from_dict(summary["arrays"])
        self.statistics = {
            name: Statistics.from_dict(values) for name, values in summary["statistics"].items()
        }
        self._features = tfds_features(self.arrays)
        self._open = functools.lru_cache(maxsize=64)(_open)  # open shards, not all at once

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, position: int) -> dict[str, Any]:
        """Return one record: id, texts, duration (s) and arrays by name."""
        shard = int(self._shards[position])
        path = shard_path(self.directory, shard)
        data, _ = read_record(self._open(path), int(self._offsets[position]), path)
        return self._features.deserialize_example_np(data)

    def stack(self, name: str, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return an array of fixed shape for the given positions, [n, ...]."""
        return np.stack([self.read(int(position))[name] for position in positions])


def _open(path: Path) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""  # an empty file cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DamagedRecord(path, error.strerror or str(error)) from error
