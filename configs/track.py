"""The track VAE: one latent per track, from all its segments, on MFCC frames.

python -m vae_jax.main --config=configs/track.py --config.manifest=PATH/metadata.csv
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults


def get_config() -> ConfigDict:
    """Return the config."""
    config = get_defaults()
    config.name = "track"
    config.feature.name = "mfcc_frames"
    config.model.name = "track"
    config.model.latent_dim = 32
    config.model.hidden_dims = (128,)
    config.model.segment_frames = 43  # 1 s
    config.train.batch_size = 32
    config.train.num_steps = 1500
    return config
