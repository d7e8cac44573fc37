"""The closed form that the track VAE starts from: two covariances, within tracks and between.

A segment's description is its track's mean plus noise, both Gaussian (PLDA, Ioffe 2006). Once the
noise is white, the principal axes of the tracks' means are the directions in which tracks differ
most, relative to how much their segments differ (WCCN, Hatch et al. 2006).

Letters: N segments, M tracks, D columns.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

MIN_BETWEEN = 1e-2  # variance of a direction in which no two tracks are known to differ


@dataclass(frozen=True)
class Whitening:
    """A linear map that makes the noise within tracks white, and its axes ordered.

    Attributes
    ----------
    matrix
        What descriptions are multiplied with from the right, [D, D] float32.
    between
        Variance of the tracks' means along each axis, the largest first, in units of the variance
        within tracks and without what the noise of segments adds to it, [D] float32.
    """

    matrix: np.ndarray
    between: np.ndarray

    @cached_property
    def inverse(self) -> np.ndarray:
        """From whitened to standardised descriptions, [D, D] float32."""
        return np.linalg.inv(self.matrix.astype(np.float64)).astype(np.float32)

    def principal_axes(self, number: int) -> np.ndarray:
        """Return the axes along which tracks differ most when standardised, [D, number] float32."""
        covariance = (self.inverse.T * self.between) @ self.inverse
        return np.linalg.eigh(covariance).eigenvectors[:, : -number - 1 : -1]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        stored = base64.b64encode(self.matrix.astype("<f4").tobytes()).decode()
        return {"matrix_float32_base64": stored, "between": self.between.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Whitening":
        """Rebuild from `to_dict`, exactly."""
        between = np.array(values["between"], np.float32)
        data = base64.b64decode(values["matrix_float32_base64"], validate=True)
        return cls(np.frombuffer(data, "<f4").reshape(len(between), -1), between)


def measure(descriptions: np.ndarray, track: np.ndarray) -> Whitening:
    """Measure both covariances of standardised descriptions, [N, D], of tracks, [N] 0 to M - 1.

    The covariance within tracks has a Wishart prior that is worth D observations of equal and
    independent columns, so that it is sound for few tracks, and for tracks of one segment. (On real
    collections that is about the shrinkage of Ledoit and Wolf 2004.)
    """
    size = descriptions.shape[1]
    count = np.bincount(track)
    means = np.zeros((len(count), size))
    np.add.at(means, track, descriptions)
    means /= count[:, None]
    noise = descriptions - means[track]
    scatter, freedom = noise.T @ noise, len(track) - len(count)
    variance = np.trace(scatter) / (freedom * size) if freedom else 1.0
    within = (scatter + size * max(variance, 1e-6) * np.eye(size)) / (freedom + size)
    noise_variances, noise_axes = np.linalg.eigh(within)
    white = noise_axes / np.sqrt(noise_variances)
    apart = (means - means.mean(axis=0)) @ white
    of_means, axes = np.linalg.eigh(apart.T @ apart / max(len(count) - 1, 1))
    between = np.maximum(of_means[::-1] - (1 / count).mean(), MIN_BETWEEN)
    return Whitening((white @ axes[:, ::-1]).astype(np.float32), between.astype(np.float32))
