"""A VAE with dense encoder and decoder, for feature vectors [B, D]."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vae_jax.models import priors
from vae_jax.models.vae import Vae

DECLARES = {
    "title": "VAE",
    "features": ("mfcc", "lyrics_tfidf", "embedding", "musicnn", "hybrid"),
    "sees": "vector",
}


class Mlp(nn.Module):
    """Dense layers with SiLU between them."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Map [B, D], with the condition [B, C] appended, to [B, features[-1]]."""
        if condition is not None:
            x = jnp.concatenate([x, condition], axis=-1)
        for width in self.features[:-1]:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(self.features[-1])(x)


def build(config: Mapping[str, Any], input_shape: tuple[int, ...]) -> Vae:
    """Return the VAE that a config describes, for feature vectors of shape (D,)."""
    model = config["model"]
    hidden = tuple(model["hidden_dims"])
    return Vae(
        encoder=Mlp((*hidden, 2 * model["latent_dim"])),
        decoder=Mlp((*reversed(hidden), *input_shape)),
        prior=priors.build(model),
        learned_scale=model["learned_scale"],
        deterministic=model["deterministic"],
        input_noise=model["input_noise"],
    )
