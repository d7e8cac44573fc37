"""Representations without a VAE, clustered the same way: standardised raw features, and PCA.

Each becomes an embedding file like `latents.npz`. `raw` is also the common space in which all
methods' clusters are compared. Two baselines are elsewhere: `plda` has a module of its own, and the
plain autoencoder is a model like any other, with `config.model.deterministic`.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.storage import files
from vae_jax.training.views import fuse

Arrays = Mapping[str, np.ndarray]


class Scale(Protocol):
    """By which each column is standardised: `Statistics`, or what a run has kept of them."""

    @property
    def mean(self) -> np.ndarray:
        """Subtracted, [D]."""

    @property
    def std(self) -> np.ndarray:
        """Divided by, [D]."""


@dataclass(frozen=True)
class Projection:
    """A linear map to latents, kept as a file of arrays so that new tracks can be placed.

    Attributes
    ----------
    mean
        Subtracted first, [D].
    axes
        Multiplied with, [L, D].
    between
        PLDA's alone: how much the tracks differ along each axis, in units of the variance between
        the segments of a track, [L].
    standard_mean, standard_std
        PLDA's alone: by which stored features are standardised before they are described, [F].
    """

    mean: np.ndarray
    axes: np.ndarray
    between: np.ndarray | None = None
    standard_mean: np.ndarray | None = None
    standard_std: np.ndarray | None = None

    def __call__(self, points: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """Return the latents [n, L] float32 of points [n, D].

        If the points are means of segments, `counts` says how many segments each has, [n]. The
        latent is then the mean of its posterior, which is nearer to 0 the fewer segments there are.
        """
        latents = (points - self.mean) @ self.axes.T
        if self.between is not None and counts is not None:
            latents *= self.between / (self.between + 1 / counts[:, None])
        return latents.astype(np.float32)

    def write(self, path: str | os.PathLike) -> None:
        """Write the arrays, named like the attributes."""
        arrays = {name: array for name, array in asdict(self).items() if array is not None}
        files.write_npz(path, **arrays)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Projection":
        """Read what `write` wrote."""
        return cls(**files.read_npz(path))


def summaries(records: Records, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Read the stored arrays of n tracks by name, [n, ...], each track's frames as one vector.

    Frames become their mean, standard deviation and mean absolute change per band. Vectors of
    segments become their mean, as if the track had one averaged vector.
    """
    parts = [
        {
            name: _as_vectors(values, records.arrays[name])
            for name, values in records.load(part).items()
        }
        for part in records.parts(positions)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in records.arrays}


def statistics(records: Records, parts: Iterable[Arrays]) -> dict[str, Statistics]:
    """Return the statistics to standardise by: those of summarised frames, else the stored ones.

    `parts` are the summaries of all tracks.
    """
    known = dict(records.statistics)
    summarised = [name for name in known if len(records.arrays[name].shape) == 2]
    if summarised:
        for number, part in enumerate(parts):
            for name in summarised:
                measured = Statistics.of(part[name])
                known[name] = known[name].merge(measured) if number else measured
    return known


def raw(
    records: Records, part: Arrays, known: Mapping[str, Scale], lyrics_weight: float
) -> np.ndarray:
    """Return each track's standardised features as one vector, [n, D] float32.

    Modalities are weighted and concatenated as in early fusion, with zeros where a track has none.

    Parameters
    ----------
    records
        The records, which name the arrays.
    part
        `summaries` of n tracks.
    known
        The `statistics` of all tracks.
    lyrics_weight
        The weight of lyrics beside audio.
    """

    def standardised(name: str) -> np.ndarray:
        return ((part[name] - known[name].mean) / known[name].std).astype(np.float32)

    if "features" in records.arrays:
        return standardised("features")
    names = [name for name in records.arrays if f"has_{name}" in records.arrays]
    present = {name: part[f"has_{name}"].astype(np.float32) for name in names}
    weights = dict.fromkeys(names, 1.0) | {"lyrics": lyrics_weight}
    return np.asarray(fuse({name: standardised(name) for name in names}, present, weights))


def pca(features: np.ndarray, num_components: int, seed: int) -> Projection:
    """Return the projection of standardised features, [N, D], onto their first principal axes.

    There are `num_components` of them, the VAE's latent size, or fewer where the tracks or the
    features are fewer.
    """
    from sklearn.decomposition import PCA

    size = min(num_components, *features.shape)
    found = PCA(size, random_state=seed).fit(features)
    return Projection(found.mean_, found.components_)


def principal_axes(chunks: Iterable[np.ndarray], num_components: int) -> Projection:
    """Return the projection onto the first principal axes of features read in chunks, [n, D].

    The axes are those of `pca` except for their signs. Only the features' covariance is held.
    """
    count, total, products = 0, np.zeros(()), np.zeros(())
    for chunk in chunks:
        points = chunk.astype(np.float64)
        count += len(points)
        total, products = total + points.sum(axis=0), products + points.T @ points
    mean = total / count
    # The features are standardised: next to their variance, the mean is too small to cost digits.
    axes = np.linalg.eigh(products / count - np.outer(mean, mean)).eigenvectors[:, ::-1].T
    return Projection(mean, axes[: min(num_components, count)])


def _as_vectors(values: np.ndarray | list[np.ndarray], spec: ArraySpec) -> np.ndarray:
    """Return one vector for each track, [n, ...]."""
    if not isinstance(values, list):
        return values
    if spec.is_segments:
        return np.stack([rows.mean(axis=0, dtype=np.float64) for rows in values])
    return np.stack([_summary(frames) for frames in values])


def _summary(frames: np.ndarray) -> np.ndarray:
    """Return mean, standard deviation and mean absolute change, [T, F] -> [3 F]; 0 if T is 0."""
    if not len(frames):
        return np.zeros(3 * frames.shape[1], np.float32)
    frames = frames.astype(np.float32)
    change = np.abs(np.diff(frames, axis=0)).sum(axis=0) / max(len(frames) - 1, 1)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0), change])
