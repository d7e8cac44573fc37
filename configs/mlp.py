"""An MLP VAE on MFCC statistics, beside PCA: the main job.

python -m vae_jax.main --config=configs/mlp.py --config.manifest=PATH/metadata.csv
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults


def get_config() -> ConfigDict:
    """Return the config."""
    config = get_defaults()
    config.name = "mlp"
    return config
