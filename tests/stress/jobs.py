"""The main job as the stress tests start it: on a small collection, in a process group of its own.

`launch/stress.sh` sets `VAE_JAX_STRESS` to "short" or "long"; without it, as part of the whole
test suite, only a handful of cases run.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vae_jax.storage import files
from vae_jax.training import checkpoints, history

LONG = os.environ.get("VAE_JAX_STRESS") == "long"
SHORT = LONG or os.environ.get("VAE_JAX_STRESS") == "short"
stress_only = pytest.mark.skipif(not SHORT, reason="launch/stress.sh runs it")
long_only = pytest.mark.skipif(not LONG, reason="launch/stress.sh long runs it")
CONFIGS = Path(__file__).parents[2] / "configs"
STAGES = ("features", "train", "embed", "cluster", "visualize")
SMALL = (
    f"--config={CONFIGS / 'mlp.py'}",
    "--config.manifest=music/metadata.csv",
    "--config.feature.sample_rate=8000",
    "--config.feature.duration=1.0",
    "--config.feature.shard_size=4",
    "--config.model.latent_dim=2",
    "--config.model.hidden_dims=(16,)",
    "--config.train.num_steps=60",
    "--config.train.batch_size=8",
    "--config.train.log_every=5",
    "--config.train.eval_every=10",
    "--config.train.checkpoint_every=10",
    "--config.cluster.num_clusters=3",
    "--config.cluster.num_seeds=2",
    "--config.visualize.method=pca",
    "--outdir=results",
)
TEMPORARY = re.compile(r"^\.vae_jax-.*\.tmp$|orbax-checkpoint-tmp|incomplete")


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    code: int
    out: str
    err: str

    @property
    def stages(self) -> dict[str, str]:
        """Which stages ended, and whether they were done or up to date."""
        return stages(self.err)

    @property
    def is_one_sentence(self) -> bool:
        """Whether it failed with one line for the user, below what was logged."""
        said = [line for line in self.err.splitlines() if line.startswith("vae_jax: ")]
        return self.code == 1 and len(said) == 1 and "Traceback" not in self.err


def stages(err: str) -> dict[str, str]:
    return dict(re.findall(r" (\w+): (done|up to date) \(", err))


class Job:
    """A running main job; everything that it started is in its process group."""

    def __init__(self, folder: Path, *arguments: str, kib: int | None = None) -> None:
        self.folder = folder
        self._log = folder.parent / f"{folder.name}-log-{time.monotonic_ns()}.txt"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [*limited(kib), sys.executable, "-m", "vae_jax.main", *SMALL, *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def err(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def wait_for_stage(self, stage: str) -> None:
        """Return when the stage has begun, or the job has ended."""
        before = STAGES[: STAGES.index(stage)]
        while self.process.poll() is None and not set(before) <= stages(self.err).keys():
            time.sleep(0.005)

    def kill(self, everything: bool = True) -> None:
        """Kill the whole group, or the first process alone; one that has ended stays as it is."""
        if everything:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()

    def wait(self, timeout: float = 180) -> Ended:
        """Wait for its end."""
        try:
            out, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Ended(self.process.returncode, out, self.err)

    def others(self) -> list[int]:
        """Return the processes of its group beside the first that are alive."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = path.read_text().rsplit(")", 1)[1].split()[:3]
            except OSError:
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(path.parent.name))
        return sorted(set(found) - {self.process.pid})


def limited(kib: int | None) -> list[str]:
    """Return what to put before a command so that no file it writes, but its log, grows beyond."""
    log = "2> >(ulimit -S -f unlimited; exec cat >&2)"
    return ["bash", "-c", f'ulimit -S -f {kib}; exec "$@" {log}', "bash"] if kib else []


def run(folder: Path, *arguments: str, kib: int | None = None) -> Ended:
    """Run the main job to its end; no file that it writes may be larger than `kib` KiB."""
    return Job(folder, *arguments, kib=kib).wait()


def outcome(folder: Path, results: str = "results") -> dict[str, Any]:
    """Return all that a run computes, without times: equal runs give equal values."""
    outdir = folder / results
    return {
        **_records(folder),
        **_checkpoints(folder),
        **_embeddings(outdir),
        "clusters": (outdir / "clusters.csv").read_bytes(),
        "metrics": _without(files.read_csv(outdir / "clustering_metrics.csv"), "time"),
        "training": _training(outdir / "train_metrics.jsonl"),
        "failed": (outdir / "failed.csv").read_bytes(),
        "plots": sorted(path.name for path in (outdir / "latent_visualization").iterdir()),
    }


def temporary_files(folder: Path) -> list[Path]:
    """Return what writing left unfinished."""
    return [path for path in folder.rglob("*") if TEMPORARY.search(path.name)]


def finished_shards(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the shards whose markers exist, and what changes when they are written again."""
    found = {}
    for marker in folder.glob("data/records/*/shard-*.json"):
        shard = marker.with_name("tracks-train.tfrecord-" + marker.stem.removeprefix("shard-"))
        state = shard.stat()
        found[shard.name] = (state.st_ino, state.st_mtime_ns)
    return found


def damageable(folder: Path) -> list[Path]:
    """Return every file that a run has written and that a later one reads."""
    mine = ("data", "checkpoints", "results")
    paths = [path for name in mine for path in (folder / name).rglob("*") if path.is_file()]
    unread = ("tensorboard", ".lock", "config.json")
    return sorted(path for path in paths if not set(unread) & set(path.parts))


def _records(folder: Path) -> dict[str, Any]:
    (directory,) = (folder / "data" / "records").iterdir()
    kept = [path for path in directory.iterdir() if "tfrecord" in path.name]
    index = files.read_npz(directory / "index.npz")
    return {
        **{path.name: path.read_bytes() for path in kept},
        **{f"index/{name}": array.tobytes() for name, array in index.items()},
        "statistics": json.loads((directory / "statistics.json").read_bytes())["statistics"],
        "dataset_info": (directory / "dataset_info.json").read_bytes(),
    }


def _checkpoints(folder: Path) -> dict[str, Any]:
    (directory,) = (folder / "checkpoints").iterdir()
    best, latest = checkpoints.best_step(directory), checkpoints.steps_in(directory)[-1]
    found: dict[str, Any] = {"best step": best, "latest step": latest}
    for step in {best, latest}:
        leaves = _leaves(checkpoints.restore_params(directory, step))
        found |= {f"params/{step}/{name}": array.tobytes() for name, array in leaves}
    return found


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(tree, dict):
        yield name, np.asarray(tree)
        return
    for key in sorted(tree):
        yield from _leaves(tree[key], f"{name}/{key}")


def _embeddings(outdir: Path) -> dict[str, bytes]:
    return {
        f"{path.stem}/{name}": array.tobytes()
        for path in [outdir / "latents.npz", *sorted((outdir / "baselines").glob("*.npz"))]
        for name, array in files.read_npz(path).items()
    }


def _training(path: Path) -> list[dict[str, Any]]:
    return _without(history.read(path), "train/steps_per_second")


def _without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in names} for row in rows]
