"""Starts a mixture prior from the latents of a model that was trained with a normal one.

VaDE (Jiang et al. 2017, section 3.3) pre-trains, fits a mixture to the latents, and trains on;
`train` calls this in between.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vae_jax import input_pipeline
from vae_jax.input_pipeline import Source
from vae_jax.models.posterior import Posterior
from vae_jax.seeds import over_seeds

MAX_TRACKS = 10_000  # that the mixture is fitted to
BATCH_SIZE = 256  # tracks encoded at a time


def initialise(
    encode: Callable[[Any, Any], Posterior],
    params: Any,
    source: Source,
    positions: np.ndarray,
    seeds: Sequence[int],
) -> Any:
    """Return parameters [S, ...] whose `prior` is fitted to the latents of the given tracks.

    `encode` maps one model's parameters and tracks to their posterior; each model gets its own
    mixture, from its own latents and seed.
    """
    spread = np.linspace(0, len(positions) - 1, min(len(positions), MAX_TRACKS)).astype(int)
    batches = input_pipeline.in_batches(positions[spread], min(BATCH_SIZE, len(spread)))
    program, parts = jax.jit(over_seeds(encode, (0, None), len(seeds))), []
    for batch in batches:
        posterior = jax.device_get(program(params, source.load(np.maximum(batch, 0))))
        real = batch != input_pipeline.PADDING
        parts.append(jax.tree.map(lambda leaf, real=real: leaf[:, real], posterior))
    posterior = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
    num_components = params["prior"]["logits"].shape[-1]
    fitted = [
        fit(Posterior(posterior.mean[i], posterior.log_variance[i]), num_components, seed)
        for i, seed in enumerate(seeds)
    ]
    return {**params, "prior": jax.tree.map(lambda *leaves: np.stack(leaves), *fitted)}


def fit(posterior: Posterior, num_components: int, seed: int) -> dict[str, np.ndarray]:
    """Return the parameters of `priors.Mixture` around the k-means clusters of latents, [N, L].

    All components begin with the same variance, that within clusters and posteriors together:
    ten tracks are too few to tell the variances of a component. Components beyond the number of
    tracks begin in the middle of all.
    """
    from sklearn.cluster import KMeans

    mean = np.asarray(posterior.mean, np.float64)
    found = KMeans(min(num_components, len(mean)), n_init=10, random_state=seed).fit(mean)
    middle = np.tile(mean.mean(axis=0), (num_components - found.n_clusters, 1))
    offsets = mean - found.cluster_centers_[found.labels_]
    variance = np.square(offsets).mean(axis=0) + np.exp(posterior.log_variance).mean(axis=0)
    counts = 1.0 + np.bincount(found.labels_, minlength=num_components)
    values = {
        "logits": np.log(counts / counts.sum()),
        "mean": np.concatenate([found.cluster_centers_, middle]),
        "log_variance": np.tile(np.log(variance), (num_components, 1)),
    }
    return {name: array.astype(np.float32) for name, array in values.items()}
