"""Runs the stages of a config.

python -m vae_jax.main --config=configs/mlp.py --config.manifest=PATH/metadata.csv
    [--config.KEY=VALUE ...] [--outdir=DIR] [--stage=STAGE] [--checkpoint=DIR]
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from vae_jax import config as config_lib
from vae_jax import console, report
from vae_jax.errors import Preempted, UserError
from vae_jax.parallel import processes
from vae_jax.stages import runner

OUTDIR = flags.DEFINE_string("outdir", None, "Folder for results; default: results/<config.name>.")
STAGE = flags.DEFINE_enum("stage", "all", ["all", *runner.STAGES], "The stage to run.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "Folder of checkpoints to embed with, instead of training. Its config is used, unless "
    "--config names another; --config.manifest names the tracks.",
)
BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options",
    "",
    "Options of the Beam pipeline of --config.feature.runner=beam, such as '--runner=FlinkRunner'.",
)
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    None,
    "Be one process of a job that Slurm, Open MPI, GKE or a Cloud TPU describes. The default is to "
    "be so where the environment tells of several processes.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of the job's first process, where nothing tells it."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job.", 1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's number, from 0.", 0)
EXIT_PREEMPTED = os.EX_TEMPFAIL  # the same command continues
M_ARENA_MAX = -8  # of glibc's malloc.h


def main(argv: Sequence[str]) -> None:
    """Resolve the config and run the stages."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: options are written --name=value.")
    config = flags.FLAGS.config
    if config is None:
        raise UserError("no --config is given: try --config=configs/demo.py.")
    config_lib.validate(config)
    if PRINT_CONFIG.value:
        print(json.dumps(config_lib.to_dict(config), indent=2))
        return
    outdir = Path(OUTDIR.value or f"results/{config.name}")
    checkpoint = Path(CHECKPOINT.value) if CHECKPOINT.value else None
    names = list(runner.STAGES) if STAGE.value == "all" else [STAGE.value]
    is_part = processes.is_described() if DISTRIBUTED.value is None else DISTRIBUTED.value
    place = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if is_part or any(value is not None for value in place):
        processes.start(*place)
    if not processes.is_first():
        runner.help_the_first(config, outdir, names, checkpoint)
        return
    done = runner.run(config, outdir, names, checkpoint, BEAM_OPTIONS.value)
    print(report.report(outdir, done.folders()))


def define_config(argv: Sequence[str]) -> str:
    """Define --config: a file, or the config inside --checkpoint where no file is given.

    Returns the config's name, for messages.
    """
    given = flags.FlagValues()
    for name in ("config", "checkpoint"):
        flags.DEFINE_string(name, None, "", flag_values=given)
    given([argv[0], *argv[1:]], known_only=True)
    path = (given.config or "").split(":")[0]
    if path and not Path(path).is_file():
        raise UserError(f"--config={path} is not a file: name one of configs/*.py, or your own.")
    if given.checkpoint and not given.config:
        from vae_jax.training import checkpoints

        directory = Path(given.checkpoint)
        metadata = checkpoints.read_metadata(directory, checkpoints.best_step(directory))
        config_flags.DEFINE_config_dict("config", config_lib.from_dict(metadata["config"]))
        return f"the config in {directory}"
    config_flags.DEFINE_config_file("config", None, "Config file, such as configs/mlp.py.")
    return f"the config {path}"


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse the command line; whatever is wrong with it is a `UserError`."""
    name = define_config(argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    except Exception as error:  # a config file is a program, which can fail in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{name}, or what the command line sets in it, fails ({reason})."
        ) from error


def run() -> None:
    """Run `main` under absl; print what a user can mend as one sentence."""
    _share_heaps()
    console.set_up_logging()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    threading.excepthook = _end_with_thread
    sys.unraisablehook = _pass_over_late_writers
    # Ending at once leaves semaphores to Python's resource tracker, which warns as it removes them.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    try:
        app.run(main, flags_parser=lambda argv: parse_flags(argv))
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        _end(1, f"{error}")
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        _end(1, _sentence(error))
    except Preempted as error:
        logging.warning("%s", error)
        sys.exit(EXIT_PREEMPTED)
    except RuntimeError as error:
        if processes.is_alone() or "--debug" in sys.argv:
            raise
        cause = str(error).partition("\n")[0]
        _end(1, f"another process of the job has ended ({cause}): start the job again.")
    except KeyboardInterrupt:
        _end(EXIT_PREEMPTED, "interrupted; the same command continues.")


def _share_heaps() -> None:
    """Let all threads share two heaps; glibc would make up to eight for each core.

    Orbax writes every checkpoint in a dozen new threads. Of many heaps these fragment now one, now
    another: 40 KB with each of the first hundred checkpoints, on two cores, of two heaps 3 KB.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}; run again when that is mended."


def _end_with_thread(failed: threading.ExceptHookArgs) -> None:
    """End when a thread cannot write, as TensorBoard's: who waits for it would wait for ever."""
    if isinstance(failed.exc_value, OSError) and "--debug" not in sys.argv:
        _end(1, _sentence(failed.exc_value))
    threading.__excepthook__(failed)


def _pass_over_late_writers(unraisable: "sys.UnraisableHookArgs") -> None:
    """Say nothing of TensorStore's other writes, which end after the one that failed was raised."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _stop(number: int, frame: FrameType | None) -> None:
    """End on a signal; training saves its state instead.

    An exception would not do: libraries swallow it where they try an import or clean up.
    """
    _end(EXIT_PREEMPTED, "stopped; the same command continues.")


def _end(status: int, sentence: str) -> NoReturn:
    """End at once, since nothing half-written counts.

    Libraries would wait for their threads, and these complain of what they then miss.
    """
    # Names of files may be anybody's, and would speak to the terminal.
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in sentence)
    os.write(sys.stderr.fileno(), f"vae_jax: {shown}\n".encode(errors="backslashreplace"))
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(status)


if __name__ == "__main__":
    run()
