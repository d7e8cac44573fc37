"""The main job on a small synthetic collection, in about a minute on a laptop.

./launch/demo.sh, or: vae-jax demo && vae-jax run --config=demo
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults


def get_config() -> ConfigDict:
    """Return the config."""
    config = get_defaults()
    config.name = "demo"
    config.manifest = "data/demo/metadata.csv"
    config.feature.duration = 10.0  # s
    config.model.latent_dim = 8
    config.model.hidden_dims = (64,)  # 96 tracks teach no more
    config.train.num_steps = 1500
    config.cluster.num_clusters = 6  # styles
    return config
