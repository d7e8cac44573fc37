"""Training metrics: one JSON object per line, and the same as TensorBoard events.

Lines after the step that a run resumes from are dropped, so the file reads as if the run had
never been interrupted.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_jax import files

FILE = "train_metrics.jsonl"


class History:
    """Appends metrics to `train_metrics.jsonl` and TensorBoard in a directory.

    Parameters
    ----------
    directory
        Where the files are.
    step
        The step that training continues from; later lines are dropped.
    """

    def __init__(self, directory: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        self.lines = [line for line in read(directory / FILE) if line["step"] <= step]
        with files.atomic_write(directory / FILE) as file:
            file.writelines(_encode(line) for line in self.lines)
        self._file = open(directory / FILE, "ab")  # noqa: SIM115 (open as long as training runs)
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append a line: `step` and the metrics, as numbers."""
        line = {"step": step} | {name: float(value) for name, value in metrics.items()}
        self.lines.append(line)
        self._file.write(_encode(line))
        self._file.flush()
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def values(self, name: str) -> list[float]:
        """Return all values of a metric so far, oldest first."""
        return [line[name] for line in self.lines if name in line]

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._writer.close()


def read(path: Path) -> list[dict[str, float]]:
    """Read the metrics' lines, up to one that a kill cut short."""
    lines: list[dict[str, float]] = []
    if not path.exists():
        return lines
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        lines.append(line)
    return lines


def stalled(losses: list[float], patience: int) -> bool:
    """Say whether the last `patience` losses all failed to improve on the best before them."""
    if not patience or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])


def _encode(line: Mapping[str, float]) -> bytes:
    # JSON has no NaN: a value that is not finite is written as null.
    finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
    return json.dumps(finite).encode() + b"\n"
