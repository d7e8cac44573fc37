"""What is stored of each array: its spec, and its mean and deviation over all tracks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ArraySpec:
    """How one array is stored.

    Attributes
    ----------
    shape, dtype
        None stands for a length that differs by track.
    isotropic
        Whether standardising divides all columns by one number, which keeps their proportions. The
        columns of an SVD need that: dividing each by its own deviation would blow up noise.
    window
        Frames of each window, where a track's frames are those of several windows, one after
        another; a track of one window alone may have fewer. None where all frames are consecutive.
    is_segments
        Whether each row of an array of varying length describes a segment of the track; it is a
        frame otherwise.
    """

    shape: tuple[int | None, ...]
    dtype: str
    isotropic: bool = False
    window: int | None = None
    is_segments: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, or of the whole where no length differs."""
        sizes = (size for size in self.shape if size is not None)
        return math.prod(sizes) * np.dtype(self.dtype).itemsize

    def segment_rows(self, frames: int) -> int:
        """Return how many rows make a segment of so many frames."""
        return 1 if self.is_segments else frames

    def missing(self) -> np.ndarray:
        """Return what a track stores that lacks the array: zeros, of no length if that differs."""
        return np.zeros([size or 0 for size in self.shape], self.dtype)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of one array over all tracks (and frames), for standardising.

    Merged shard by shard with the update of Chan, Golub and LeVeque (1983), in float64.

    Attributes
    ----------
    count
        Rows measured; 0 where no track has the array.
    mean
        The mean of each column, [D].
    squares
        The sum of each column's squared deviations from its mean, [D]. An isotropic array has the
        mean of these over its columns, [1].
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, isotropic: bool = False) -> "Statistics":
        """Measure an array over all axes but the last."""
        rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1])
        mean = rows.sum(axis=0) / max(len(rows), 1)
        squares = np.square(rows - mean).sum(axis=0)
        return cls(len(rows), mean, squares.mean(keepdims=True) if isotropic else squares)

    @classmethod
    def none_of(cls, spec: ArraySpec) -> "Statistics":
        """Return the statistics of no rows of a stored array, to merge others into."""
        return cls.of(np.zeros((0, spec.shape[-1] or 0)), spec.isotropic)

    def merge(self, other: "Statistics") -> "Statistics":
        """Return the statistics of both parts together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / max(count, 1))
        between = np.square(delta) * (self.count * other.count / max(count, 1))
        if len(self.squares) == 1:
            between = between.mean(keepdims=True)
        return Statistics(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation, [D]; for an isotropic array the columns' root mean square.

        It is 1 if a feature is constant or was never measured, which leaves the feature at 0.
        """
        std = np.sqrt(self.squares / max(self.count, 1))
        return np.where(std > 1e-6 * np.maximum(1, np.abs(self.mean)), std, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "squares": self.squares.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Statistics":
        """Rebuild from `to_dict`, exactly."""
        return cls(values["count"], np.array(values["mean"]), np.array(values["squares"]))


def arrays_from_dict(values: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """Rebuild specs by name from JSON, where tuples have become lists."""
    return {
        name: ArraySpec(**{**spec, "shape": tuple(spec["shape"])}) for name, spec in values.items()
    }
