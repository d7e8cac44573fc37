"""A VAE of several modalities whose encoders are experts (Wu and Goodman 2018).

The posterior is the product of the prior and of one expert per modality that a track has, so
tracks with only audio or only lyrics are embedded too. In training, tracks that have all
modalities lose some at random before encoding, and all are reconstructed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vae_jax.models import conv2d, mlp, priors
from vae_jax.models.posterior import Posterior, product_of_experts
from vae_jax.models.vae import Elbo, Gaussian, Inputs


class MultimodalVae(nn.Module):
    """One VAE per modality around a shared latent.

    Attributes
    ----------
    modalities
        By name; their encoders are the experts, their decoders the likelihoods.
    weights
        How much each modality's likelihood counts, by name.
    prior
        Maps the shared posterior to what it costs, a `priors.Divergence`.
    dropout
        The probability that a modality is hidden from the encoder in training.
    """

    modalities: Mapping[str, nn.Module]
    weights: Mapping[str, float]
    prior: nn.Module
    dropout: float

    def encode(self, inputs: Inputs) -> Posterior:
        """Return the posterior of tracks given whatever modalities they have.

        `inputs.x` and `inputs.mask` are dicts by modality; `inputs.mask["segments"]`, [B, S],
        is there when the audio is all of a track's segments, [B, S, T, F].
        """
        experts = []
        for name, model in self.modalities.items():
            x = inputs.x[name]
            segments = inputs.mask.get("segments") if x.ndim == 4 else None
            experts.append(model.encode(Inputs(x, segments)))
        present = [inputs.mask[name] for name in self.modalities]
        return product_of_experts(experts, present)

    def decode(self, z: jax.Array, condition: jax.Array | None = None) -> dict[str, Gaussian]:
        """Return each modality's likelihood given latents, [B, L]."""
        return {name: model.decode(z, condition) for name, model in self.modalities.items()}

    def __call__(self, inputs: Inputs, key: jax.Array) -> Elbo:
        """Return the ELBO's terms of a batch whose modalities are hidden at random."""
        drop_key, sample_key = jax.random.split(key)
        posterior = self.encode(inputs.replace(mask=self._hide(inputs.mask, drop_key)))
        likelihoods = self.decode(posterior.sample(sample_key))
        reconstruction = squared_error = count = jnp.zeros(len(posterior.mean))
        for name, likelihood in likelihoods.items():
            x, present = inputs.x[name], inputs.mask[name]
            nats = likelihood.negative_log_prob(x)
            reconstruction += self.weights[name] * present * nats
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

    def _hide(self, mask: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """Hide modalities at random, but never all that a track has."""
        names = list(self.modalities)
        present = jnp.stack([mask[name] for name in names])
        kept = present * jax.random.bernoulli(key, 1 - self.dropout, present.shape)
        kept = jnp.where(kept.sum(axis=0) > 0, kept, present)
        return dict(zip(names, kept, strict=True))


def build(config: Mapping[str, Any], input_shape: Mapping[str, tuple[int, ...]]) -> MultimodalVae:
    """Return the VAE that a config describes, for modalities of the given shapes."""
    modalities = {
        name: (conv2d if len(shape) == 2 else mlp).build(config, shape)
        for name, shape in input_shape.items()
    }
    weights = dict.fromkeys(modalities, 1.0) | {"lyrics": config["feature"]["lyrics_weight"]}
    model = config["model"]
    return MultimodalVae(modalities, weights, priors.build(model), model["modality_dropout"])
