"""Turns a manifest into feature records: one writer per shard, resumable, append-friendly.

`extract` prepares what all tracks share, plans the shards, lets a pool of processes write those
that are missing or out of date, and finishes the records directory. `write_shard` does all the
work on one shard and needs nothing but its job and the directory, so any other engine can run it
as well.
"""

import hashlib
import io
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import Any, cast

import numpy as np
from absl import logging

from vae_jax import files, records
from vae_jax.config import feature_settings
from vae_jax.console import Progress
from vae_jax.errors import Preempted, UserError
from vae_jax.features import extractors
from vae_jax.manifest import Manifest, Track
from vae_jax.records import ArraySpec, Statistics

FEATURE_VERSION = 1  # raise it when the same audio and settings give other features
POOL_ATTEMPTS = 3  # pools that may break before extraction gives up


@dataclass(frozen=True)
class Failure:
    """A track that could not be used, and why.

    Attributes
    ----------
    kept
        Whether it still has a record, made of what else there is: a hybrid of lyrics without
        audio, or of audio without lyrics.
    """

    id: str
    audio_path: str
    reason: str
    kept: bool = False

    @classmethod
    def of(cls, track: Track, reason: str, kept: bool = False) -> "Failure":
        """Describe a track's failure."""
        return cls(track.id, str(track.audio_path or ""), reason, kept)


@dataclass(frozen=True)
class ShardJob:
    """Everything that `write_shard` needs.

    Attributes
    ----------
    root
        The manifest's folder; a collection that moves as a whole keeps its features.
    feature
        `config.feature` as a plain dict, so that a job can be sent to any process.
    lyrics
        The hash of the lyrics' embedding in `directory`, or None.
    num_threads
        Tracks decoded at a time; has no effect on what is written.
    """

    directory: Path
    root: Path
    shard: int
    tracks: tuple[Track, ...]
    feature: Mapping[str, Any]
    lyrics: str | None
    num_threads: int

    @property
    def fingerprint(self) -> str:
        """Changes with the rows, the audio files' sizes and times, and how they are described."""
        return files.fingerprint(
            FEATURE_VERSION,
            feature_settings(self.feature),
            self.lyrics,
            [_track_fingerprint(t, self.root) for t in self.tracks],
        )


def extract(
    manifest: Manifest,
    feature: Mapping[str, Any],
    directory: Path,
    *,
    lyrics: Mapping[str, Any] | None = None,
) -> tuple[bool, list[Failure]]:
    """Bring a records directory up to date with a manifest.

    Finished shards whose tracks, files and settings are unchanged are kept. Returns whether
    anything was redone, and the tracks that failed; they have no record unless they are `kept`.

    Parameters
    ----------
    feature
        `config.feature` as a plain dict.
    lyrics
        A fitted embedding of lyrics, from `Records.lyrics` or a checkpoint. Without one, an
        embedding is learned from the manifest if the feature needs it.

    Raises
    ------
    UserError
        If no track could be read, or there are no lyrics to learn from.
    """
    embedding = extractors.prepare(manifest, feature, directory, lyrics)
    jobs, processes = _plan(manifest, feature, directory, embedding)
    todo = [job for job in jobs if not _is_done(job)]
    _announce(jobs, todo, directory)
    if todo:
        (directory / records.INDEX).unlink(missing_ok=True)  # not whole until finished again
        _run_pool(todo, processes, len(manifest.tracks))
    markers = [files.read_sealed_json(records.marker_path(directory, job.shard)) for job in jobs]
    failures = [Failure(**failure) for marker in markers for failure in marker["failed"]]
    if not any(marker["ids"] for marker in markers):
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
    extractor = extractors.build(job.feature, job.directory, job.lyrics)
    specs = extractor.arrays
    missing = {name: spec.missing() for name, spec in specs.items()}
    statistics = {name: Statistics.none_of(spec) for name, spec in specs.items() if spec.shape}
    serialize, content = records.serializer(specs), io.BytesIO()
    ids, offsets, num_frames, failed = [], [], [], []
    with ThreadPoolExecutor(job.num_threads) as pool:
        for track, result in zip(job.tracks, pool.map(extractor, job.tracks), strict=True):
            if finished is not None:
                with finished.get_lock():
                    finished.value += 1
            if isinstance(result, str):
                failed.append(Failure.of(track, result))
                continue
            failed += [Failure.of(track, fault, kept=True) for fault in result.faults]
            ids.append(track.id)
            offsets.append(content.tell())
            arrays = missing | result.arrays
            num_frames.append(_count_frames(specs, arrays))
            texts = {name: track.columns.get(name, "") for name in records.TEXT_COLUMNS}
            example = {"id": track.id, "duration": result.duration, **texts, **arrays}
            records.write_record(content, serialize(example))
            for name in statistics.keys() & result.arrays.keys():
                part = Statistics.of(result.arrays[name], specs[name].isotropic)
                statistics[name] = statistics[name].merge(part)
    holds = {
        "arrays": {name: spec.__dict__ for name, spec in specs.items()},
        "statistics": {name: part.to_dict() for name, part in statistics.items()},
        "ids": ids,
        "offsets": offsets,
        "num_frames": num_frames,
        "failed": [failure.__dict__ for failure in failed],
    }
    _save(job, content.getbuffer(), holds)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write `failed.csv`; it has no rows where nothing failed."""
    columns = [field.name for field in fields(Failure)]
    files.write_csv(path, columns, [failure.__dict__ for failure in failures])


def _plan(
    manifest: Manifest, feature: Mapping[str, Any], directory: Path, lyrics: str | None
) -> tuple[list[ShardJob], int]:
    """Return a job per shard, and the number of processes to share them."""
    size = feature["shard_size"]
    chunks = [manifest.tracks[i : i + size] for i in range(0, len(manifest.tracks), size)]
    workers = feature["num_workers"] or len(os.sched_getaffinity(0))
    processes = min(workers, len(chunks))
    num_threads = -(-workers // processes)
    jobs = [
        ShardJob(directory, manifest.path.parent, k, tracks, feature, lyrics, num_threads)
        for k, tracks in enumerate(chunks)
    ]
    return jobs, processes


def _save(job: ShardJob, content: memoryview, holds: Mapping[str, Any]) -> None:
    """Write a shard's records, then the marker that says what it is made from and holds."""
    path = records.shard_path(job.directory, job.shard)
    with files.atomic_write(path) as file:
        file.write(content)
    made_from = {
        "fingerprint": job.fingerprint,
        "file": _file_state(path),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    files.write_sealed_json(records.marker_path(job.directory, job.shard), {**made_from, **holds})


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


def _count_frames(specs: Mapping[str, ArraySpec], arrays: Mapping[str, np.ndarray]) -> int:
    lengths = [len(arrays[name]) for name, spec in specs.items() if spec.shape[:1] == (None,)]
    return max(lengths, default=0)


def _file_state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _is_done(job: ShardJob) -> bool:
    """Say whether a shard is finished, intact, and made from what the job describes."""
    path = records.shard_path(job.directory, job.shard)
    try:
        marker = files.read_sealed_json(records.marker_path(job.directory, job.shard))
        if marker["fingerprint"] != job.fingerprint:
            return False
        # An untouched file is trusted; a touched or copied one has to prove itself.
        if marker["file"] == _file_state(path) or marker["sha256"] == files.sha256(path):
            return True
        logging.warning("%s is damaged: its tracks are extracted again", path)
    except FileNotFoundError:
        pass
    except (OSError, UserError) as error:
        logging.warning("%s", error)
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
                    with _kill_if_stopped():
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


@contextmanager
def _kill_if_stopped() -> Iterator[None]:
    """Do not wait for the shards in progress when the run is asked to stop."""
    try:
        yield
    except (Preempted, KeyboardInterrupt):
        for worker in active_children():
            worker.kill()
        raise


def _start_worker(finished: Any) -> None:
    """Prepare a worker process: many single-threaded workers share the machine best."""
    global _finished
    _finished = finished
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the parent tells
    os.environ["JAX_PLATFORMS"] = "cpu"  # the accelerator belongs to the parent
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _end_with_parent() -> None:
    """End this process when its parent is killed; it would wait for work for ever."""
    wait_for([cast(Any, parent_process()).sentinel])
    os._exit(1)


_finished: Any = None  # the parent's counter, in worker processes only


def _work(job: ShardJob) -> None:
    write_shard(job, _finished)


def _finish(directory: Path, markers: Sequence[Mapping[str, Any]]) -> None:
    """Write the index, the statistics and the TFDS metadata; remove shards of dropped rows."""
    fingerprint = files.fingerprint([marker["fingerprint"] for marker in markers])
    try:
        if records.read_summary(directory)["fingerprint"] == fingerprint:
            return
    except UserError as error:
        if (directory / records.INDEX).exists():
            logging.warning("%s", error)
    for stale in records.shard_files(directory, from_shard=len(markers)):
        stale.unlink()
    filled = [marker for marker in markers if marker["ids"]]
    arrays = filled[0]["arrays"]
    statistics = {}
    for name in filled[0]["statistics"]:
        parts = [Statistics.from_dict(marker["statistics"][name]) for marker in filled]
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        statistics[name] = total.to_dict()
        if not total.count:
            logging.warning("features: no track has %s; all are described by the rest alone", name)
    lengths = [len(marker["ids"]) for marker in markers]
    records.write_metadata(directory, records.arrays_from_dict(arrays), lengths)
    files.write_npz(
        directory / records.INDEX,
        ids=np.array([id_ for marker in markers for id_ in marker["ids"]]),
        shards=np.repeat(np.arange(len(markers), dtype=np.int32), lengths),
        num_frames=np.array([t for marker in markers for t in marker["num_frames"]], np.int32),
        offsets=np.array([o for marker in markers for o in marker["offsets"]], np.int64),
    )
    records.write_summary(
        directory, {"fingerprint": fingerprint, "arrays": arrays, "statistics": statistics}
    )
