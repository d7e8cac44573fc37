"""The posterior of a latent: a diagonal Gaussian, and several side by side.

Letters: B batch, L latent dimensions.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct


class Posterior(struct.PyTreeNode):
    """A diagonal Gaussian q(z|x).

    Attributes
    ----------
    mean
        Its mean, [..., L].
    log_variance
        The logarithm of its variance, [..., L].
    known
        1 if the data tell of a dimension, 0 if they are missing and only the prior does, [..., L];
        None if nothing is missing.
    """

    mean: jax.Array
    log_variance: jax.Array
    known: jax.Array | None = None

    @classmethod
    def of(cls, outputs: jax.Array) -> "Posterior":
        """Split a network's outputs, [..., 2L]."""
        return cls(*jnp.split(outputs, 2, axis=-1))

    def scale(self, factors: jax.Array) -> "Posterior":
        """Return the posterior of the latents times these factors, [L], all above 0."""
        log_variance = self.log_variance + 2 * jnp.log(factors)
        return self.replace(mean=self.mean * factors, log_variance=log_variance)

    def rotate(self, rotation: jax.Array) -> "Posterior":
        """Return the posterior of the latents times an orthonormal matrix, [L, L].

        Each dimension's variance is kept; the covariances that the rotation makes are left out.
        """
        variance = jnp.exp(self.log_variance) @ jnp.square(rotation)
        return Posterior(self.mean @ rotation, jnp.log(variance))

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw z by the reparameterisation of Kingma and Welling (2014), section 2.4."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> jax.Array:
        """KL(q(z|x) || N(0, I)) per latent dimension in nats, [..., L] (ibid., appendix B)."""
        variance = jnp.exp(self.log_variance)
        return 0.5 * (jnp.square(self.mean) + variance - 1.0 - self.log_variance)


def side_by_side(blocks: Sequence[Posterior], present: Sequence[jax.Array]) -> Posterior:
    """Concatenate posteriors of separate latents; where a track lacks one, it is N(0, I).

    `blocks` are [B, L_i] each, `present` [B] each: 1 where a track has the block, else 0.
    """
    known = jnp.concatenate(
        [
            jnp.broadcast_to(there[:, None], block.mean.shape)
            for block, there in zip(blocks, present, strict=True)
        ],
        axis=-1,
    )
    mean = jnp.concatenate([block.mean for block in blocks], axis=-1)
    log_variance = jnp.concatenate([block.log_variance for block in blocks], axis=-1)
    return Posterior(known * mean, known * log_variance, known)
