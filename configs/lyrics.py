"""An MLP VAE on lyrics: TF-IDF of words and character n-grams, reduced by SVD.

vae-jax run --config=lyrics --config.manifest=PATH/metadata.csv
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults


def get_config() -> ConfigDict:
    """Return the config."""
    config = get_defaults()
    config.name = "lyrics"
    config.feature.name = "lyrics_tfidf"
    config.feature.lyrics_embed_dim = 128
    config.cluster.label = "language"
    return config
