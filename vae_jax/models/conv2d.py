"""A VAE with convolutional encoder and decoder, for segments of spectrograms [B, T, F].

Each level halves time and frequency in the encoder and doubles them in the decoder. With kernels
of 2 a level is a dense layer on 2 x 2 patches: no convolution, a sixth of the operations of kernels
of 3, and nothing is moved in memory, since pixels are in the order of a quadtree. With kernels of 3
the decoder convolves and then moves channels to space, which equals a transposed convolution and is
far faster on a CPU (Shi et al. 2016). On a CPU, convolutions are products of patches, since XLA's
own take thirty times as long inside a loop of steps.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vae_jax.models import priors
from vae_jax.models.vae import Vae

DECLARES = {
    "title": "conv2d VAE",
    "features": ("mfcc_frames", "logmelspec"),
    "sees": "segment",
}


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
        if self.kernel_size == 2:
            x = to_quadtree(x, len(self.channels))
        for width in self.channels:
            if self.kernel_size == 2:
                patches = x.reshape(len(x), -1, 4 * x.shape[-1])
                x = nn.Dense(width, dtype=self.dtype)(patches)
            else:
                size = (self.kernel_size, self.kernel_size)
                x = nn.Conv(
                    width, size, strides=2, dtype=self.dtype, conv_general_dilated=convolve
                )(x)
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
        for width in (*self.channels[1:], 1):
            x = nn.silu(nn.LayerNorm(dtype=self.dtype)(x))
            if self.kernel_size == 2:
                x = nn.Dense(4 * width, dtype=self.dtype)(x).reshape(len(z), -1, width)
            else:
                size = (self.kernel_size, self.kernel_size)
                x = nn.Conv(4 * width, size, dtype=self.dtype, conv_general_dilated=convolve)(x)
                x = depth_to_space(x)
        if self.kernel_size == 2:
            x = from_quadtree(x, len(self.channels), (factor * time, factor * bands))
        return x[:, : self.output_shape[0], : self.output_shape[1], 0].astype(jnp.float32)


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str, **options: Any
) -> jax.Array:
    """Convolve [B, H, W, C] with [h, w, C, O], as `jax.lax.conv_general_dilated` does.

    `options` are those that `nn.Conv` gives: no dilation, channels last.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    height, width, _, outputs = kernel.shape
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (height, width), strides, padding)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    rows, columns = (
        (x.shape[axis] - kernel.shape[axis - 1]) // strides[axis - 1] + 1 for axis in (1, 2)
    )
    patches = [
        x[:, i : i + strides[0] * rows : strides[0], j : j + strides[1] * columns : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, outputs)


def to_quadtree(x: jax.Array, levels: int) -> jax.Array:
    """Put the pixels of every patch side by side, at all levels: [B, H, W, C] -> [B, HW, C].

    The 4 pixels of a 2 x 2 patch follow each other, so do the 4 such patches of a 4 x 4 patch.
    """
    batch, height, width, channels = x.shape
    halves, size = (2,) * levels, 2**levels
    x = x.reshape(batch, height // size, *halves, width // size, *halves, channels)
    axes = itertools.chain.from_iterable((1 + i, 2 + levels + i) for i in range(levels + 1))
    return x.transpose(0, *axes, x.ndim - 1).reshape(batch, height * width, channels)


def from_quadtree(x: jax.Array, levels: int, shape: tuple[int, int]) -> jax.Array:
    """Invert `to_quadtree`: [B, HW, C] -> [B, H, W, C], of shape (H, W)."""
    (height, width), size = shape, 2**levels
    x = x.reshape(len(x), height // size, width // size, *(2, 2) * levels, x.shape[-1])
    rows, columns = range(1, x.ndim - 1, 2), range(2, x.ndim - 1, 2)
    return x.transpose(0, *rows, *columns, x.ndim - 1).reshape(len(x), *shape, -1)


def depth_to_space(x: jax.Array) -> jax.Array:
    """Move channels to 2 x 2 patches: [B, H, W, 4C] -> [B, 2H, 2W, C]."""
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
