"""Writes one shard of feature records: the unit of work of `features.extract`.

`write_shard` does all the work on one shard and needs nothing but its job and the directory, so
that any engine can run it: the local `pool`, or `beam`.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from absl import logging

from vae_jax.config import feature_settings
from vae_jax.features import extractors, ffmpeg
from vae_jax.features.errors import AGAIN, NEVER, READABLE, WITH_FFMPEG
from vae_jax.features.extractors import Extracted, Refused
from vae_jax.manifest import Manifest, Track
from vae_jax.records import layout, object_store, tfrecord
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.storage import files, urls
from vae_jax.storage.urls import Location

FEATURE_VERSION = 2  # raise it when the same audio and settings give other features


@dataclass(frozen=True)
class Failure:
    """A track that could not be used, and why.

    Attributes
    ----------
    kept
        Whether it still has a record, made of what else there is: a hybrid of lyrics without
        audio, or of audio without lyrics.
    retry
        When it is tried again: "" never, since the file is to blame and not the machine.
    """

    id: str
    audio_path: str
    reason: str
    kept: bool = False
    retry: str = NEVER

    @classmethod
    def of(cls, track: Track, reason: str, kept: bool, retry: str) -> "Failure":
        """Describe a track's failure."""
        return cls(track.id, str(track.audio_path or ""), reason, kept, retry)

    @property
    def is_worth_a_try(self) -> bool:
        """Whether it may succeed now."""
        if self.retry == READABLE:
            return os.access(self.audio_path, os.R_OK)
        return self.retry == AGAIN or (self.retry == WITH_FFMPEG and ffmpeg.is_installed())


@dataclass(frozen=True)
class Oddity:
    """A track that is used although something is odd about it."""

    id: str
    audio_path: str
    warning: str


@dataclass(frozen=True)
class ShardJob:
    """Everything that `write_shard` needs.

    Attributes
    ----------
    feature
        `config.feature` as a plain dict, so that a job can be sent to any process.
    lyrics
        The hash of the lyrics' embedding in `directory`, or None.
    num_threads
        Tracks decoded at a time; has no effect on what is written.
    store
        The URL of a folder that finished shards are put into as well.
    """

    directory: Path
    shard: int
    tracks: Manifest
    feature: Mapping[str, Any]
    lyrics: str | None
    num_threads: int
    store: str | None = None

    def states(self) -> list[list[Any] | None]:
        """Return the audio files' sizes and times."""
        return urls.states(track.audio_path for track in self.tracks)

    def fingerprint(self, states: Sequence[list[Any] | None]) -> str:
        """Return what changes with the rows, the files' states, and how they are described."""
        tracks, root = list(self.tracks), urls.parent(self.tracks.path)
        return files.fingerprint(
            FEATURE_VERSION,
            feature_settings(self.feature),
            self.lyrics,
            [
                _track_fingerprint(track, state, root)  # a collection may move as a whole
                for track, state in zip(tracks, states, strict=True)
            ],
        )

    def to_json(self) -> bytes:
        """Return the job as JSON, for workers anywhere."""
        tracks = self.tracks.__dict__
        return json.dumps({**self.__dict__, "tracks": tracks}, default=str).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "ShardJob":
        """Rebuild a job from `to_json`."""
        job = cls(**json.loads(text))
        tracks = Manifest(**cast(dict[str, Any], job.tracks))
        tracks = replace(tracks, path=urls.location(tracks.path))
        return replace(job, directory=Path(job.directory), tracks=tracks)


def write_shard(
    job: ShardJob, on_track: Callable[[Extracted | Refused], None] = lambda result: None
) -> None:
    """Extract one shard's tracks, in order, and write its records and marker.

    Where an audio file changes meanwhile, it writes nothing and leaves the shard unfinished.
    `on_track` is told what the extractor returned for each track, in the caller's thread.
    """
    states = job.states()
    extractor = extractors.build(job.feature, job.directory, job.lyrics)
    specs = extractor.arrays
    missing = {name: spec.missing() for name, spec in specs.items()}
    statistics = {name: Statistics.none_of(spec) for name, spec in specs.items() if spec.shape}
    serialize, content = layout.serializer(specs), io.BytesIO()
    tracks, ids, offsets, num_frames, failed = list(job.tracks), [], [], [], []
    decoders, odd = [], []
    with ThreadPoolExecutor(job.num_threads) as pool:
        for track, result in zip(tracks, pool.map(extractor, tracks), strict=True):
            on_track(result)
            if isinstance(result, Refused):
                failed.append(Failure.of(track, result, False, result.retry))
                continue
            failed += [Failure.of(track, fault, True, result.retry) for fault in result.faults]
            odd += [Oddity(track.id, str(track.audio_path), text) for text in result.warnings]
            decoders.append(result.decoder)
            ids.append(track.id)
            offsets.append(content.tell())
            arrays = missing | result.arrays
            num_frames.append(_count_frames(specs, arrays))
            texts = {name: track.columns.get(name, "") for name in layout.TEXT_COLUMNS}
            example = {"id": track.id, "duration": result.duration, **texts, **arrays}
            tfrecord.write_record(content, serialize(example))
            for name in statistics.keys() & result.arrays.keys():
                part = Statistics.of(result.arrays[name], specs[name].isotropic)
                statistics[name] = statistics[name].merge(part)
    holds = {
        "arrays": {name: spec.__dict__ for name, spec in specs.items()},
        "statistics": {name: part.to_dict() for name, part in statistics.items()},
        "ids": ids,
        "offsets": offsets,
        "num_frames": num_frames,
        "decoders": decoders,
        "failed": [failure.__dict__ for failure in failed],
        "odd": [oddity.__dict__ for oddity in odd],
    }
    if changed := [i for i, state in enumerate(job.states()) if state != states[i]]:
        layout.marker_path(job.directory, job.shard).unlink(missing_ok=True)
        path = tracks[changed[0]].audio_path
        logging.warning("features: %s changed while it was read; its shard is unfinished", path)
        return
    _save(job, job.fingerprint(states), content.getbuffer(), holds)


def is_done(job: ShardJob) -> bool:
    """Say whether a shard is finished, intact, and made from what the job describes."""
    marker = layout.intact_marker(job.directory, job.shard)
    return marker is not None and marker["fingerprint"] == job.fingerprint(job.states())


def is_worth_a_try(job: ShardJob) -> bool:
    """Say whether tracks of a finished shard failed that may not fail now."""
    marker = files.read_sealed_json(layout.marker_path(job.directory, job.shard))
    return any(Failure(**failure).is_worth_a_try for failure in marker["failed"])


def _save(job: ShardJob, fingerprint: str, content: memoryview, holds: Mapping[str, Any]) -> None:
    """Write a shard's records, then the marker that says what it is made from and holds."""
    path = layout.shard_path(job.directory, job.shard)
    with files.atomic_write(path) as file:
        file.write(content)
    made_from = {
        "fingerprint": fingerprint,
        "file": layout.file_state(path),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    files.write_sealed_json(layout.marker_path(job.directory, job.shard), {**made_from, **holds})
    if job.store:
        object_store.put_shard(job.store, job.directory, job.shard)


def _track_fingerprint(track: Track, state: list[Any] | None, root: Location) -> list[Any]:
    return [
        track.id,
        track.audio_path and urls.relative(track.audio_path, root),
        state,
        [track.columns.get(name, "") for name in layout.TEXT_COLUMNS],
        hashlib.sha256(track.lyrics.encode()).hexdigest(),
    ]


def _count_frames(specs: Mapping[str, ArraySpec], arrays: Mapping[str, np.ndarray]) -> int:
    lengths = [len(arrays[name]) for name, spec in specs.items() if spec.shape[:1] == (None,)]
    return max(lengths, default=0)
