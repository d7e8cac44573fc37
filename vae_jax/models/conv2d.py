"""A VAE with convolutional encoder and decoder, for segments of spectrograms [B, T, F].

Each level halves time and frequency in the encoder and doubles them in the decoder. With kernels
of 2 a level is a dense layer on 2 x 2 patches, which needs 3.5 times fewer operations than kernels
of 3 and no convolution at all; with kernels of 3 the decoder convolves and then moves channels to
space, which equals a transposed convolution and is far faster on a CPU (Shi et al. 2016).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vae_jax.models import priors
from vae_jax.models.vae import Vae


class Encoder(nn.Module):
    """Halve [B, T, F, 1] once per level, then map what is left to [B, output_dim]."""

    channels: Sequence[int]
    kernel_size: int
    output_dim: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Map segments [B, T, F], with the condition [B, C], to [B, output_dim] float32."""
        x = _pad(x, 2 ** len(self.channels))[..., None].astype(self.dtype)
        for width in self.channels:
            if self.kernel_size == 2:
                x = nn.Dense(width, dtype=self.dtype)(space_to_depth(x))
            else:
                size = (self.kernel_size, self.kernel_size)
                x = nn.Conv(width, size, strides=2, dtype=self.dtype)(x)
            x = nn.silu(nn.LayerNorm(dtype=self.dtype)(x))
        x = x.reshape(len(x), -1)
        if condition is not None:
            x = jnp.concatenate([x, condition.astype(x.dtype)], axis=-1)
        return nn.Dense(self.output_dim, dtype=self.dtype)(x).astype(jnp.float32)


class Decoder(nn.Module):
    """Map [B, L] to a small image, double it once per level, and crop it to [B, T, F]."""

    channels: Sequence[int]
    kernel_size: int
    output_shape: tuple[int, int]
    dtype: str

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Map latents [B, L] to segments [B, T, F] float32."""
        factor = 2 ** len(self.channels)
        time, bands = (-(-size // factor) for size in self.output_shape)
        x = nn.Dense(time * bands * self.channels[0], dtype=self.dtype)(z.astype(self.dtype))
        x = x.reshape(len(z), time, bands, self.channels[0])
        for width in (*self.channels[1:], None):
            x = nn.silu(nn.LayerNorm(dtype=self.dtype)(x))
            outputs = 4 * (width or 1)
            if self.kernel_size == 2:
                x = nn.Dense(outputs, dtype=self.dtype)(x)
            else:
                size = (self.kernel_size, self.kernel_size)
                x = nn.Conv(outputs, size, dtype=self.dtype)(x)
            x = depth_to_space(x)
        return x[:, : self.output_shape[0], : self.output_shape[1], 0].astype(jnp.float32)


def space_to_depth(x: jax.Array) -> jax.Array:
    """Move 2 x 2 patches to channels: [B, 2H, 2W, C] -> [B, H, W, 4C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def depth_to_space(x: jax.Array) -> jax.Array:
    """Invert `space_to_depth`: [B, H, W, 4C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def build(config: Mapping[str, Any], input_shape: tuple[int, ...]) -> Vae:
    """Return the VAE that a config describes, for segments of shape (T, F)."""
    model = config["model"]
    channels, kernel, dtype = tuple(model["channels"]), model["kernel_size"], model["dtype"]
    return Vae(
        encoder=Encoder(channels, kernel, 2 * model["latent_dim"], dtype),
        decoder=Decoder(channels[::-1], kernel, (input_shape[0], input_shape[1]), dtype),
        prior=priors.build(model),
        learned_scale=model["learned_scale"],
        deterministic=model["deterministic"],
        input_noise=model["input_noise"],
    )


def _pad(x: jax.Array, multiple: int) -> jax.Array:
    """Pad time and frequency with zeros, the standardised mean, up to a multiple."""
    return jnp.pad(x, [(0, 0), *((0, -size % multiple) for size in x.shape[1:])])
