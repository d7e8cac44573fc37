"""Finds structure in music without labels: features, a VAE, clusters, and honest metrics."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["Model", "cluster", "load", "train"]

if TYPE_CHECKING:
    from vae_jax.api import Model, cluster, load, train


def __getattr__(name: str) -> Any:
    """Import the API when it is used: commands do not wait for it."""
    if name in __all__:
        from vae_jax import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
