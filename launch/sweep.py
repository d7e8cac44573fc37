"""Runs the main job once per combination of config values, and gathers the results.

python launch/sweep.py --config=track --grid=model.latent_dim=8,16 --grid=seed=0,1,2
    [--random=20 --range=train.learning_rate=log:1e-4:1e-2] [--jobs=2] [--slurm] [--dry_run]
    [--outdir=results/sweep] [--config.manifest=PATH/metadata.csv ...] [-- --OPTION=VALUE ...]

Change: --config, the --grid and --range options, and what goes to every run: --config.KEY=VALUE,
and any further options after --.

Every run has its own folder in the outdir, named by its values. The same command continues an
interrupted sweep; finished runs are up to date at once. At the end `sweep.csv` lists the runs,
ranked by validation loss, never by a label, and `comparison.csv` is that of `vae_jax.compare`.

--slurm submits an array of at most --jobs tasks at a time, and a job that gathers afterwards.
Resources come from Slurm's own variables: SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS, ...
"""

import itertools
import logging as python_logging
import math
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from absl import app, flags, logging

from vae_jax import compare, console
from vae_jax.clustering import metrics_file
from vae_jax.errors import Preempted, UserError
from vae_jax.process import stopping_signals
from vae_jax.storage import files
from vae_jax.training import history

CONFIG = flags.DEFINE_string("config", None, "Config of all runs, such as track.")
GRID = flags.DEFINE_multi_string("grid", [], "KEY=VALUE,VALUE,...: a config key and its values.")
RANGE = flags.DEFINE_multi_string("range", [], "KEY=lin|log|int:LOW:HIGH: draw from a range.")
RANDOM = flags.DEFINE_integer("random", None, "Draw so many combinations.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "What --random draws with.")
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time.", lower_bound=1)
OUTDIR = flags.DEFINE_string("outdir", "results/sweep", "Folder of the runs' folders.")
SLURM = flags.DEFINE_bool("slurm", False, "Submit the runs as a Slurm array.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands and stop.")
TASK = flags.DEFINE_bool("task", False, "Run the one that SLURM_ARRAY_TASK_ID numbers.")
GATHER = flags.DEFINE_bool("gather", False, "Gather what has been run, and run nothing.")

PREEMPTED = os.EX_TEMPFAIL  # a run's exit status when the same command continues it
MAX_RESTARTS = 10  # of one preempted run
MAX_NAME = 200  # characters; file systems allow 255
# Keys, or beginnings of keys, that decide what the validation loss measures.
LOSS_KEYS = (
    *("manifest", "feature.", "train.validation_fraction"),
    *("model.name", "model.beta", "model.free_bits", "model.learned_scale"),
)
VALIDATION = {
    "eval/loss": "validation_loss",
    "eval/reconstruction": "validation_reconstruction",
    "eval/kl": "validation_kl",
    "eval/active_units": "active_units",
}


@dataclass(frozen=True)
class Run:
    """One combination of values: its folder and its command."""

    overrides: Mapping[str, str]
    outdir: Path
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.outdir / "sweep.log"

    @property
    def outcome(self) -> Path:
        """How the run ended: its exit status and, if it failed, its last line."""
        return self.outdir / "sweep.json"


def main(argv: Sequence[str]) -> None:
    """Run the sweep, or submit it, or print what either would do."""
    if not CONFIG.value:
        raise UserError("no --config is given: try --config=track.")
    combinations = combine(GRID.value, RANGE.value, RANDOM.value, SEED.value)
    runs = plan(CONFIG.value, combinations, Path(OUTDIR.value), argv[1:])
    if SLURM.value:
        submit(len(runs), JOBS.value, Path(OUTDIR.value), DRY_RUN.value)
    elif DRY_RUN.value:
        print("\n".join(shlex.join(run.command) for run in runs))
    elif TASK.value:
        # Slurm signals all processes of a task itself.
        execute([runs[int(os.environ["SLURM_ARRAY_TASK_ID"])]], 1, forward=False)
    else:
        if not GATHER.value:
            execute(runs, JOBS.value, forward=True)
        gather(runs, Path(OUTDIR.value))


def combine(
    grid: Sequence[str], ranges: Sequence[str], count: int | None, seed: int
) -> list[dict[str, str]]:
    """Return the combinations of values, by key: all of the grid, or `count` drawn ones.

    A larger count keeps what a smaller one draws, so that a sweep can be extended.
    """
    values = dict(_split(spec, "--grid=KEY=VALUE,VALUE") for spec in grid)
    limits = dict(_split(spec, "--range=KEY=log:LOW:HIGH") for spec in ranges)
    keys = [*values, *limits]
    if not keys:
        raise UserError("nothing varies: give --grid=KEY=VALUE,VALUE or --range=KEY=log:LOW:HIGH.")
    if len(set(keys)) < len(grid) + len(ranges):
        raise UserError("a key is given twice: name each key in one --grid or --range.")
    if limits and count is None:
        raise UserError("--range needs --random=COUNT, the number of combinations to draw.")
    # A comma inside brackets belongs to the value.
    choices = {key: re.split(r",(?![^()\[\]]*[)\]])", text) for key, text in values.items()}
    rng = random.Random(seed)
    if count is None or not limits:
        drawn = list(itertools.product(*choices.values()))
        if count is not None:
            rng.shuffle(drawn)
        return [dict(zip(keys, row, strict=True)) for row in drawn[:count]]
    rows = [
        (*(rng.choice(options) for options in choices.values()), *_draw(rng, limits))
        for _ in range(count)
    ]
    return [dict(zip(keys, row, strict=True)) for row in dict.fromkeys(rows)]


def plan(
    config: str, combinations: Sequence[Mapping[str, str]], outdir: Path, rest: Sequence[str]
) -> list[Run]:
    """Return a run per combination; `rest` are further options of every run."""
    given = [argument.lstrip("-").partition("=")[0] for argument in rest]
    for name in ("config", "outdir", *(f"config.{key}" for key in combinations[0])):
        if name in given:
            raise UserError(f"--{name} is set by the sweep: remove it from the runs' options.")
    runs = []
    for overrides in combinations:
        folder = outdir / _name(overrides)
        command = [sys.executable, "-m", "vae_jax.main", f"--config={config}"]
        command += [f"--config.{key}={value}" for key, value in overrides.items()]
        runs.append(Run(overrides, folder, (*command, f"--outdir={folder}", *rest)))
    [(folder, uses)] = Counter(run.outdir for run in runs).most_common(1)
    if uses > 1:
        raise UserError(f"{uses} combinations would share {folder}: give each value once.")
    return runs


def execute(runs: Sequence[Run], jobs: int, forward: bool) -> None:
    """Run processes, `jobs` at a time; preempted ones again; write down how each ends.

    Parameters
    ----------
    forward
        Whether to pass signals to stop on to the processes; otherwise they get them themselves.

    Raises
    ------
    Preempted
        After a signal to stop, once all processes have ended.
    """
    waiting, running = deque(runs), dict[subprocess.Popen, Run]()
    restarts: Counter[Path] = Counter()
    with _stop_signals(running, forward) as stops:
        while running or (waiting and not stops):
            while waiting and len(running) < jobs and not stops:
                run = waiting.popleft()
                logging.info("started: %s", run.outdir.name)
                running[_start(run, own_session=forward)] = run
            time.sleep(0.05)
            for process in [process for process in running if process.poll() is not None]:
                run = running.pop(process)
                if process.returncode == PREEMPTED and stops:
                    continue  # unfinished
                if process.returncode == PREEMPTED and restarts[run.outdir] < MAX_RESTARTS:
                    restarts[run.outdir] += 1
                    waiting.appendleft(run)
                    continue
                _write_outcome(run, process.returncode)
                left = len(waiting) + len(running)
                ended = f"ended with status {process.returncode}" if process.returncode else "done"
                logging.info("%s: %s; %d left", ended, run.outdir.name, left)
    if stops:
        raise Preempted("the sweep was stopped; the same command continues it.")


def gather(runs: Sequence[Run], outdir: Path) -> None:
    """Write `sweep.csv` and `comparison.csv`; print the ranking and the comparison.

    Raises
    ------
    UserError
        If a run has failed; the message lists them all, with their last lines.
    """
    rows: list[Mapping[str, Any]] = []
    failures = []
    for run in runs:
        outcome = {"status": None, "error": "it has not ended"}
        if run.outcome.exists():
            outcome = files.read_json(run.outcome)
        rows.append({"run": run.outdir.name, **outcome, **run.overrides, **_validation(run)})
        if outcome["status"] != 0:
            failures.append(f"  {run.outdir.name}: {outcome['error']} ({run.log})")
    rows = rank(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    files.write_csv(outdir / "sweep.csv", columns, rows)
    finished = [run.outdir for run in runs if (run.outdir / metrics_file.NAME).exists()]
    if finished:
        compare.main([str(path) for path in finished], str(outdir / "comparison.csv"), "latest")
    print(f"\n{ranking(rows)}\n\nWritten: {outdir}/*.csv")
    if failures:
        raise UserError("\n".join([f"{len(failures)} of {len(runs)} runs failed:", *failures]))


def rank(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort by validation loss, among runs whose losses measure the same; others come last."""

    def order(row: Mapping[str, Any]) -> Any:
        loss = row.get("validation_loss")
        return groups.index(_loss_group(row)), math.inf if loss is None else loss

    groups = list(dict.fromkeys(_loss_group(row) for row in rows))
    return sorted(rows, key=order)


def ranking(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out ranked rows for a terminal, with a blank line where losses stop being comparable."""
    lines = ["validation loss (nats per track, lower is better; compare within a block only)"]
    for _, group in itertools.groupby(rows, key=_loss_group):
        for row in group:
            loss = row.get("validation_loss")
            lines.append(f"  {'-' if loss is None else format(loss, '.5g'):>10}  {row['run']}")
        lines.append("")
    return "\n".join(lines[:-1])


def submit(count: int, jobs: int, outdir: Path, dry_run: bool) -> None:
    """Submit an array that makes the runs, and a job that gathers after it."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)

    def again(flag: str) -> str:
        options = [*sys.argv[:end], "--noslurm", "--nodry_run", flag]
        return shlex.join([sys.executable, *options, *sys.argv[end:]])

    one = '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
    task = f"srun --ntasks=1 {again('--task')}; status=$?"
    task += f"; [ $status -ne {PREEMPTED} ] || scontrol requeue {one}; exit $status"
    array = ["sbatch", "--parsable", "--job-name=vae_jax-sweep", f"--array=0-{count - 1}%{jobs}"]
    array += ["--requeue", "--open-mode=append", "--signal=TERM@300"]
    array += [f"--output={outdir}/slurm-%A_%a.log", f"--wrap={task}"]
    after = ["sbatch", "--parsable", "--job-name=vae_jax-gather", f"--output={outdir}/gather.log"]
    after += [f"--wrap={again('--gather')}", "--dependency=afterany:"]
    if dry_run:
        after[-1] += "ARRAY_JOB_ID"
        print(f"{shlex.join(array)}\n{shlex.join(after)}")
        return
    try:
        outdir.mkdir(parents=True, exist_ok=True)  # Slurm makes no folder for its logs
    except OSError as error:
        raise UserError(
            f"cannot make {outdir}: {error.strerror}; name another --outdir."
        ) from error
    after[-1] += _sbatch(array)
    logging.info("submitted %d runs; %s/gather.log will say how they ended", count, outdir)
    _sbatch(after)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parse the sweep's own flags; return what is left, which goes to every run."""
    end = argv.index("--") if "--" in argv else len(argv)
    keys = [argument for argument in argv[:end] if re.match("--?config[.]", argument)]
    own = [argument for argument in argv[:end] if argument not in keys]
    return [*flags.FLAGS([*own, *argv[end:]]), *keys]


def _split(spec: str, usage: str) -> tuple[str, str]:
    key, _, text = spec.partition("=")
    if not re.fullmatch(r"[a-z]\w*(\.\w+)*", key) or not text:
        raise UserError(f"{spec!r} is not understood: write {usage}.")
    return key, text


def _draw(rng: random.Random, limits: Mapping[str, str]) -> Iterator[str]:
    for key, text in limits.items():
        try:
            kind, *bounds = text.split(":")
            low, high = (int(bound) if kind == "int" else float(bound) for bound in bounds)
            if not low < high or (kind == "log" and low <= 0):
                raise ValueError
            yield {
                "lin": lambda low=low, high=high: f"{rng.uniform(low, high):.4g}",
                "log": lambda low=low, high=high: f"{low * (high / low) ** rng.random():.4g}",
                "int": lambda low=low, high=high: str(rng.randint(int(low), int(high))),
            }[kind]()
        except (KeyError, ValueError) as error:
            raise UserError(
                f"--range={key}={text} is not understood: write lin:LOW:HIGH, log:LOW:HIGH (above "
                "0) or int:LOW:HIGH, with LOW below HIGH."
            ) from error


def _name(overrides: Mapping[str, str]) -> str:
    text = ",".join(f"{key}={value}" for key, value in overrides.items())
    name = re.sub(r"[^\w.=,+-]+", "_", text)
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}-{files.fingerprint(text)}"


def _start(run: Run, own_session: bool) -> subprocess.Popen:
    with _log(run) as log:
        return subprocess.Popen(
            run.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=own_session,  # so that a terminal's Ctrl-C reaches only this process
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # the log keeps the order of its lines
        )


def _log(run: Run) -> BinaryIO:
    """Open what a run prints, in its folder, which is made if it is missing."""
    try:
        run.outdir.mkdir(parents=True, exist_ok=True)
        return open(run.log, "ab")
    except OSError as error:
        raise UserError(
            f"cannot write {run.log}: {error.strerror}; name another --outdir."
        ) from error


@contextmanager
def _stop_signals(
    running: Mapping[subprocess.Popen, Run], forward: bool
) -> Iterator[list[signal.Signals]]:
    """Collect signals to stop; pass the first on as SIGTERM, and let the second kill."""
    stops: list[signal.Signals] = []

    def handle(number: int, _: Any) -> None:
        stops.append(signal.Signals(number))
        if not forward:
            return
        if len(stops) == 1:
            logging.warning("stopping %d runs; once more to kill them", len(running))
        for process in list(running):
            if process.poll() is None and len(stops) == 1:
                process.terminate()
            elif process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)

    previous = {number: signal.signal(number, handle) for number in stopping_signals()}
    try:
        yield stops
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _write_outcome(run: Run, status: int) -> None:
    lines = run.log.read_bytes().decode(errors="replace").split("\n") if status else []
    error = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    files.write_json(run.outcome, {"status": status, "error": error if status else ""})


def _validation(run: Run) -> dict[str, Any]:
    """Return the metrics of the evaluation with the lowest validation loss, if there is one."""
    lines = history.read(run.outdir / history.FILE)
    scored = [line for line in lines if line.get("eval/loss") is not None]
    best = min(scored, key=lambda line: line["eval/loss"], default={})
    return {column: best.get(name) for name, column in VALIDATION.items()}


def _loss_group(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(value for key, value in row.items() if key.startswith(LOSS_KEYS))


def _sbatch(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise UserError("sbatch is not installed here: leave out --slurm.") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch failed with status {error.returncode}.") from error
    return done.stdout.strip().partition(";")[0]  # JOB_ID[;CLUSTER]


def run() -> None:
    """Parse the flags and sweep; print what a user can mend without a traceback."""
    console.set_up_streams()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    formatter = python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    logging.get_absl_handler().setFormatter(formatter)
    try:
        app.run(main, flags_parser=_parse_flags)
    except (UserError, flags.Error) as error:
        sys.exit(f"vae_jax: {console.shown(str(error))}")
    except Preempted as error:
        logging.warning("%s", error)
        sys.exit(PREEMPTED)


if __name__ == "__main__":
    run()
