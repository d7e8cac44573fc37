"""Writes one shard of feature records: the unit of work of `features.extract`.

`write_shard` does all the work on one shard and needs nothing but its job and the directory, so
that any engine can run it: the local `pool`, or `beam`.
"""

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from vae_jax.config import feature_settings
from vae_jax.features import extractors, ffmpeg
from vae_jax.features.errors import AGAIN, MACHINE, NEVER, READABLE, REMEDIES, WITH_FFMPEG, kind_of
from vae_jax.features.extractors import Extracted, Refused
from vae_jax.features.known import Known
from vae_jax.features.origins import Origin, checksum, look
from vae_jax.manifest import Manifest, Track
from vae_jax.records import layout, object_store, reader, tfrecord
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.storage import files, urls

FEATURE_VERSION = 2  # raise it when the same audio and settings give other features


@dataclass(frozen=True)
class Failure:
    """A track that could not be used, and why.

    Attributes
    ----------
    kept
        Whether it still has a record without the part that failed: a hybrid's lyrics without its
        audio, or its audio without its lyrics.
    retry
        When it is tried again; "" is never, since the file is to blame and not the machine.
    kind, remedy
        Its kind, and what to do about it.
    """

    id: str
    audio_path: str
    reason: str
    kept: bool = False
    retry: str = NEVER
    kind: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, track: Track, refused: Refused, kept: bool = False) -> "Failure":
        """Describe a track's failure."""
        remedy, place = REMEDIES[refused.kind], str(track.audio_path or "")
        return cls(track.id, place, str(refused), kept, refused.retry, refused.kind, remedy)

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
    remedy: str = ""

    @classmethod
    def of(cls, track: Track, warning: str) -> "Oddity":
        """Describe what is odd about a track."""
        return cls(
            track.id, str(track.audio_path or ""), warning, REMEDIES.get(kind_of(warning), "")
        )


@dataclass(frozen=True)
class ShardJob:
    """Everything that `write_shard` needs.

    Attributes
    ----------
    feature
        `config.feature` as a plain dict, so that a job can be sent to any process.
    shared
        The hash of what all tracks share (see `extractors.prepare`), or None.
    num_threads
        Tracks decoded at a time; has no effect on what is written.
    store
        The URL of a folder that finished shards are put into as well.
    known
        Records that may be taken as they are, by their tracks' ids.
    """

    directory: Path
    shard: int
    tracks: Manifest
    feature: Mapping[str, Any]
    shared: str | None
    num_threads: int
    store: str | None = None
    known: Mapping[str, Known] = field(default_factory=dict)

    @property
    def made_by(self) -> str:
        """Changes with the settings, and with how features are computed."""
        return files.fingerprint(FEATURE_VERSION, feature_settings(self.feature), self.shared)

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
        places = cast(dict[str, list[Any]], job.known).items()
        known = {id_: Known(Origin(*origin), *place) for id_, (origin, *place) in places}
        return replace(job, directory=Path(job.directory), tracks=tracks, known=known)


def write_shard(
    job: ShardJob, on_track: Callable[[Extracted | Refused], None] = lambda result: None
) -> None:
    """Extract one shard's tracks, in order, and write its records and marker.

    A track whose audio changes meanwhile fails, and is tried again at the next run.
    `on_track` is told what the extractor returned for each track, in the caller's thread.
    """
    extractor = extractors.build(job.feature, job.directory, job.shared)
    specs, tracks = extractor.arrays, list(job.tracks)
    missing = {name: spec.missing() for name, spec in specs.items()}
    statistics = {name: Statistics.none_of(spec) for name, spec in specs.items() if spec.shape}
    serialize, content = layout.serializer(specs), io.BytesIO()
    ids, offsets, checksums, num_frames, made_from = [], [], [], [], []
    decoders, failed, odd = [], [], []
    make = functools.partial(_make, job, extractor)
    with ThreadPoolExecutor(job.num_threads) as pool:
        made = pool.map(make, tracks, look(tracks, job.feature))
        for track, (origin, data, result) in zip(tracks, made, strict=True):
            on_track(result)
            made_from.append(origin)
            if isinstance(result, Refused):
                failed.append(Failure.of(track, result))
                continue
            failed += [Failure.of(track, fault, kept=True) for fault in result.faults]
            odd += [Oddity.of(track, text) for text in result.warnings]
            decoders.append(result.decoder)
            ids.append(track.id)
            offsets.append(content.tell())
            arrays = missing | result.arrays
            num_frames.append(_count_frames(specs, arrays))
            if data is None:
                data = serialize({"id": track.id, "duration": result.duration, **arrays})
            checksums.append(tfrecord.write_record(content, data))
            for name in statistics.keys() & result.arrays.keys():
                part = Statistics.of(result.arrays[name], specs[name].isotropic)
                statistics[name] = statistics[name].merge(part)
    holds = {
        "arrays": {name: spec.__dict__ for name, spec in specs.items()},
        "statistics": {name: part.to_dict() for name, part in statistics.items()},
        "ids": ids,
        "offsets": offsets,
        "checksums": checksums,
        "num_frames": num_frames,
        "decoders": decoders,
        "failed": [failure.__dict__ for failure in failed],
        "odd": [oddity.__dict__ for oddity in odd],
    }
    _save(job, made_from, content.getbuffer(), holds)


def is_done(job: ShardJob) -> bool:
    """Say whether a shard is finished, intact, and made from what the job describes.

    If files were only touched or copied, their new times are noted.
    """
    marker = layout.intact_marker(job.directory, job.shard)
    if marker is None or marker.get("made_by") != job.made_by:
        return False
    tracks = list(job.tracks)
    now, before = look(tracks, job.feature), [Origin(*origin) for origin in marker["origins"]]
    if len(now) != len(before) or not all(map(Origin.is_same, now, before, tracks)):
        return False
    is_touched = any(new.state != old.state for new, old in zip(now, before, strict=True))
    if is_touched and os.access(job.directory, os.W_OK):
        pairs = zip(now, before, strict=True)
        marker["origins"] = [old._replace(state=new.state) for new, old in pairs]
        files.write_sealed_json(layout.marker_path(job.directory, job.shard), marker)
    return True


def is_worth_a_try(job: ShardJob) -> bool:
    """Say whether a finished shard has tracks that failed and may succeed now."""
    marker = files.read_sealed_json(layout.marker_path(job.directory, job.shard))
    return any(Failure(**failure).is_worth_a_try for failure in marker["failed"])


def _make(
    job: ShardJob, extractor: extractors.Extractor, track: Track, origin: Origin
) -> tuple[Origin, bytes | None, Extracted | Refused]:
    """Return what a record is made from, its bytes if they are known, and what it holds."""
    known = job.known.get(track.id)
    if known and origin.is_same(known.origin, track):
        content = tfrecord.read_record(known.path, known.begin, known.end)
        held = content and _read(content, track.id, extractor.arrays)
        if held:
            held = replace(held, decoder=known.decoder, warnings=tuple(known.warnings))
            return known.origin._replace(state=origin.state), content, held
    if origin.state is not None:
        origin = origin._replace(checksum=checksum(track))
    result = extractor(track)
    if look([track], job.feature)[0].state != origin.state:
        reason = "it changed while it was read: run again when it is complete"
        changed = Refused(reason, MACHINE, AGAIN)
        return origin._replace(state=None, checksum=None), None, changed
    return origin, None, result


def _read(content: bytes, id_: str, specs: Mapping[str, ArraySpec]) -> Extracted | None:
    """Return what the extractor gave for a record; None if it is of another track.

    The extractor gave no array for a missing modality.
    """
    place = np.zeros(1, np.int64), np.full(1, len(content))
    try:
        ids, stacked = reader.decode(content, *place, specs)
    except (KeyError, ValueError):
        return None
    if ids != [id_.encode()]:
        return None
    arrays = {name: array[0] for name, array in stacked.items()}
    lacking = {name for name in arrays if not arrays.get(f"has_{name}", True)}
    return Extracted({name: array for name, array in arrays.items() if name not in lacking})


def _save(
    job: ShardJob, origins: Sequence[Origin], content: memoryview, holds: Mapping[str, Any]
) -> None:
    """Write a shard's records, then the marker that says what it is made from and holds."""
    path = layout.shard_path(job.directory, job.shard)
    with files.atomic_write(path) as file:
        file.write(content)
    made_from = {
        "made_by": job.made_by,
        "origins": origins,
        "fingerprint": files.fingerprint(
            job.made_by, [one.content for one in origins], holds["ids"]
        ),
        "file": layout.file_state(path),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    files.write_sealed_json(layout.marker_path(job.directory, job.shard), {**made_from, **holds})
    if job.store:
        object_store.put_shard(job.store, job.directory, job.shard)


def _count_frames(specs: Mapping[str, ArraySpec], arrays: Mapping[str, np.ndarray]) -> int:
    lengths = [len(arrays[name]) for name, spec in specs.items() if spec.shape[:1] == (None,)]
    return max(lengths, default=0)
