"""The track VAE: one latent per track, from all its segments, on MFCC frames.

python -m vae_jax.main --config=configs/track.py --config.manifest=PATH/metadata.csv

Variants:
    --config=track:conv2d   looks at log-mel segments through convolutions
    --config=track:musicnn  starts from features that others have trained with tags; first fetch
                            their network: vae-jax download musicnn
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults
from vae_jax.errors import UserError


def get_config(variant: str = "mfcc") -> ConfigDict:
    """Return the config of a variant: mfcc, conv2d or musicnn."""
    if variant not in ("mfcc", "conv2d", "musicnn"):
        raise UserError(f"configs/track.py has no variant {variant!r}: mfcc, conv2d, musicnn.")
    config = get_defaults()
    config.name = "track"
    config.baselines = ("pca", "raw", "plda")  # the last is its linear peer, in closed form
    config.feature.name = "mfcc_frames"
    config.feature.excerpt = "spread"  # a song is more than its first 30 s
    config.model.name = "track"
    config.model.latent_dim = 64  # keeps .97 of how held-out tracks differ most
    config.model.hidden_dims = (64,)
    config.model.segment_frames = 128  # 3 s
    config.model.num_segments = 8
    config.model.beta_warmup_steps = 1  # it starts at the closed form, which needs none
    config.model.prior = "mixture"  # a higher ELBO on held-out tracks than "normal"
    config.train.batch_size = 32
    config.train.min_steps = 500
    config.train.num_epochs = 100
    config.train.learning_rate = 1e-3
    if variant == "conv2d":
        config.feature.name = "logmelspec"
        config.model.encoder = "conv2d"
    if variant == "musicnn":
        config.feature.name = "musicnn"
    return config
