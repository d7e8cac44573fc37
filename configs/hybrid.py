"""Audio and lyrics of the same tracks, either of which may be missing.

vae-jax run --config=hybrid --config.manifest=PATH/metadata.csv

The default is a multimodal VAE: each modality has latents of its own, and a mixture is their common
prior. A track that lacks a modality takes what its likeliest component has. Distances are in units
of the variation within components, the same for both modalities. Variants:
    --config=hybrid:fused       early fusion into one vector, for the MLP VAE
    --config=hybrid:logmelspec  a conv2d encoder of log-mel segments for the audio
"""

from ml_collections import ConfigDict

from vae_jax.config import get_config as get_defaults
from vae_jax.errors import UserError


def get_config(variant: str = "mfcc") -> ConfigDict:
    """Return the config of a variant: mfcc, fused or logmelspec."""
    if variant not in ("mfcc", "fused", "logmelspec"):
        raise UserError(f"configs/hybrid.py has no variant {variant!r}: mfcc, fused, logmelspec.")
    config = get_defaults()
    config.name = "hybrid"
    config.feature.name = "hybrid"
    config.feature.audio_feature = "logmelspec" if variant == "logmelspec" else "mfcc"
    config.feature.lyrics_embed_dim = 128
    if variant == "fused":
        return config
    config.model.name = "multimodal"
    config.model.latent_dim = 8  # of each modality
    config.model.hidden_dims = ()  # linear: MLPs learn few songs by heart, layers need thousands
    config.model.learned_scale = False  # keeps what varies more than a column does on average
    config.model.prior = "mixture"
    return config
