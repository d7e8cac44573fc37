"""Feature records without audio, written by the package's own writer, for benchmarks of any size.

Tracks belong to `NUM_CLUSTERS` groups, whose means differ; their ids are "track-<number>".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.features import spectral
from vae_jax.records import layout, tfrecord
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.storage import files

NUM_CLUSTERS = 10
NUM_GRATINGS = 4


def label(track: int) -> str:
    """Return the name of a track's group."""
    return f"group-{track % NUM_CLUSTERS}"


def write_records(
    directory: Path, feature: Mapping[str, Any], num_tracks: int, num_frames: int = 0
) -> None:
    """Write a finished records directory, shard by shard, in memory that does not grow.

    Parameters
    ----------
    feature
        `config.feature` as a plain dict, for an audio feature; its `shard_size` is used.
    num_frames
        T, frames of every track, for features that are stored as frames.
    """
    described = spectral.audio_feature(feature)
    spec = ArraySpec(described.shape, described.dtype)
    serialize = layout.serializer({"features": spec})
    shape = [size or num_frames for size in spec.shape]
    total = Statistics.none_of(spec)
    offsets, lengths, size = [], [], feature["shard_size"]
    for shard, first in enumerate(range(0, num_tracks, size)):
        tracks = range(first, min(first + size, num_tracks))
        values = _features(shard, tracks, shape).astype(spec.dtype)
        offsets += _write_shard(layout.shard_path(directory, shard), tracks, values, serialize)
        lengths.append(len(tracks))
        total = total.merge(Statistics.of(values))
    layout.write_metadata(directory, {"features": spec}, lengths)
    write_index(directory, np.repeat(np.arange(len(lengths)), lengths), offsets, num_frames)
    made_from = files.fingerprint(num_tracks, num_frames, feature)
    summary = {
        "fingerprint": made_from,
        "content": made_from,
        "arrays": {"features": spec.__dict__},
        "statistics": {"features": total.to_dict()},
    }
    layout.write_summary(directory, summary)


def write_index(directory: Path, shards: np.ndarray, offsets: Any, num_frames: int) -> None:
    """Write where each record lies: its shard, [N], and its byte there, [N]."""
    count = len(shards)
    files.write_npz(
        directory / layout.INDEX,
        ids=np.array([f"track-{track}" for track in range(count)]),
        shards=shards.astype(np.int32),
        num_frames=np.full(count, num_frames, np.int32),
        offsets=np.asarray(offsets, np.int64),
    )


def _write_shard(path: Path, tracks: range, values: np.ndarray, serialize: Any) -> list[int]:
    offsets = []
    with files.atomic_write(path) as file:
        for track, array in zip(tracks, values, strict=True):
            offsets.append(file.tell())
            example = {"id": f"track-{track}", "duration": 30.0, "features": array}
            tfrecord.write_record(file, serialize(example))
    return offsets


def _features(shard: int, tracks: range, shape: list[int]) -> np.ndarray:
    """Return features [n, *shape] around the means of the tracks' groups: noise, and patterns.

    Frames hold gratings over time and bands, so that there is something to reconstruct.
    """
    means = np.random.default_rng(0).normal(0, 1, (NUM_CLUSTERS, shape[-1]))
    rng = np.random.default_rng([1, shard])
    groups = np.array(tracks) % NUM_CLUSTERS
    values = means[groups].reshape(len(tracks), *[1] * (len(shape) - 1), shape[-1])
    values = values.astype(np.float32) + np.zeros((1, *shape), np.float32)
    if len(shape) == 2:
        over = [_waves(rng, len(tracks), size) for size in shape]
        values += np.matmul(over[0].transpose(0, 2, 1), over[1])
    else:
        values += rng.standard_normal(values.shape, dtype=np.float32)
    return values


def _waves(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Return sines of random length and phase, [count, NUM_GRATINGS, size] float32."""
    cycles = rng.uniform(1, 6, (count, NUM_GRATINGS))
    phase = rng.uniform(0, 1, (count, NUM_GRATINGS))
    angle = cycles[..., None] * np.arange(size) / size + phase[..., None]
    return np.sin(2 * np.pi * angle).astype(np.float32)
