"""The posterior of a latent: a diagonal Gaussian, and products of such.

Letters: B batch, L latent dimensions.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct


class Posterior(struct.PyTreeNode):
    """A diagonal Gaussian q(z|x): mean and log_variance, each [..., L]."""

    mean: jax.Array
    log_variance: jax.Array

    @classmethod
    def of(cls, outputs: jax.Array) -> "Posterior":
        """Split a network's outputs, [..., 2L]."""
        return cls(*jnp.split(outputs, 2, axis=-1))

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw z by the reparameterisation of Kingma and Welling (2014), section 2.4."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> jax.Array:
        """KL(q(z|x) || N(0, I)) per latent dimension in nats, [..., L] (ibid., appendix B)."""
        variance = jnp.exp(self.log_variance)
        return 0.5 * (jnp.square(self.mean) + variance - 1.0 - self.log_variance)


def product_of_experts(experts: Sequence[Posterior], present: Sequence[jax.Array]) -> Posterior:
    """Multiply the prior N(0, I) with the experts that are present (Wu and Goodman 2018, 2.2).

    `experts` are [B, L] each, `present` [B] each: 1 where a track has the expert, else 0.
    """
    precision, weighted = jnp.ones(()), jnp.zeros(())
    for expert, there in zip(experts, present, strict=True):
        evidence = there[:, None] * jnp.exp(-expert.log_variance)
        precision += evidence
        weighted += evidence * expert.mean
    return Posterior(weighted / precision, -jnp.log(precision))
