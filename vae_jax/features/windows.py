"""Where the windows of an excerpt lie in a file, for `features.audio` and its decoders."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Which frames of a file are read: at most `count` from each of `starts`, which ascend.

    Attributes
    ----------
    offsets
        The starts in seconds, before they were rounded down to a frame.
    """

    starts: tuple[int, ...]
    count: int
    offsets: tuple[float, ...]


@dataclass(frozen=True)
class Excerpt:
    """Which part of a file is read.

    Attributes
    ----------
    kind
        "start", "center" (the middle of the file), or "spread".
    duration
        Length of all windows together, in seconds; a shorter file is read whole.
    num_windows
        Number of windows of a spread excerpt, each of duration / num_windows. The file is cut into
        as many equal parts, and each window lies in the middle of one. A file that is shorter than
        the excerpt has as many windows as come closest to its length, so they may overlap; a file
        that is shorter than a window is read whole. No window reaches beyond the file.
    """

    kind: str
    duration: float
    num_windows: int = 1

    def place(self, total: int, rate: int) -> Windows:
        """Return the windows of a file of `total` frames at `rate` frames a second."""
        seconds, count, offsets = total / rate, int(self.duration * rate), [0.0]
        if self.kind == "center":
            offsets = [max(0.0, (seconds - self.duration) / 2)]
        elif self.kind == "spread":
            window = self.duration / self.num_windows
            count = math.ceil(window * rate)
            number = max(1, min(self.num_windows, round(seconds / window)))
            margin = max(0.0, seconds / number - window) / 2
            last = max(0.0, seconds - window - margin)
            offsets = np.linspace(margin, last, number).tolist()
        latest = max(0, total - count)
        starts = tuple(min(int(offset * rate), latest) for offset in offsets)
        return Windows(starts, count, tuple(offsets))
