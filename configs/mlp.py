"""An MLP VAE on MFCC statistics, beside PCA and raw features.

vae-jax run --config=mlp --config.manifest=PATH/metadata.csv
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults


def get_config() -> ConfigDict:
    """Return the config."""
    config = get_defaults()
    config.name = "mlp"
    return config
