"""Priors of a latent: a normal, and a mixture of Gaussians that finds clusters.

Letters: B batch, L latent dimensions, K components.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from vae_jax.models.posterior import Posterior


class Divergence(struct.PyTreeNode):
    """What a posterior costs under a prior, in nats.

    Attributes
    ----------
    kl
        The KL per latent dimension, [B, L]; under a mixture, averaged over the components.
    assignment
        KL between the assignment to components and their weights, [B]; 0 without a mixture.
    """

    kl: jax.Array
    assignment: jax.Array


class Normal(nn.Module):
    """The prior N(0, diag(variance)).

    Attributes
    ----------
    latent_dim
        L.
    variance
        The variance of each dimension, L of them; 1 if not given.
    """

    latent_dim: int
    variance: tuple[float, ...] = ()

    def __call__(self, posterior: Posterior) -> Divergence:
        """Return KL(q(z|x) || p(z))."""
        kl = posterior.scale(1 / jnp.sqrt(self.within())).kl()
        return Divergence(kl, jnp.zeros(kl.shape[:-1]))

    def complete(self, posterior: Posterior) -> Posterior:
        """Return the posterior as it is: N(0, I) is all that the prior knows of what is missing."""
        return posterior

    def within(self) -> jax.Array:
        """Return the variance within the only component, [L]."""
        return jnp.array(self.variance or (1.0,) * self.latent_dim)

    def is_fitted(self) -> jax.Array:
        """Return True: there is nothing to fit."""
        return jnp.array(True)


class Mixture(nn.Module):
    """A mixture of diagonal Gaussians (VaDE, Jiang et al. 2017).

    Until it is initialised from latents (see `mixture.initialise`) all components are
    N(0, diag(variance)), so that it equals the normal prior.

    Attributes
    ----------
    num_components
        K.
    latent_dim
        L.
    variance
        The variance of each dimension, L of them; 1 if not given.
    """

    num_components: int
    latent_dim: int
    variance: tuple[float, ...] = ()

    def setup(self) -> None:  # noqa: D102 (Linen's own)
        shape, zeros = (self.num_components, self.latent_dim), nn.initializers.zeros
        self.logits = self.param("logits", zeros, (self.num_components,))
        self.mean = self.param("mean", zeros, shape)
        start = jnp.log(jnp.array(self.variance or (1.0,) * self.latent_dim))
        self.log_variance = self.param("log_variance", nn.initializers.constant(start), shape)

    def __call__(self, posterior: Posterior) -> Divergence:
        """Bound KL(q(z|x) || p(z)) by the best assignment q(c|x) (ibid., equation 9).

        The bound is -log sum_c pi_c exp(-KL(q(z|x) || p(z|c))), in closed form where the paper
        samples z. A component's variance cannot fall below the posterior variances of its tracks,
        so none collapses onto one track.
        """
        kl, log_assignment = self._components(posterior)
        assignment = jnp.exp(log_assignment)
        surprise = log_assignment - jax.nn.log_softmax(self.logits)
        return Divergence(
            (assignment[..., None] * kl).sum(axis=-2), (assignment * surprise).sum(axis=-1)
        )

    def complete(self, posterior: Posterior) -> Posterior:
        """Fill in missing dimensions from the component that the known ones make most likely.

        A component's dimensions are independent, so its own Gaussian is the posterior of missing
        ones. An average over all components would be a place between clusters where no track is.
        """
        if posterior.known is None:
            return posterior
        component = self.assign(posterior).argmax(axis=-1)
        is_known = posterior.known > 0
        return posterior.replace(
            mean=jnp.where(is_known, posterior.mean, self.mean[component]),
            log_variance=jnp.where(is_known, posterior.log_variance, self.log_variance[component]),
        )

    def within(self) -> jax.Array:
        """Return the variance within components, averaged over them, [L]."""
        return jax.nn.softmax(self.logits) @ jnp.exp(self.log_variance)

    def is_fitted(self) -> jax.Array:
        """Return whether the components differ, bool."""
        return jnp.any(self.mean != self.mean[0])

    def assign(self, posterior: Posterior) -> jax.Array:
        """Return the probability of each component given a track, [B, K]."""
        return jnp.exp(self._components(posterior)[1])

    def _components(self, posterior: Posterior) -> tuple[jax.Array, jax.Array]:
        """Return the KL to each component, [B, K, L], and the log assignment, [B, K]."""
        mean, log_variance = posterior.mean[..., None, :], posterior.log_variance[..., None, :]
        ratio = log_variance - self.log_variance
        distance = jnp.square(mean - self.mean) * jnp.exp(-self.log_variance)
        kl = 0.5 * (jnp.exp(ratio) + distance - 1.0 - ratio)
        if posterior.known is not None:  # missing dimensions follow the component, at no cost
            kl *= posterior.known[..., None, :]
        return kl, jax.nn.log_softmax(jax.nn.log_softmax(self.logits) - kl.sum(axis=-1))


def build(
    model: Mapping[str, Any], num_blocks: int = 1, variance: tuple[float, ...] = ()
) -> nn.Module:
    """Return the prior that `config.model` describes, for so many latents side by side.

    `variance` is the variance of each dimension before a mixture starts; 1 if not given.
    """
    size = num_blocks * model["latent_dim"]
    if model["prior"] == "normal":
        return Normal(size, variance)
    return Mixture(model["num_components"], size, variance)
