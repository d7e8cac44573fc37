"""The parts that every variational autoencoder here shares: posterior, likelihood, ELBO, loss.

Letters: B batch, D features, L latent dimensions.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

LOG_2PI = math.log(2 * math.pi)


class Posterior(struct.PyTreeNode):
    """A diagonal Gaussian q(z|x): mean and log_variance, each [B, L]."""

    mean: jax.Array
    log_variance: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw z by the reparameterisation of Kingma and Welling (2014), section 2.4."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> jax.Array:
        """KL(q(z|x) || N(0, I)) per latent dimension in nats, [B, L] (ibid., appendix B)."""
        variance = jnp.exp(self.log_variance)
        return 0.5 * (jnp.square(self.mean) + variance - 1.0 - self.log_variance)


class Gaussian(struct.PyTreeNode):
    """The likelihood p(x|z): mean [B, ...] and a log_scale that broadcasts against it."""

    mean: jax.Array
    log_scale: jax.Array

    def negative_log_prob(self, x: jax.Array) -> jax.Array:
        """-log p(x|z) summed over all dimensions but the first, in nats, [B]."""
        error = (x - self.mean) * jnp.exp(-self.log_scale)
        nats = 0.5 * (jnp.square(error) + LOG_2PI) + self.log_scale
        return nats.reshape(len(x), -1).sum(axis=-1)


class Elbo(struct.PyTreeNode):
    """The negative ELBO's terms, per example, with what evaluation wants to know.

    Attributes
    ----------
    reconstruction
        -log p(x|z) in nats, [B].
    kl
        KL per latent dimension in nats, [B, L].
    squared_error
        Mean squared error of the reconstruction, in units of the standardised input, [B].
    latent
        The posterior mean, [B, L].
    """

    reconstruction: jax.Array
    kl: jax.Array
    squared_error: jax.Array
    latent: jax.Array


def elbo(posterior: Posterior, likelihood: Gaussian, x: jax.Array) -> Elbo:
    """Assemble the ELBO of x, [B, ...], from one sample of the posterior."""
    squared = jnp.square(x - likelihood.mean).reshape(len(x), -1).mean(axis=-1)
    return Elbo(likelihood.negative_log_prob(x), posterior.kl(), squared, posterior.mean)


def loss(terms: Elbo, weight: jax.Array, beta: jax.Array | float, free_bits: float) -> jax.Array:
    """Return the beta-weighted negative ELBO per example in nats, a scalar.

    Parameters
    ----------
    terms
        The ELBO's terms for a batch.
    weight
        1 for an example, 0 for padding, [B].
    beta
        Weight of the KL term (Higgins et al. 2017, equation 4).
    free_bits
        Nats per latent dimension, averaged over the batch, that cost nothing (Kingma et al.
        2016, equation 15).
    """
    reconstruction = weighted_mean(terms.reconstruction, weight)
    kl = weighted_mean(terms.kl, weight)
    return reconstruction + beta * jnp.maximum(kl, free_bits).sum()


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Average over the first axis, [B, ...] -> [...], leaving out examples of weight 0."""
    return jnp.tensordot(weight, values, axes=1) / jnp.maximum(weight.sum(), 1.0)
