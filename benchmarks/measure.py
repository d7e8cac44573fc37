"""Races tasks against each other, each in a process of its own, and keeps the score.

The topics of `benchmarks.run` describe tasks, race them, and turn their times into lines.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vae_jax.parallel.cores import num_cores

MIB = 2**20
SAMPLING_SECONDS = 0.02  # between two looks at the memory
PACKAGES = ("jax", "flax", "numpy", "scikit-learn", "librosa", "torch", "tensorflow-cpu")


@dataclass(frozen=True)
class Task:
    """What one side does.

    Attributes
    ----------
    make
        A function of a module, called in the task's process, that returns what is timed: a
        function, which is called once to warm up and then once per repeat.
    arguments
        The arguments of `make`.
    cores
        How many cores the process may use; None for all.
    threads
        The threads of BLAS, OpenMP and XLA, each; None for as many as cores.
    """

    make: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()
    cores: int | None = None
    threads: int | None = None


@dataclass
class Timing:
    """What a race measured of one task.

    Attributes
    ----------
    seconds
        The time of each repeat.
    memory
        Peak of the process and its children while the task ran, MiB.
    results
        What each repeat returned.
    """

    seconds: list[float] = field(default_factory=list)
    memory: float = 0.0
    results: list[Any] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median time in seconds."""
        return float(np.median(self.seconds))

    def speed_against(self, other: "Timing") -> float:
        """Return how many times faster than another task, the median over interleaved repeats."""
        return float(np.median(np.divide(other.seconds, self.seconds)))


@dataclass(frozen=True)
class Line:
    """One measured fact.

    Attributes
    ----------
    what
        What was done.
    ours
        Our rate, or our time where the unit is s.
    unit
        The unit of `ours`, `peer` and `bound`.
    peer, peer_name
        What a peer reaches at the same.
    ratio
        How many times better than the peer.
    bound, bound_name
        What nothing could exceed here.
    memory
        Our peak, MiB.
    goals
        Limits of `ours`, `ratio`, `fraction` (at least; a time at most) and `memory` (at most).
    """

    what: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    bound: float | None = None
    bound_name: str = ""
    memory: float | None = None
    goals: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_time(self) -> bool:
        """Whether less is better."""
        return self.unit in ("s", "compilations", "modules")

    @property
    def fraction(self) -> float | None:
        """The fraction of the bound that is reached."""
        if self.bound is None:
            return None
        return self.bound / self.ours if self.is_time else self.ours / self.bound

    def cells(self) -> list[str]:
        """Return the row of a table, as `COLUMNS` names it."""
        return [
            self.what,
            f"{self.ours:.3g} {self.unit}",
            _cell(self.peer, " " + self.peer_name),
            _cell(self.ratio, "x"),
            _cell(self.bound, " " + self.bound_name),
            _cell(self.fraction),
            _cell(self.memory, " MiB", digits=0),
            ", ".join(self._judged(name, goal) for name, goal in self.goals.items()),
        ]

    def _judged(self, name: str, goal: float) -> str:
        value, at_most = getattr(self, name), name == "memory" or (name == "ours" and self.is_time)
        if value is None:
            return f"{name}: no peer here"
        met = value <= goal if at_most else value >= goal
        return f"{name} {'≤' if at_most else '≥'} {goal:g}: {'met' if met else 'MISSED'}"


COLUMNS = ("what", "ours", "peer", "ratio", "bound", "of bound", "peak memory", "goals")


def race(tasks: Mapping[str, Task], repeats: int) -> dict[str, Timing]:
    """Time tasks one after the other, again and again: A B A B.

    While one runs the others wait, in processes of their own, so that neither their threads nor
    their memory are in the way.
    """
    timings = {name: Timing() for name in tasks}
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(_started(task)) for name, task in tasks.items()}
        for _ in range(repeats):
            for name, (process, connection) in processes.items():
                connection.send(True)
                while not connection.poll(SAMPLING_SECONDS):
                    timings[name].memory = max(timings[name].memory, memory_of(process.pid))
                seconds, result = connection.recv()
                timings[name].seconds.append(seconds)
                timings[name].results.append(result)
                timings[name].memory = max(timings[name].memory, memory_of(process.pid))
    return timings


def compared(
    what: str,
    amount: float,
    unit: str,
    timings: Mapping[str, Timing],
    ours: str,
    *,
    peer: str | None = None,
    bound: str | None = None,
    goals: Mapping[str, float] | None = None,
) -> Line:
    """Return the line of a race: rates of `amount` per repeat, with names of `timings`.

    A peer or bound that did not take part is left empty.
    """
    mine, other, limit = timings[ours], timings.get(peer or ""), timings.get(bound or "")
    return Line(
        what,
        amount / mine.median,
        unit,
        peer=amount / other.median if other else None,
        peer_name=(peer or "") if other else "",
        ratio=mine.speed_against(other) if other else None,
        bound=amount / limit.median if limit else None,
        bound_name=(bound or "") if limit else "",
        memory=mine.memory,
        goals=goals or {},
    )


def run_command(command: Sequence[str], cwd: Path) -> tuple[float, float, int, str]:
    """Run a command; return its seconds, peak memory in MiB, exit status and output."""
    started, peak = time.perf_counter(), 0.0
    with open(cwd / "log", "w+") as log:
        process = psutil.Popen(command, cwd=cwd, stdout=log, stderr=log)
        while True:
            try:
                process.wait(SAMPLING_SECONDS)
                break
            except psutil.TimeoutExpired:
                peak = max(peak, memory_of(process.pid))
        seconds = time.perf_counter() - started
        log.seek(0)
        return seconds, peak, process.returncode, log.read()


def memory_of(pid: int | None) -> float:
    """Return the resident memory of a process and its children, MiB."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss / MIB
    return total


def has(package: str) -> bool:
    """Say whether a peer is installed."""
    return importlib.util.find_spec(package) is not None


def machine() -> str:
    """Describe the machine, its software and how busy it is, in Markdown."""
    versions = []
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    load = os.getloadavg()[0]
    return (
        f"{_cpu_model()}, {num_cores()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"Python {platform.python_version()}, {', '.join(versions)}; "
        f"load average at start {load:.1f}" + (" (BUSY: times are noisy)" if load > 1 else "")
    )


def table(lines: Sequence[Line]) -> str:
    """Return lines as a Markdown table."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(line.cells() for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@contextlib.contextmanager
def _started(task: Task) -> Iterator[tuple[Any, Connection]]:
    """Start a task's process and wait until it is warm; end it afterwards."""
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task))
    with _limits(task):
        process.start()
    theirs.close()
    try:
        connection.recv()
        yield process, connection
    except EOFError:
        raise RuntimeError(f"{task.make.__name__} failed; its traceback is above") from None
    finally:
        _end(process.pid)
        process.join()


def _serve(connection: Connection, task: Task) -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the tasks of a race share a GPU
    run = task.make(*task.arguments)
    run()
    connection.send(None)
    while connection.recv():
        started = time.perf_counter()
        result = run()
        connection.send((time.perf_counter() - started, result))


def _end(pid: int | None) -> None:
    """Kill a process and its children: a pool inside it would wait for more work for ever."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


@contextlib.contextmanager
def _limits(task: Task) -> Iterator[None]:
    """Limit what a process that is started now may use; libraries look when they are imported."""
    affinity, environment = os.sched_getaffinity(0), os.environ.copy()
    cores = sorted(affinity)[: task.cores]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):
        os.environ[name] = str(task.threads or len(cores))
    try:
        os.sched_setaffinity(0, cores)
        yield
    finally:
        os.sched_setaffinity(0, affinity)
        os.environ.clear()
        os.environ.update(environment)


def _cell(value: float | None, after: str = "", digits: int | None = None) -> str:
    if value is None:
        return ""
    return (f"{value:.3g}" if digits is None else f"{value:.{digits}f}") + after.rstrip()


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
