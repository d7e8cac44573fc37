"""The files of a records directory: shards and their markers, and the summaries beside them.

Per shard there is a TFRecord file and a JSON marker that says what the shard was made from; then
`index.npz` (where each record lies), `statistics.json` (mean and standard deviation for
standardisation), `lyrics.json` (the fitted embedding, where lyrics are embedded) and the TFDS
metadata, so that a TensorFlow user can read it with
`tfds.builder_from_directory(directory).as_dataset()`. `features.extract` writes them, `reader`
reads them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from vae_jax.errors import UserError
from vae_jax.records.statistics import ArraySpec
from vae_jax.storage import files

DATASET = "tracks"
SPLIT = "train"
INDEX = "index.npz"
STATISTICS = "statistics.json"
LYRICS = "lyrics.json"
METADATA = ("dataset_info.json", "features.json")  # that TFDS reads
SUMMARIES = (INDEX, LYRICS, *METADATA)  # what `statistics.json` vouches for


class DamagedRecord(UserError):
    """A shard that is missing, cut short, or does not match its checksums."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged ({what}): run again, which redoes this shard.")
        self.path = path


def tfds_features(arrays: Mapping[str, ArraySpec]) -> Any:
    """Return the TFDS description of a record: id, duration (s) and the arrays; never labels."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "duration": tfds.features.Scalar(np.float32),
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


def shard_of(marker: Path) -> Path:
    """Return the TFRecord file that a marker is about."""
    return shard_path(marker.parent, int(marker.stem.rpartition("-")[2]))


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
    """Return the fingerprint of all shards together, in order.

    What they hold counts too: a track may fail on one machine, and not on the next.
    """
    return files.fingerprint([[marker["fingerprint"], marker["sha256"]] for marker in markers])


def content(markers: Iterable[Mapping[str, Any]]) -> str:
    """Return the fingerprint of all records' bytes, whatever their order."""
    pairs = [pair for m in markers for pair in zip(m["ids"], m["checksums"], strict=True)]
    return files.fingerprint(sorted(pairs))


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
