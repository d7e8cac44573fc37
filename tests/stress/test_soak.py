"""Training for as long as one likes takes no more memory and no more descriptors."""

import signal
import time

import numpy as np
import psutil

from tests.stress.jobs import LONG, Job, run, stress_only

SECONDS = 1800 if LONG else 60
WARM_UP = 300 if LONG else 30  # compilation, allocator, the first checkpoints to be removed
EVERY = 5 if LONG else 1
GROWTH = 0.02
ENDLESS = (
    "--stage=train",
    "--config.train.num_steps=1_000_000_000",
    "--config.train.log_every=50",
    "--config.train.eval_every=100",
    "--config.train.checkpoint_every=5000",
)


@stress_only
def test_training_grows_neither_in_memory_nor_in_descriptors(fresh):
    folder = fresh()
    assert run(folder, "--stage=features").code == 0
    job = Job(folder, *ENDLESS)
    process, started, samples = psutil.Process(job.process.pid), time.monotonic(), []
    while (seconds := time.monotonic() - started) < SECONDS and job.process.poll() is None:
        memory = process.memory_info()
        # The kernel maps and drops files, such as libraries, as it likes.
        samples.append((seconds, (memory.rss - memory.shared) / 2**20, process.num_fds()))
        time.sleep(EVERY)
    job.process.send_signal(signal.SIGTERM)
    ended = job.wait(timeout=60)
    assert "training stopped at step" in ended.err, ended.err
    times, mib, descriptors = np.array([row for row in samples if row[0] >= WARM_UP]).T
    quarter = len(mib) // 4
    first, last = np.median(mib[:quarter]), np.median(mib[-quarter:])
    slope = 60 * np.polyfit(times, mib, 1)[0]
    counts = {int(count): int(np.sum(descriptors == count)) for count in set(descriptors)}
    print(f"{first:.1f} -> {last:.1f} MiB, {slope:+.3f} MiB/min; descriptors {counts}")
    print(ended.err.splitlines()[-1])
    assert last < (1 + GROWTH) * first, samples
    # A checkpoint that is being written has files open; those at rest are always as many.
    at_rest = descriptors[:quarter].min(), descriptors[-quarter:].min()
    assert at_rest[0] == at_rest[1], samples
