"""A VAE of several modalities, any of which a track may lack: a latent for each, and one prior.

Each modality is encoded into latents of its own and decoded from them alone; these lie side by
side. The prior knows what goes with what: its components span all modalities, and the most likely
component fills in a missing one. One latent for all, a product of experts (Wu and Goodman 2018),
put the tracks that lack a modality into the middle, near each other.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vae_jax.models import conv2d, mlp, priors
from vae_jax.models.posterior import Posterior, side_by_side
from vae_jax.models.vae import Elbo, Gaussian, Inputs

DECLARES = {
    "title": "hybrid VAE",
    "features": ("hybrid",),
    "sees": "modalities",
    "refuses": ("condition", "deterministic", "ae"),
}


class MultimodalVae(nn.Module):
    """One VAE per modality, joined by the prior of all their latents.

    Outside this class, latents are balanced: all modalities have the same variance within the
    prior's components, times their squared weights, as discriminant analysis measures distances
    (Fisher 1936). So neither a modality with more columns decides, nor one without clusters. If the
    variance *between* components were made the same instead, the parts into which the mixture cuts
    a modality without clusters would weigh as much as the clusters of another.

    Attributes
    ----------
    modalities
        The VAE of each modality, by name, with latents of one size.
    weights
        How much each modality counts in distances between latents, by name.
    prior
        Maps the posterior of all latents to what it costs, a `priors.Divergence`.
    """

    modalities: Mapping[str, nn.Module]
    weights: Mapping[str, float]
    prior: nn.Module

    def encode(self, inputs: Inputs) -> Posterior:
        """Return the posterior of tracks given whatever modalities they have, balanced.

        `inputs.x` and `inputs.mask` are dicts by modality; `inputs.mask["segments"]`, [B, S],
        is there when the audio is all of a track's segments, [B, S, T, F].
        """
        return self.prior.complete(self.infer(inputs)).scale(self._balance())

    def decode(self, z: jax.Array, condition: jax.Array | None = None) -> dict[str, Gaussian]:
        """Return each modality's likelihood given balanced latents, [B, L]."""
        return self._decode(z / self._balance(), condition)

    def assign(self, posterior: Posterior) -> jax.Array:
        """Return the probability of each of the prior's components, [B, K]."""
        return self.prior.assign(posterior.scale(1 / self._balance()))

    def __call__(self, inputs: Inputs, key: jax.Array) -> Elbo:
        """Return the ELBO's terms of a batch; what a track lacks costs nothing."""
        posterior = self.infer(inputs)
        reconstruction = squared_error = count = jnp.zeros(len(posterior.mean))
        for name, likelihood in self._decode(posterior.sample(key)).items():
            x, present = inputs.x[name], inputs.mask[name]
            reconstruction += present * likelihood.negative_log_prob(x)
            squared_error += present * likelihood.squared_error(x)
            count += present
        squared_error /= jnp.maximum(count, 1.0)
        divergence = self.prior(posterior)
        return Elbo(
            reconstruction=reconstruction,
            kl=divergence.kl,
            squared_error=squared_error,
            latent=posterior.mean,
            other=divergence.assignment,
        )

    def infer(self, inputs: Inputs) -> Posterior:
        """Return the posterior of tracks as the prior sees it, neither completed nor balanced."""
        blocks = []
        for name, model in self.modalities.items():
            x = inputs.x[name]
            segments = inputs.mask.get("segments") if x.ndim == 4 else None
            blocks.append(model.encode(Inputs(x, segments)))
        return side_by_side(blocks, [inputs.mask[name] for name in self.modalities])

    def _decode(self, z: jax.Array, condition: jax.Array | None = None) -> dict[str, Gaussian]:
        blocks = jnp.split(z, len(self.modalities), axis=-1)
        return {
            name: model.decode(block, condition)
            for (name, model), block in zip(self.modalities.items(), blocks, strict=True)
        }

    def _balance(self) -> jax.Array:
        weights = jnp.array([self.weights[name] for name in self.modalities])
        # The mixture is fitted to latents as they are.
        return jnp.where(self.prior.is_fitted(), balance(self.prior.within(), weights), 1.0)


def balance(within: jax.Array, weights: jax.Array) -> jax.Array:
    """Return what to multiply latents with, [L], so that modalities count as they are weighted.

    `within` is the variance within the prior's components, [L], of latents side by side; `weights`
    is [M], one for each modality.
    """
    total = within.reshape(len(weights), -1).sum(axis=-1)
    factors = jnp.maximum(weights, 1e-6) * jnp.sqrt(total.mean() / total)
    return jnp.repeat(factors, len(within) // len(weights))


def build(config: Mapping[str, Any], input_shape: Mapping[str, tuple[int, ...]]) -> MultimodalVae:
    """Return the VAE that a config describes, for modalities of the given shapes."""
    modalities = {
        name: (conv2d if len(shape) == 2 else mlp).build(config, shape)
        for name, shape in input_shape.items()
    }
    weights = dict.fromkeys(modalities, 1.0) | {"lyrics": config["feature"]["lyrics_weight"]}
    return MultimodalVae(modalities, weights, priors.build(config["model"], len(modalities)))
