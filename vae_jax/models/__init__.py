"""Models by name: `config.model.name` is a module of this package with a `Vae` class."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn


def build(model: Mapping[str, Any], input_dim: int) -> nn.Module:
    """Return the model that `config.model` (as a plain dict) describes.

    Parameters
    ----------
    model
        The values of `config.model`.
    input_dim
        D, length of the feature vectors.
    """
    from vae_jax.models import mlp

    return mlp.Vae(
        input_dim=input_dim,
        latent_dim=model["latent_dim"],
        hidden_dims=tuple(model["hidden_dims"]),
        learned_scale=model["learned_scale"],
    )
