"""What every variational autoencoder here shares: inputs, likelihood, ELBO, loss, and `Vae`.

Letters: B batch, S segments, T frames, F bands, D features, L latent dimensions, C classes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from vae_jax.models.posterior import Posterior

LOG_2PI = math.log(2 * math.pi)


class Inputs(struct.PyTreeNode):
    """What a model sees of a batch of tracks, standardised.

    Attributes
    ----------
    x
        Feature vectors [B, D], segments of a spectrogram [B, T, F], all of a track's segments
        [B, S, T, F], or a dict of modalities.
    mask
        1 where there is a segment, 0 for padding, [B, S]; for a dict, 1 where a track has the
        modality, [B] by name. None where all is there.
    condition
        One-hot classes, [B, C], zero where unknown; None for models without a condition.
    position
        Which track each example is, [B]; a batch may hold a track more than once.
    """

    x: Any
    mask: Any = None
    condition: jax.Array | None = None
    position: Any = None


class Gaussian(struct.PyTreeNode):
    """The likelihood p(x|z): mean [B, ...] and a log_scale that broadcasts against it."""

    mean: jax.Array
    log_scale: jax.Array

    def negative_log_prob(self, x: jax.Array) -> jax.Array:
        """-log p(x|z) summed over all dimensions but the first, in nats, [B]."""
        error = (x - self.mean) * jnp.exp(-self.log_scale)
        nats = 0.5 * (jnp.square(error) + LOG_2PI) + self.log_scale
        return nats.reshape(len(x), -1).sum(axis=-1)

    def squared_error(self, x: jax.Array) -> jax.Array:
        """Mean squared error of the mean over all dimensions but the first, [B]."""
        return jnp.square(x - self.mean).reshape(len(x), -1).mean(axis=-1)


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
    other
        What else training minimises, [B]: the KL of assignments and of further latents, a
        contrastive term.
    """

    reconstruction: jax.Array
    kl: jax.Array
    squared_error: jax.Array
    latent: jax.Array
    other: jax.Array


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
    other = weighted_mean(terms.other, weight)
    return reconstruction + other + beta * jnp.maximum(kl, free_bits).sum()


def weighted_mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Average over the first axis, [B, ...] -> [...], leaving out examples of weight 0."""
    return jnp.tensordot(weight, values, axes=1) / jnp.maximum(weight.sum(), 1.0)


class Vae(nn.Module):
    """The VAE of Kingma and Welling (2014); its networks decide what its inputs are.

    Attributes
    ----------
    encoder
        Maps (x, condition or None) to posterior parameters, [B, 2L].
    decoder
        Maps latents with the condition appended, [B, L + C], to the likelihood's mean.
    prior
        Maps the posterior to what it costs, a `priors.Divergence`.
    learned_scale
        Learn the likelihood's standard deviation (Rybkin et al. 2021), else keep it at 1.
    deterministic
        Be a plain autoencoder: decode the posterior mean, without a KL term.
    input_noise
        Standard deviation of the noise added to what the encoder sees in training, in units of
        the standardised input (the denoising criterion of Im et al. 2017).
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: nn.Module
    learned_scale: bool
    deterministic: bool
    input_noise: float

    def setup(self) -> None:  # noqa: D102 (Linen's own)
        if self.learned_scale:
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def encode(self, inputs: Inputs) -> Posterior:
        """Return the posterior of each example, or of each track from all its segments."""
        if inputs.mask is None:
            return Posterior.of(self.encoder(inputs.x, inputs.condition))
        return self._pool(inputs)

    def infer(self, inputs: Inputs) -> Posterior:
        """Return the posterior as the prior sees it: the same as `encode`."""
        return self.encode(inputs)

    def decode(self, z: jax.Array, condition: jax.Array | None = None) -> Gaussian:
        """Return the likelihood of the features given latents, [B, L]."""
        if condition is not None:
            z = jnp.concatenate([z, condition], axis=-1)
        log_scale = self.log_scale if self.learned_scale else jnp.zeros(())
        return Gaussian(self.decoder(z), log_scale)

    def assign(self, posterior: Posterior) -> jax.Array:
        """Return the probability of each component of a mixture prior, [B, K]."""
        return self.prior.assign(posterior)

    def __call__(self, inputs: Inputs, key: jax.Array) -> Elbo:
        """Return the ELBO's terms of a batch, from one sample of the posterior."""
        noise_key, sample_key = jax.random.split(key)
        noise = self.input_noise * jax.random.normal(noise_key, inputs.x.shape)
        posterior = self.encode(inputs.replace(x=inputs.x + noise))
        z = posterior.mean if self.deterministic else posterior.sample(sample_key)
        likelihood, divergence = self.decode(z, inputs.condition), self.prior(posterior)
        return Elbo(
            reconstruction=likelihood.negative_log_prob(inputs.x),
            kl=jnp.zeros_like(z) if self.deterministic else divergence.kl,
            squared_error=likelihood.squared_error(inputs.x),
            latent=posterior.mean,
            other=divergence.assignment,
        )

    def _pool(self, inputs: Inputs) -> Posterior:
        """Average the posterior means and variances of a track's segments, [B, S, T, F]."""
        x, mask, condition = inputs.x, inputs.mask, inputs.condition
        num_tracks, num_segments = x.shape[:2]
        if condition is not None:
            condition = jnp.repeat(condition, num_segments, axis=0)
        flat = self.encoder(x.reshape(-1, *x.shape[2:]), condition)
        segments = Posterior.of(flat.reshape(num_tracks, num_segments, -1))
        weight = (mask / mask.sum(axis=1, keepdims=True))[..., None]
        variance = (weight * jnp.exp(segments.log_variance)).sum(axis=1)
        return Posterior((weight * segments.mean).sum(axis=1), jnp.log(variance))
