"""Representations without a VAE, clustered the same way: standardised raw features, and PCA.

Each becomes an embedding file like `latents.npz`. `raw` is also the common space in which all
methods' clusters are compared. (The third baseline, the plain autoencoder, is a model like any
other, with `config.model.deterministic`.)
"""

import numpy as np

from vae_jax.records import Records, Statistics
from vae_jax.views import fuse


def raw(records: Records, lyrics_weight: float) -> np.ndarray:
    """Return each track's standardised features as one vector, [N, D] float32.

    Frames become their mean, standard deviation and mean absolute change per band; modalities are
    weighted and concatenated as in early fusion, with zeros where a track has none.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in records.arrays}
    for position in range(len(records)):
        record = records.read(position)
        for name, values in columns.items():
            values.append(_summary(record[name]) if record[name].ndim == 2 else record[name])
    stacked = {name: np.stack(values) for name, values in columns.items()}
    if "features" in stacked:
        return _standardise(records, "features", stacked["features"])
    names = [name for name in stacked if f"has_{name}" in stacked]
    present = {name: stacked[f"has_{name}"].astype(np.float32) for name in names}
    weights = dict.fromkeys(names, 1.0) | {"lyrics": lyrics_weight}
    parts = {name: _standardise(records, name, stacked[name]) for name in names}
    return np.asarray(fuse(parts, present, weights))


def pca(features: np.ndarray, num_components: int, seed: int) -> np.ndarray:
    """Project standardised features, [N, D], onto their first principal components.

    There are `num_components` of them, the VAE's latent size, or fewer where the tracks or the
    features are fewer.
    """
    from sklearn.decomposition import PCA

    size = min(num_components, *features.shape)
    return PCA(size, random_state=seed).fit_transform(features).astype(np.float32)


def _summary(frames: np.ndarray) -> np.ndarray:
    """Return mean, standard deviation and mean absolute change, [T, F] -> [3 F]; 0 if T is 0."""
    if not len(frames):
        return np.zeros(3 * frames.shape[1], np.float32)
    frames = frames.astype(np.float32)
    change = np.abs(np.diff(frames, axis=0)).sum(axis=0) / max(len(frames) - 1, 1)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0), change])


def _standardise(records: Records, name: str, values: np.ndarray) -> np.ndarray:
    """Standardise by the stored statistics, or summaries of frames by their own."""
    if records.arrays[name].shape == values.shape[1:]:
        known = records.statistics[name]
    else:
        known = Statistics.of(values)
    return ((values - known.mean) / known.std).astype(np.float32)
