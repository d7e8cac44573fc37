"""Killed anywhere, the same command ends as if nothing had happened."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.stress import jobs
from tests.stress.jobs import LONG, SHORT, STAGES, Job, outcome, run, stress_only

pytestmark = pytest.mark.slow

JOURNEYS = 6 if LONG else 1
KILLS = {  # per journey, and within how many seconds of the stage's begin
    "features": (3 if LONG else 1, 3.0),
    "train": (3 if LONG else 1, 4.0),
    "embed": (2 if LONG else int(SHORT), 1.2),
    "cluster": (int(SHORT), 0.2),
    "visualize": (2 if LONG else 1, 2.5),
}


def assert_ends_undisturbed(folder: Path, undisturbed: dict) -> None:
    ended = run(folder)
    assert ended.code == 0, ended.err
    assert_is_undisturbed(folder, undisturbed)


def assert_is_undisturbed(folder: Path, undisturbed: dict, results: str = "results") -> None:
    found = outcome(folder, results)
    assert {name for name in undisturbed if found.get(name) != undisturbed[name]} == set()
    assert found.keys() == undisturbed.keys()
    assert jobs.temporary_files(folder) == []
    assert set(run(folder).stages.values()) == {"up to date"}


@pytest.mark.parametrize("seed", range(JOURNEYS))
def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(fresh, undisturbed, seed):
    rng, folder, hits = random.Random(seed), fresh(), Counter()
    for stage, (count, seconds) in KILLS.items():
        for _ in range(count):
            before = jobs.finished_shards(folder)
            job = Job(folder)
            job.wait_for_stage(stage)
            time.sleep(rng.uniform(0, seconds))
            job.kill(everything=rng.random() < 0.7)
            assert job.process.returncode in (0, -signal.SIGKILL), job.err
            reached = jobs.stages(job.err)
            hits[next((name for name in STAGES if name not in reached), "end")] += 1
            after = jobs.finished_shards(folder)
            assert {name: after[name] for name in before} == before, "a finished shard was redone"
            assert "Traceback" not in job.err, job.err
    print(f"kills by stage: {dict(hits)}")
    assert_ends_undisturbed(folder, undisturbed)


@stress_only
def test_workers_end_with_a_killed_parent(fresh):
    job = Job(fresh())
    while not job.others() and job.process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.5)
    assert job.others()
    job.kill(everything=False)
    deadline = time.monotonic() + 10
    while job.others() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert job.others() == []


@stress_only
@pytest.mark.parametrize("seed", range(3 if LONG else 1))
def test_a_killed_worker_costs_nothing_but_time(fresh, undisturbed, seed):
    folder, rng = fresh(), random.Random(seed)
    job = Job(folder)
    while not (workers := spawned(job)) and job.process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.2, 2.0))
    workers = spawned(job)
    if workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
    ended = job.wait()
    assert ended.code == 0, ended.err
    assert_is_undisturbed(folder, undisturbed)


def spawned(job: Job) -> list[int]:
    """Return the pool's workers."""
    found = []
    for pid in job.others():
        try:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@stress_only
@pytest.mark.parametrize("delay", [0.05, 0.4, 1.0] if LONG else [0.4])
@pytest.mark.parametrize("stage", STAGES if LONG else ("train", "visualize"))
def test_sigterm_ends_any_stage_with_its_own_status_and_the_same_command_continues(
    fresh, undisturbed, stage, delay
):
    folder = fresh()
    job = Job(folder)
    job.wait_for_stage(stage)
    while not job.err and job.process.poll() is None:  # Python itself is starting
        time.sleep(0.01)
    time.sleep(delay)
    job.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    ended = job.wait(timeout=10)
    assert ended.code == os.EX_TEMPFAIL, ended.err
    assert "Traceback" not in ended.err
    while job.others() and time.monotonic() < started + 10:
        time.sleep(0.05)
    assert job.others() == []
    assert_ends_undisturbed(folder, undisturbed)


@stress_only
@pytest.mark.parametrize("seed", range(3 if LONG else 1))
def test_two_runs_at_once_share_the_folders_and_both_end_well(fresh, undisturbed, seed):
    folder, rng = fresh(), random.Random(seed)
    first = Job(folder)
    time.sleep(rng.uniform(0, 3))
    second = Job(folder, "--outdir=other") if seed % 2 else Job(folder)
    for job in (first, second):
        ended = job.wait()
        assert ended.code == 0, ended.err
    assert_is_undisturbed(folder, undisturbed)
    if seed % 2:
        assert_is_undisturbed(folder, undisturbed, "other")


@stress_only
def test_when_one_of_two_runs_is_killed_the_other_continues_its_work(fresh, undisturbed):
    folder = fresh()
    first, second = Job(folder), Job(folder)
    time.sleep(3)
    first.kill()
    ended = second.wait()
    assert ended.code == 0, ended.err
    assert_is_undisturbed(folder, undisturbed)


@stress_only
@pytest.mark.parametrize("gone", ["complete.json", "sha256-60.json", "60"])
def test_a_run_killed_around_its_last_checkpoint_writes_it_again(finished, undisturbed, gone):
    (directory,) = (finished / "checkpoints").iterdir()
    names = ("complete.json", "sha256-60.json", "60")  # in the opposite order of writing
    for name in names[: names.index(gone) + 1]:
        if name == "60":
            (directory / name).rename(directory / f"{name}.orbax-checkpoint-tmp")
        else:
            (directory / name).unlink()
    assert_ends_undisturbed(finished, undisturbed)
