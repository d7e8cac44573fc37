"""How a process starts, hears signals, and ends.

Every command runs through `run_command`, so that a user's mistake ends in one sentence everywhere.
"""

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from absl import app, flags, logging

from vae_jax import console
from vae_jax.errors import Preempted, UserError
from vae_jax.parallel import processes, programs

EXIT_PREEMPTED = os.EX_TEMPFAIL  # the same command continues
M_ARENA_MAX = -8  # from glibc's malloc.h


def run_command(
    main: Callable[[Sequence[str]], Any],
    parse_flags: Callable[[Sequence[str]], list[str]] = flags.FLAGS,
) -> None:
    """Run a command's `main` under absl; print what a user can mend as one sentence.

    Parameters
    ----------
    main
        Takes the program's name and the arguments that are not flags.
    parse_flags
        Parses the command line, and returns what `main` takes.
    """
    _share_heaps()
    programs.keep()
    programs.be_exact()
    os.environ["MPLBACKEND"] = "agg"  # a command opens no window, wherever it is told to
    console.set_up_streams()
    console.set_up_logging()
    for number in stopping_signals():
        signal.signal(number, _stop)
    threading.excepthook = _end_with_thread
    sys.unraisablehook = _pass_over_late_writers
    # Ending at once leaves semaphores to Python's resource tracker, which warns as it removes them.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    try:
        app.run(main, flags_parser=lambda argv: parse_flags(argv))
    except SystemExit as ended:
        sys.exit(0 if asks_for_help() else ended.code)  # absl takes --help for a failure
    except (UserError, flags.Error) as error:
        if _shows_tracebacks():
            raise
        _end(1, f"{error}")
    except OSError as error:
        if _shows_tracebacks():
            raise
        _end(1, _sentence(error))
    except Preempted as error:
        logging.warning("%s", error)
        sys.exit(EXIT_PREEMPTED)
    except RuntimeError as error:
        if processes.is_alone():
            _end_with_fault(error)
        if _shows_tracebacks():
            raise
        cause = str(error).partition("\n")[0]
        _end(1, f"another process of the job has ended ({cause}): start the job again.")
    except KeyboardInterrupt:
        _end(EXIT_PREEMPTED, "interrupted; the same command continues.")
    except Exception as error:
        _end_with_fault(error)


def stopping_signals() -> list[signal.Signals]:
    """Return SIGTERM, that of Ctrl-C, and that of a closed terminal unless `nohup` is given."""
    hangs_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangs_up else [])]


class StopRequest:
    """Set by a signal to stop: finish the steps in flight, save and leave."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn signals to stop into a request; a second SIGINT interrupts at once."""
    request, previous = StopRequest(), {}

    def handle(number: int, frame: FrameType | None) -> None:
        request.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():  # as Python demands
        for number in stopping_signals():
            previous[number] = signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _share_heaps() -> None:
    """Let all threads share two heaps; glibc would make up to eight for each core.

    Orbax writes every checkpoint in a dozen new threads, which fragment many heaps. On two cores
    each of the first hundred checkpoints cost 40 KB; with two heaps it costs 3 KB.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _shows_tracebacks() -> bool:
    return "--debug" in sys.argv


def asks_for_help() -> bool:
    """Say whether a flag asks for help, with which absl ends the process as if it had failed."""
    return any(re.fullmatch("--?help(short|full)?", argument) for argument in sys.argv)


def _sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}; run again when that is mended."


def _end_with_thread(failed: threading.ExceptHookArgs) -> None:
    """End when a thread, such as TensorBoard's, cannot write: waiting for it would never end."""
    if isinstance(failed.exc_value, OSError) and not _shows_tracebacks():
        _end(1, _sentence(failed.exc_value))
    threading.__excepthook__(failed)


def _end_with_fault(error: Exception) -> NoReturn:
    """End by an error that no user can mend; threads in the middle of something would wait."""
    sys.stderr.write(console.shown("".join(traceback.format_exception(error))))
    _end(1, f"this {type(error).__name__} is a fault of vae_jax: report it with the lines above.")


def _pass_over_late_writers(unraisable: "sys.UnraisableHookArgs") -> None:
    """Hide the failures of TensorStore's other writes, which end after the first was raised."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _stop(number: int, frame: FrameType | None) -> None:
    """End on a signal; training saves its state instead.

    An exception would not do, since libraries swallow it where they try an import or clean up.
    """
    _end(EXIT_PREEMPTED, "stopped; the same command continues.")


def _end(status: int, sentence: str) -> NoReturn:
    """End at once, since nothing half-written counts.

    Libraries would wait for their threads, which then complain about what is missing.
    """
    with contextlib.suppress(OSError):  # its reader may have gone
        sys.stdout.flush()
        said = f"vae_jax: {console.shown(sentence)}\n"
        os.write(sys.stderr.fileno(), said.encode(errors="backslashreplace"))
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(status)
