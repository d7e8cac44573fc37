"""Training metrics: one JSON object per line, and the same as TensorBoard events.

Lines after the step that a run resumes from are dropped, so the file reads as if the run had
never been interrupted. Each line ends with a checksum of itself and of the line before, so that
lines which were changed, moved or repeated are found and left out.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from vae_jax.errors import UserError
from vae_jax.storage import files
from vae_jax.training.checkpoints import BEST_METRIC

RATE = "train/steps_per_second"  # the one metric that another run does not repeat
FILE = "train_metrics.jsonl"
CHECK = "crc32"


class History:
    """Appends metrics to `train_metrics.jsonl` and TensorBoard in a directory.

    Parameters
    ----------
    directory
        Where the files are.
    step
        The step that training continues from; later lines are dropped.
    begin
        Validation losses up to this step are not remembered.
    is_writer
        Whether this process writes; all processes of a job know `stale`.

    Attributes
    ----------
    stale
        Evaluations since the validation loss was at its best. No line is kept in memory, since a
        run may log millions.
    """

    def __init__(self, directory: Path, step: int, begin: int = 0, is_writer: bool = True) -> None:
        from tensorboardX import SummaryWriter

        lines = [line for line in read(directory / FILE) if line["step"] <= step]
        self.stale, self._best = 0, math.inf
        self._begin = begin
        for line in lines:
            self._remember(line)
        self._check, self._is_writer = 0, is_writer
        if not is_writer:
            return
        with files.atomic_write(directory / FILE) as file:
            file.writelines(self._encode(line) for line in lines)
        self._file = open(directory / FILE, "ab")  # noqa: SIM115 (open as long as training runs)
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append a line: `step` and the metrics, as numbers."""
        values = {name: float(value) for name, value in metrics.items()}
        # JSON has no NaN: a value that is not finite is written as null.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step} | finite
        self._remember(line)
        if not self._is_writer:
            return
        try:
            self._file.write(self._encode(line))
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._file.name}: {error.strerror}.") from error
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def _encode(self, line: Mapping[str, Any]) -> bytes:
        self._check = _check(line, self._check)
        return json.dumps({**line, CHECK: self._check}).encode() + b"\n"

    def _remember(self, line: Mapping[str, Any]) -> None:
        if line["step"] > self._begin and line.get(BEST_METRIC) is not None:
            self.stale = 0 if line[BEST_METRIC] < self._best else self.stale + 1
            self._best = min(self._best, line[BEST_METRIC])

    def close(self) -> None:
        """Flush and close both files."""
        if not self._is_writer:
            return
        self._file.close()
        self._writer.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Read the metrics' lines; those that are damaged are left out, with a warning.

    A kill may have cut the last line short; training writes it again.
    """
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    previous: Any = 0
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        stated, is_sound = None, False
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            line = json.loads(text)
            stated = line.pop(CHECK)
            is_sound = stated == _check(line, previous)
        previous = stated
        if is_sound:
            lines.append(line)
        elif text.endswith(b"\n"):
            logging.warning("%s, line %d is damaged and left out", path, number)
    return lines


def _check(line: Mapping[str, Any], previous: int) -> int:
    return zlib.crc32(json.dumps(line).encode(), previous)
