"""Turns a manifest into feature records: one writer per shard, resumable, append-friendly.

`extract` plans the shards, lets a pool of processes write those that are missing or out of date,
and finishes the records directory. `write_shard` does all the work on one shard and needs nothing
but its job, so any other engine can run it as well.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from vae_jax import files, records
from vae_jax.config import feature_settings
from vae_jax.console import Progress
from vae_jax.errors import UserError
from vae_jax.manifest import Manifest, Track
from vae_jax.records import Statistics

FEATURE_VERSION = 1  # raise it when the same audio and settings give other features
POOL_ATTEMPTS = 3  # pools that may break before extraction gives up


@dataclass(frozen=True)
class Failure:
    """A track that was left out, and why."""

    id: str
    audio_path: str
    reason: str


@dataclass(frozen=True)
class ShardJob:
    """Everything that `write_shard` needs.

    Attributes
    ----------
    root
        The manifest's folder; a collection that moves as a whole keeps its features.
    feature
        `config.feature` as a plain dict, so that a job can be sent to any process.
    num_threads
        Tracks decoded at a time; has no effect on what is written.
    """

    directory: Path
    root: Path
    shard: int
    tracks: tuple[Track, ...]
    feature: Mapping[str, Any]
    num_threads: int

    @property
    def fingerprint(self) -> str:
        """Changes with the rows, the audio files' sizes and times, and the settings."""
        return files.fingerprint(
            FEATURE_VERSION,
            feature_settings(self.feature),
            [_track_fingerprint(t, self.root) for t in self.tracks],
        )


def extract(
    manifest: Manifest, feature: Mapping[str, Any], directory: Path
) -> tuple[bool, list[Failure]]:
    """Bring a records directory up to date with a manifest.

    Finished shards whose tracks, files and settings are unchanged are kept. Returns whether
    anything was redone, and the tracks that failed; they have no record.

    Raises
    ------
    UserError
        If no track could be read.
    """
    size = feature["shard_size"]
    chunks = [manifest.tracks[i : i + size] for i in range(0, len(manifest.tracks), size)]
    workers = feature["num_workers"] or len(os.sched_getaffinity(0))
    processes = min(workers, len(chunks))
    jobs = [
        ShardJob(
            directory,
            manifest.path.parent,
            k,
            tracks,
            feature,
            num_threads=-(-workers // processes),
        )
        for k, tracks in enumerate(chunks)
    ]
    todo = [job for job in jobs if not _is_done(job)]
    _announce(jobs, todo, directory)
    if todo:
        (directory / records.INDEX).unlink(missing_ok=True)  # not whole until finished again
        _run_pool(todo, processes, len(manifest.tracks))
    markers = [files.read_json(records.marker_path(directory, job.shard)) for job in jobs]
    failures = [Failure(**failure) for marker in markers for failure in marker["failed"]]
    if len(failures) == len(manifest.tracks):
        raise UserError(
            f"none of the {len(failures)} tracks in {manifest.path} could be read; the first, "
            f"{failures[0].id!r}, failed because {failures[0].reason}."
        )
    _finish(directory, markers)
    return bool(todo), failures


def write_shard(job: ShardJob, finished: Any = None) -> None:
    """Extract one shard's tracks, in order, and write its records and marker.

    `finished`, a shared counter, is raised by one per track.
    """
    from vae_jax.features import extractors

    extractor = extractors.build(job.feature)
    content, offsets, ids, failed = io.BytesIO(), [], [], []
    statistics: dict[str, Statistics] = {}
    serialize = records.serializer(extractor.arrays)
    with ThreadPoolExecutor(job.num_threads) as pool:
        for track, result in zip(job.tracks, pool.map(extractor, job.tracks), strict=True):
            if finished is not None:
                with finished.get_lock():
                    finished.value += 1
            if isinstance(result, str):
                failed.append(Failure(track.id, str(track.audio_path or ""), result).__dict__)
                continue
            offsets.append(content.tell())
            ids.append(track.id)
            texts = {name: track.columns.get(name, "") for name in records.TEXT_COLUMNS}
            example = {"id": track.id, "duration": result.duration, **texts, **result.arrays}
            records.write_record(content, serialize(example))
            for name, array in result.arrays.items():
                part = Statistics.of(array)
                statistics[name] = statistics[name].merge(part) if name in statistics else part
    path = records.shard_path(job.directory, job.shard)
    with files.atomic_write(path) as file:
        file.write(content.getbuffer())
    marker = {
        "fingerprint": job.fingerprint,
        "file": _file_state(path),
        "sha256": hashlib.sha256(content.getbuffer()).hexdigest(),
        "arrays": {name: spec.__dict__ for name, spec in extractor.arrays.items()},
        "statistics": {name: part.to_dict() for name, part in statistics.items()},
        "ids": ids,
        "offsets": offsets,
        "failed": failed,
    }
    files.write_json(records.marker_path(job.directory, job.shard), marker)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write `failed.csv`; it has no rows where nothing failed."""
    files.write_csv(path, ("id", "audio_path", "reason"), [f.__dict__ for f in failures])


def _track_fingerprint(track: Track, root: Path) -> list[Any]:
    try:
        state = track.audio_path and os.stat(track.audio_path)
    except OSError:
        state = None
    return [
        track.id,
        track.audio_path and os.path.relpath(track.audio_path, root),
        [state.st_size, state.st_mtime_ns] if state else None,
        [track.columns.get(name, "") for name in records.TEXT_COLUMNS],
        hashlib.sha256(track.lyrics.encode()).hexdigest(),
    ]


def _file_state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _is_done(job: ShardJob) -> bool:
    """Say whether a shard is finished, intact, and made from what the job describes."""
    path = records.shard_path(job.directory, job.shard)
    try:
        marker = files.read_json(records.marker_path(job.directory, job.shard))
        if marker["fingerprint"] != job.fingerprint:
            return False
        # An untouched file is trusted; a touched or copied one has to prove itself.
        return marker["file"] == _file_state(path) or marker["sha256"] == files.sha256(path)
    except (OSError, UserError, KeyError, TypeError):
        return False


def _announce(jobs: Sequence[ShardJob], todo: Sequence[ShardJob], directory: Path) -> None:
    if not todo:
        return
    kept, tracks = len(jobs) - len(todo), sum(len(job.tracks) for job in todo)
    state = f"{kept} of {len(jobs)} shards are up to date, " if kept else ""
    logging.info("features: %sextracting %d tracks into %s", state, tracks, directory)


def _run_pool(jobs: Sequence[ShardJob], processes: int, num_tracks: int) -> None:
    """Write shards in spawned processes; a killed worker costs only its unfinished shards."""
    context = get_context("spawn")  # forking a process that runs XLA's threads can deadlock
    finished = context.Value("q", 0)
    todo = sum(len(job.tracks) for job in jobs)
    with Progress("features", num_tracks, "tracks", done=num_tracks - todo) as progress:
        for attempt in range(POOL_ATTEMPTS):
            jobs = [job for job in jobs if not _is_done(job)] if attempt else jobs
            finished.value = todo - sum(len(job.tracks) for job in jobs)
            try:
                with ProcessPoolExecutor(processes, context, _start_worker, (finished,)) as pool:
                    futures = {pool.submit(_work, job) for job in jobs}
                    for _ in _completed(futures):
                        progress.update(num_tracks - todo + min(finished.value, todo))
                    return
            except BrokenProcessPool:
                logging.warning("features: a worker process died; starting new ones")
    raise UserError(
        f"feature extraction stopped after {POOL_ATTEMPTS} times a worker process died (out of "
        "memory?): lower config.feature.num_workers and run again; finished shards are kept."
    )


def _completed(futures: set[Future]) -> Iterator[None]:
    """Yield now and then until all futures are done; raise what they raised."""
    while futures:
        done, futures = wait(futures, timeout=0.25, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        yield


def _start_worker(finished: Any) -> None:
    """Prepare a worker process: many single-threaded workers share the machine best."""
    global _finished
    _finished = finished
    os.environ["JAX_PLATFORMS"] = "cpu"  # the accelerator belongs to the parent
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


_finished: Any = None  # the parent's counter, in worker processes only


def _work(job: ShardJob) -> None:
    write_shard(job, _finished)


def _finish(directory: Path, markers: Sequence[Mapping[str, Any]]) -> None:
    """Write the index, the statistics and the TFDS metadata; remove shards of dropped rows."""
    fingerprint = files.fingerprint([marker["fingerprint"] for marker in markers])
    path = directory / records.STATISTICS
    is_whole = (directory / records.INDEX).exists() and path.exists()
    if is_whole and files.read_json(path)["fingerprint"] == fingerprint:
        return
    for kind in (records.shard_path, records.marker_path):
        shard = len(markers)
        while (stale := kind(directory, shard)).exists():
            stale.unlink()
            shard += 1
    filled = [marker for marker in markers if marker["ids"]]
    arrays = filled[0]["arrays"]
    statistics = {}
    for name in arrays:
        parts = [Statistics.from_dict(marker["statistics"][name]) for marker in filled]
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        statistics[name] = total.to_dict()
    files.write_json(path, {"fingerprint": fingerprint, "arrays": arrays, "statistics": statistics})
    lengths = [len(marker["ids"]) for marker in markers]
    records.write_metadata(directory, records.arrays_from_dict(arrays), lengths)
    files.write_npz(
        directory / records.INDEX,
        ids=np.array([id_ for marker in markers for id_ in marker["ids"]]),
        shards=np.repeat(np.arange(len(markers), dtype=np.int32), lengths),
        offsets=np.array([o for marker in markers for o in marker["offsets"]], np.int64),
    )
