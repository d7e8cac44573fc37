"""`reconstructions.npz`: what a model makes of some tracks. `decode` writes it, plots read it."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.errors import UserError
from vae_jax.storage import files

FILE = "reconstructions.npz"


@dataclass(frozen=True)
class Reconstructions:
    """What a model makes of some tracks, in the units in which features are stored.

    Attributes
    ----------
    ids
        Names of the tracks [n].
    inputs, outputs
        Vectors [n, D] or spectrograms [n, T, F].
    center, scale
        Mean and standard deviation of the features in the collection, [D] or [F].
    traversals
        Decoded values [L, V, ...] of latent dimensions, or None.
    dimensions, values
        Which latent dimensions those are, [L], and what they are set to, [L, V].
    hop_seconds
        Time from a frame to the next, or None where unknown.
    mel_frequencies
        Centres of the mel bands in Hz [F], where the spectrograms are in dB, else None.
    """

    ids: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    traversals: np.ndarray | None = None
    dimensions: np.ndarray | None = None
    values: np.ndarray | None = None
    hop_seconds: float | None = None
    mel_frequencies: np.ndarray | None = None

    @property
    def are_spectrograms(self) -> bool:
        """Whether a track is a spectrogram [T, F], not a vector [D]."""
        return self.inputs.ndim == 3


def write(path: str | os.PathLike, data: Reconstructions | None) -> None:
    """Write arrays named like the attributes; remove the file if there is nothing to write."""
    if data is None:
        Path(path).unlink(missing_ok=True)
        return
    arrays = {name: value for name, value in asdict(data).items() if value is not None}
    files.write_npz(path, **arrays)


def read(path: str | os.PathLike) -> Reconstructions:
    """Read what `write` wrote."""
    arrays: dict[str, Any] = files.read_npz(path)
    try:
        data = Reconstructions(**arrays)
    except TypeError as error:  # arrays are missing, or unknown
        raise UserError(
            f"{path} is damaged, or of another version ({error}): delete it and run again."
        ) from error
    return data if data.hop_seconds is None else replace(data, hop_seconds=float(data.hop_seconds))
