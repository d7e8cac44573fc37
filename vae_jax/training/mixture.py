"""Starts a mixture prior from the latents of a model that was trained with a normal one.

VaDE (Jiang et al. 2017, section 3.3) pre-trains, fits a mixture to the latents, and trains on;
`train` calls this in between.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vae_jax.models.posterior import Posterior
from vae_jax.models.priors import Mixture
from vae_jax.parallel.seeds import over_seeds
from vae_jax.training import input_pipeline
from vae_jax.training.input_pipeline import Source

MAX_TRACKS = 10_000  # that the mixture is fitted to
BATCH_SIZE = 256  # tracks encoded at a time
REFINEMENTS = 50  # steps of expectation maximisation, if latents are missing


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
        fit(jax.tree.map(lambda leaf, i=i: leaf[i], posterior), num_components, seed)
        for i, seed in enumerate(seeds)
    ]
    return {**params, "prior": jax.tree.map(lambda *leaves: np.stack(leaves), *fitted)}


def fit(posterior: Posterior, num_components: int, seed: int) -> dict[str, np.ndarray]:
    """Return the parameters of `priors.Mixture` around the k-means clusters of latents, [N, L].

    Missing latents are guessed for k-means. Then `REFINEMENTS` steps of expectation maximisation,
    which see only what is known, whatever its scale, let go of the guesses.
    """
    from sklearn.cluster import KMeans

    points = _filled(posterior)
    found = KMeans(min(num_components, len(points)), n_init=10, random_state=seed).fit(points)
    values = _moments(posterior, np.eye(num_components)[found.labels_])
    if posterior.known is not None:
        prior = Mixture(num_components, points.shape[1])
        assign = jax.jit(lambda values: prior.apply({"params": values}, posterior, method="assign"))
        for _ in range(REFINEMENTS):
            values = _moments(posterior, np.asarray(assign(values), np.float64))
    return values


def _moments(posterior: Posterior, assignment: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mixture that fits latents, [N, L], with these assignments, [N, K].

    All components have one variance, that within clusters and posteriors together: ten tracks are
    too few to estimate a component's own. A component without known latents is in the middle.
    """
    mean, variance = np.asarray(posterior.mean, np.float64), np.exp(posterior.log_variance)
    known = np.ones_like(mean) if posterior.known is None else np.asarray(posterior.known)
    tracks, counts = known.sum(axis=0), assignment.T @ known
    middle = (known * mean).sum(axis=0) / np.maximum(tracks, 1)
    offsets = assignment.T @ (known * (mean - middle)) / np.maximum(counts, 1e-9)
    apart = (known * np.square(mean - middle)).sum(axis=0)
    apart -= (counts * np.square(offsets)).sum(axis=0)
    total = (known * variance).sum(axis=0) + np.maximum(apart, 0)  # below 0 by rounding alone
    within = np.divide(total, tracks, out=np.ones_like(total), where=tracks > 0)
    weights = 1.0 + assignment.sum(axis=0)
    values = {
        "logits": np.log(weights / weights.sum()),
        "mean": middle + offsets,
        "log_variance": np.tile(np.log(within), (len(weights), 1)),
    }
    return {name: array.astype(np.float32) for name, array in values.items()}


def _filled(posterior: Posterior) -> np.ndarray:
    """Return the means [N, L], filled in from the most similar track that has what is missing.

    At the prior's mean instead, the tracks that lack something would be clusters of their own. The
    method is known as hot deck (Andridge and Little 2010).
    """
    from sklearn.impute import KNNImputer

    mean = np.asarray(posterior.mean, np.float64)
    if posterior.known is None or np.all(posterior.known):
        return mean
    gaps = np.where(posterior.known, mean, np.nan)
    return KNNImputer(n_neighbors=1, keep_empty_features=True).fit_transform(gaps)
