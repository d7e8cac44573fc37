"""What a user sees while a command works: log lines, the progress of long work, and its output.

Names may be anybody's: what controls a terminal is shown as an escape.
"""

import contextlib
import io
import logging as python_logging
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO, cast

from absl import logging
from tqdm import tqdm

_PACKAGE = os.path.dirname(__file__) + os.sep
LOG_SECONDS = 15.0  # between two lines in a log


def shown(text: str) -> str:
    """Return a text whose characters a terminal shows, and none that it obeys."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(c if _is_shown(c) else ascii(c)[1:-1] for c in text)


def _is_shown(character: str) -> bool:
    """Say whether a character is shown: also spaces of all widths, and joiners inside words."""
    return (
        character.isprintable()
        or character in "\n\u200c\u200d"
        or unicodedata.category(character) == "Zs"
    )


class _Stream:
    """A standard stream that takes any text, also in ASCII, and whose reader may leave, as `head`.

    Parameters
    ----------
    stream
        The stream of Python.
    convert
        Returns what is written instead of a text.
    """

    def __init__(self, stream: io.TextIOWrapper, convert: Callable[[str], str] = str) -> None:
        stream.reconfigure(errors="backslashreplace")
        self._stream, self._convert = stream, convert

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; once nobody reads on, it goes nowhere."""
        with self._while_read():
            self._stream.write(self._convert(text))
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        with self._while_read():
            self._stream.flush()

    @contextlib.contextmanager
    def _while_read(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def set_up_streams() -> None:
    """Let standard streams take any text and lose their readers, and replace those that are closed.

    The next file that is opened would take a closed one's number, and receive what libraries say.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w" if number else "r")  # noqa: SIM115 (open to the end)
            setattr(sys, name, stream)
            try:
                os.fstat(number)
            except OSError:
                os.dup2(stream.fileno(), number)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = cast(TextIO, _Stream(sys.stdout, shown))
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = cast(TextIO, _Stream(sys.stderr))


class _Formatter(python_logging.Formatter):
    """Formats log lines that leave the terminal as it is."""

    def format(self, record: python_logging.LogRecord) -> str:
        return shown(super().format(record))


def set_up_logging() -> None:
    """Log to stderr from INFO on, one short line per event, without the libraries' chatter."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.python_handler.setStream(sys.stderr)
    handler.addFilter(_is_ours)


def _is_ours(record: python_logging.LogRecord) -> bool:
    """Keep our own lines, and others' warnings: Orbax logs thirty lines per checkpoint.

    It logs exceptions as well, four times, which it raises afterwards.
    """
    is_warning = record.levelno >= python_logging.WARNING and not record.exc_info
    return record.pathname.startswith(_PACKAGE) or is_warning


class Progress:
    """Progress of long work: a bar with rate and ETA on a terminal, now and then a log line.

    Counts finished units of work; use as a context manager.

    Parameters
    ----------
    what
        What is being done, such as "features".
    total
        Number of units.
    unit
        The unit's name, such as "tracks".
    done
        Units that an earlier run had finished.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._started, self._first, self._logged = time.monotonic(), done, time.monotonic()
        self._bar = tqdm(
            total=total,
            desc=what,
            unit=f" {unit}",
            initial=done,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` units are finished in all."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        if self._bar.disable and (now - self._logged >= LOG_SECONDS) and done < self.total:
            self._logged = now
            rate = (done - self._first) / (now - self._started)
            left = f", {(self.total - done) / rate:.0f} s left" if rate else ""
            logging.info(
                "%s: %d of %d %s (%.3g/s%s) %s",
                *(self.what, done, self.total, self.unit, rate, left, note),
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
