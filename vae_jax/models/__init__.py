"""Models by name: `config.model.name` is a module with `DECLARES` and a `build` function."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax import linen as nn

Shape = tuple[int, ...]


def build(
    config: Mapping[str, Any], input_shape: Shape | Mapping[str, Shape], **measured: Any
) -> "nn.Module":
    """Return the model that a config (as a plain dict) describes.

    It has `__call__(inputs, key) -> Elbo`, `encode(inputs) -> Posterior` for the exported latents,
    `infer(inputs) -> Posterior` for the latents as the prior sees them, and `decode(z)`.

    Parameters
    ----------
    config
        The whole config; `config.model.name` names the module.
    input_shape
        The shape of one example, or of each modality: `views.View.input_shape`.
    measured
        What the model needs to know of the data, by name: see the `build` of its module.
    """
    module = importlib.import_module(f"vae_jax.models.{config['model']['name']}")
    return module.build(config, input_shape, **measured)
