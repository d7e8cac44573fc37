"""Writes shards in a pool of processes on this machine, for `features.extract`."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, cast

from absl import logging

from vae_jax.console import Progress
from vae_jax.errors import UserError
from vae_jax.features import shards
from vae_jax.features.extractors import Extracted, Refused
from vae_jax.features.shards import ShardJob

POOL_ATTEMPTS = 3  # pools that may break before extraction gives up
UNGUARDED = os.EX_USAGE  # the status of a worker that would have begun the whole job again
REMEDIES = {"SIGKILL": "it was out of memory, perhaps: lower config.feature.num_workers"}
WORKER_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # the accelerator belongs to the parent
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # XLA's threads on all cores took as long to share a spectrum as to compute it.
    "NPROC": "1",
    # Bytes that glibc keeps when they are freed. Otherwise the samples of every track would come
    # as new pages, which the kernel fills with zeros: a tenth of the time that a track takes.
    **{"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)},
}


def run(jobs: Sequence[ShardJob], processes: int, num_tracks: int) -> None:
    """Write shards in spawned processes; a killed worker costs only its unfinished shards."""
    context = get_context("spawn")  # forking a process that runs XLA's threads can deadlock
    with _sharing():
        finished = context.Value("q", 0)
    todo = sum(len(job.tracks) for job in jobs)
    with Progress("features", num_tracks, "tracks", done=num_tracks - todo) as progress:
        for attempt in range(POOL_ATTEMPTS):
            jobs = [job for job in jobs if not shards.is_done(job)] if attempt else jobs
            finished.value = todo - sum(len(job.tracks) for job in jobs)
            with _sharing():
                workers = ProcessPoolExecutor(processes, context, _start_worker, (finished,))
            started: list[BaseProcess] = []
            try:
                with worker_environment(), workers as pool:
                    futures = {pool.submit(_work, job) for job in jobs}
                    started = multiprocessing.active_children()
                    for _ in _completed(futures):
                        progress.update(num_tracks - todo + min(finished.value, todo))
                    return
            except BrokenProcessPool:
                end = _end(started)
                logging.warning("features: a worker process died (%s); starting new ones", end)
    raise UserError(
        f"feature extraction stopped after {POOL_ATTEMPTS} times a worker process died ({end}): "
        f"{REMEDIES.get(end, 'mend what it says above')} and run again; finished shards are kept."
    )


def check_guarded() -> None:
    """End a worker that imports the caller's script, which would do the whole job in each.

    Python's `spawn` does so before a worker gets its first task.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


@contextmanager
def _sharing() -> Iterator[None]:
    """Say where it is that processes share memory, which the system's error does not."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"no processes can be started to extract features ({error.strerror}): make room in "
            "/dev/shm, through which they share memory (for containers: --shm-size)."
        ) from error


def _end(workers: Sequence[BaseProcess]) -> str:
    """Say how workers ended, of which the pool has terminated those that were sound.

    Raises
    ------
    UserError
        If the script that called does the whole job when it is imported.
    """
    codes = {worker.exitcode or 0 for worker in workers} - {0, -signal.SIGTERM}
    if UNGUARDED in codes:
        raise UserError(
            "the script starts the whole job again in every process that imports it: put what it "
            "does under if __name__ == '__main__'."
        )
    ends = {f"status {code}" if code > 0 else signal.Signals(-code).name for code in codes}
    return ", ".join(sorted(ends)) or "unknown"


def run_here(jobs: Sequence[ShardJob], num_tracks: int) -> None:
    """Write shards in this process, which has the accelerator, in the threads of each job."""
    done = num_tracks - sum(len(job.tracks) for job in jobs)
    with Progress("features", num_tracks, "tracks", done=done) as progress:
        for job in jobs:
            shards.write_shard(job, lambda result: progress.update(progress.done + 1))


@contextmanager
def worker_environment() -> Iterator[None]:
    """Let processes that are started here share the machine, best with one thread each."""
    before = dict(os.environ)
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _completed(futures: set[Future]) -> Iterator[None]:
    """Yield now and then until all futures are done; raise what they raised."""
    while futures:
        done, futures = wait(futures, timeout=0.25, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        yield


def _start_worker(finished: Any) -> None:
    """Prepare a worker process."""
    global _finished
    _finished = finished
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that this


def _end_with_parent() -> None:
    """End this process when its parent is killed, instead of waiting for work for ever."""
    wait_for([cast(Any, parent_process()).sentinel])
    os._exit(1)


_finished: Any = None  # the parent's counter, in worker processes only


def _work(job: ShardJob) -> None:
    shards.write_shard(job, _count)


def _count(result: Extracted | Refused) -> None:
    with _finished.get_lock():
        _finished.value += 1
