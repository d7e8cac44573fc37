"""A VAE with dense encoder and decoder, for feature vectors [B, D]."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.models.vae import Elbo, Gaussian, Posterior, elbo


class Mlp(nn.Module):
    """Dense layers with SiLU between them."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, D] to [B, features[-1]]."""
        for width in self.features[:-1]:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(self.features[-1])(x)


class Vae(nn.Module):
    """The VAE of Kingma and Welling (2014) with a shared, optionally learned, likelihood scale.

    Attributes
    ----------
    input_dim
        D, length of the feature vectors.
    latent_dim
        L, latent dimensions.
    hidden_dims
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    learned_scale
        Learn the likelihood's standard deviation (Rybkin et al. 2021), else keep it at 1.
    """

    input_dim: int
    latent_dim: int
    hidden_dims: Sequence[int]
    learned_scale: bool

    def setup(self) -> None:  # noqa: D102 (Linen's own)
        self.encoder = Mlp((*self.hidden_dims, 2 * self.latent_dim))
        self.decoder = Mlp((*reversed(self.hidden_dims), self.input_dim))
        if self.learned_scale:
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def encode(self, x: jax.Array) -> Posterior:
        """Return the posterior of standardised features, [B, D]."""
        return Posterior(*jnp.split(self.encoder(x), 2, axis=-1))

    def decode(self, z: jax.Array) -> Gaussian:
        """Return the likelihood of the features given latents, [B, L]."""
        log_scale = self.log_scale if self.learned_scale else jnp.zeros(())
        return Gaussian(self.decoder(z), log_scale)

    def __call__(self, x: jax.Array, key: jax.Array) -> Elbo:
        """Return the ELBO's terms for features, [B, D]."""
        posterior = self.encode(x)
        return elbo(posterior, self.decode(posterior.sample(key)), x)
