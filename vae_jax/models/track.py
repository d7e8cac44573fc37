"""The track VAE: one latent per track, a small latent per segment.

Each segment gives evidence of its track: a Gaussian whose precisions are added to the prior's
(the group posterior of the multi-level VAE, Bouchacourt et al. 2018, equation 4). The decoder
sees the track's latent and the segment's own, so what all segments share goes to the former and
what changes from segment to segment, like melody and timing, to the latter. It reconstructs a
description of each segment (see `views.describe`), which the encoder sees too, or instead sees
the segment itself through convolutions.

Letters: B tracks, S segments, T frames, F bands, D size of a description, L latent dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vae_jax.models import conv2d, priors
from vae_jax.models.posterior import Posterior
from vae_jax.models.vae import Elbo, Gaussian, Inputs

TEMPERATURE = 0.1  # of the contrastive term's cosine similarities


class TrackVae(nn.Module):
    """A VAE of tracks as sets of segments.

    Attributes
    ----------
    encoder
        Maps what is seen of segments, [B S, ...], to evidence and segment posteriors,
        [B S, 2 L + 2 segment_dim].
    decoder
        Maps latents, [B S, L + segment_dim], to the likelihood's mean, [B S, D].
    prior
        Maps the track's posterior to what it costs, a `priors.Divergence`.
    latent_dim, segment_dim
        Sizes of the track's and of the segments' latents.
    description_dim
        D; the likelihood learns a standard deviation for each.
    sees_segments
        Whether the encoder sees the segments, [T, F], instead of their descriptions, [D].
    contrast
        Weight of the contrastive term.
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: nn.Module
    latent_dim: int
    segment_dim: int
    description_dim: int
    sees_segments: bool
    contrast: float

    def setup(self) -> None:  # noqa: D102 (Linen's own)
        self.log_scale = self.param("log_scale", nn.initializers.zeros, (self.description_dim,))

    def encode(self, inputs: Inputs) -> Posterior:
        """Return the posterior of each track given its segments, [B, L]."""
        evidence, _ = self._encode_segments(inputs)
        return multiply(evidence, inputs.mask)

    def decode(self, z: jax.Array, segment: jax.Array | None = None) -> Gaussian:
        """Return the likelihood of segments, [..., D], given track and segment latents.

        Without segment latents, theirs are at the prior's mean.
        """
        if segment is None:
            segment = jnp.zeros((*z.shape[:-1], self.segment_dim))
        return Gaussian(self.decoder(jnp.concatenate([z, segment], axis=-1)), self.log_scale)

    def assign(self, posterior: Posterior) -> jax.Array:
        """Return the probability of each component of a mixture prior, [B, K]."""
        return self.prior.assign(posterior)

    def __call__(self, inputs: Inputs, key: jax.Array) -> Elbo:
        """Return the ELBO's terms of a batch of tracks."""
        track_key, segment_key = jax.random.split(key)
        evidence, segments = self._encode_segments(inputs)
        posterior, mask = multiply(evidence, inputs.mask), inputs.mask
        divergence = self.prior(posterior)
        z = posterior.sample(track_key)[:, None]
        z = jnp.broadcast_to(z, (*mask.shape, self.latent_dim))
        likelihood = self.decode(z, segments.sample(segment_key))
        x = inputs.x["description"]
        error = (x - likelihood.mean) * jnp.exp(-likelihood.log_scale)
        nats = (0.5 * jnp.square(error) + likelihood.log_scale).sum(axis=-1)
        squared = jnp.square(x - likelihood.mean).mean(axis=-1)
        return Elbo(
            reconstruction=(mask * nats).sum(axis=1),
            kl=divergence.kl,
            squared_error=(mask * squared).sum(axis=1) / mask.sum(axis=1),
            latent=posterior.mean,
            other=divergence.assignment
            + (mask * segments.kl().sum(axis=-1)).sum(axis=1)
            + self.contrast * self._contrast(evidence, inputs),
        )

    def _encode_segments(self, inputs: Inputs) -> tuple[Posterior, Posterior]:
        """Return each segment's evidence of the track, and its own posterior, [B, S, ...]."""
        x = inputs.x["segments" if self.sees_segments else "description"]
        outputs = self.encoder(x.reshape(-1, *x.shape[2:])).reshape(*inputs.mask.shape, -1)
        evidence, segment = jnp.split(outputs, [2 * self.latent_dim], axis=-1)
        return Posterior.of(evidence), Posterior.of(segment)

    def _contrast(self, evidence: Posterior, inputs: Inputs) -> jax.Array:
        """InfoNCE (van den Oord et al. 2018, equation 4) between two halves of each track, [B].

        Of every pair of tracks in the batch, the two halves of the same one must be the closest.
        """
        odd = jnp.arange(inputs.mask.shape[1]) % 2
        halves = [multiply(evidence, inputs.mask * (odd == side)).mean for side in (0, 1)]
        first, second = (
            half / (1e-6 + jnp.linalg.norm(half, axis=-1, keepdims=True)) for half in halves
        )
        similarity = first @ second.T / TEMPERATURE
        is_same = inputs.position[:, None] == inputs.position
        similarity = jnp.where(is_same & ~jnp.eye(len(first), dtype=bool), -jnp.inf, similarity)
        there = (
            -jnp.diag(jax.nn.log_softmax(similarity)),
            -jnp.diag(jax.nn.log_softmax(similarity.T)),
        )
        return (there[0] + there[1]) / 2


class SkipMlp(nn.Module):
    """A linear map plus an MLP that starts at zero: all that few tracks support, and a start."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, D] to [B, features[-1]]."""
        *widths, size = self.features
        hidden = x
        for width in widths:
            hidden = nn.silu(nn.Dense(width)(hidden))
        correction = nn.Dense(size, use_bias=False, kernel_init=nn.initializers.zeros)
        return nn.Dense(size)(x) + correction(hidden)


def multiply(evidence: Posterior, mask: jax.Array) -> Posterior:
    """Multiply the prior N(0, I) with the evidence of the segments that there are.

    `evidence` is [B, S, L], `mask` [B, S]; the product is [B, L].
    """
    precision = mask[..., None] * jnp.exp(-evidence.log_variance)
    total = 1.0 + precision.sum(axis=1)
    return Posterior((precision * evidence.mean).sum(axis=1) / total, -jnp.log(total))


def build(config: Mapping[str, Any], input_shape: Mapping[str, tuple[int, ...]]) -> TrackVae:
    """Return the track VAE that a config describes, for segments of the given shapes."""
    model, (size,) = config["model"], input_shape["description"]
    hidden, latent_dim, segment_dim = (
        model["hidden_dims"],
        model["latent_dim"],
        model["segment_dim"],
    )
    outputs = 2 * (latent_dim + segment_dim)
    sees_segments = model["encoder"] == "conv2d"
    if sees_segments:
        encoder: nn.Module = conv2d.Encoder(
            tuple(model["channels"]), model["kernel_size"], outputs, model["dtype"]
        )
    else:
        encoder = SkipMlp((*hidden, outputs))
    decoder = SkipMlp((*reversed(hidden), size))
    return TrackVae(
        encoder=encoder,
        decoder=decoder,
        prior=priors.build(model),
        latent_dim=latent_dim,
        segment_dim=segment_dim,
        description_dim=size,
        sees_segments=sees_segments,
        contrast=model["contrast"],
    )
