"""What a user sees while a command works: log lines, and the progress of long work."""

import logging as python_logging
import os
import sys
import time
from types import TracebackType

from absl import logging
from tqdm import tqdm

_PACKAGE = os.path.dirname(__file__) + os.sep
LOG_SECONDS = 15.0  # between two lines in a log


def set_up_logging() -> None:
    """Log to stderr from INFO on, one short line per event, without the libraries' chatter."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(python_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
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
