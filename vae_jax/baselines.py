"""Representations without a VAE, clustered the same way: raw features and PCA.

Each becomes an embedding file like `latents.npz`. `raw` is also the common space in which all
methods' clusters are compared.
"""

from pathlib import Path

import numpy as np

from vae_jax import files, input_pipeline
from vae_jax.records import Records


def raw(records: Records) -> np.ndarray:
    """Return the standardised features, [N, D] float32."""
    features = records.stack("features", np.arange(len(records)))
    return input_pipeline.standardise(features, records.statistics["features"])


def pca(features: np.ndarray, num_components: int, seed: int) -> np.ndarray:
    """Project standardised features, [N, D], onto their first principal components.

    There are `num_components` of them, the VAE's latent size, or fewer where the tracks or the
    features are fewer.
    """
    from sklearn.decomposition import PCA

    size = min(num_components, *features.shape)
    return PCA(size, random_state=seed).fit_transform(features).astype(np.float32)


def write(directory: Path, records: Records, num_components: int, seed: int) -> list[Path]:
    """Write `raw.npz` and `pca.npz` (ids [N], latents [N, L]) and return their paths."""
    features = raw(records)
    paths = []
    for name, latents in (("raw", features), ("pca", pca(features, num_components, seed))):
        paths.append(directory / f"{name}.npz")
        files.write_npz(paths[-1], ids=records.ids, latents=latents)
    return paths
