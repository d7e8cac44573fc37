"""The track VAE: one latent per track, from the evidence of all its segments.

Each segment gives evidence about its track: a Gaussian whose precisions are added to the prior's
(the group posterior of the multi-level VAE, Bouchacourt et al. 2018, equation 4). The decoder
reconstructs a description of each segment (see `track_view.describe`) from the track's latent
alone. Segments have no latents of their own, which would take over what they share (Hosoya 2019).
How they differ from their track is noise with a full covariance, since descriptions come whitened
(see `whitening`). Before training the model is this closed form: its latents are the directions in
which tracks differ most, relative to how much their segments differ. Networks that start at zero
add to it.

Letters: B tracks, S segments, T frames, F bands, D size of a description, L latent dimensions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.fft import dct

from vae_jax.models import conv2d, priors
from vae_jax.models.posterior import Posterior
from vae_jax.models.vae import Elbo, Gaussian, Inputs

DECLARES = {
    "title": "track VAE",
    "features": ("mfcc_frames", "logmelspec", "embedding", "musicnn"),
    "sees": "segments",
    "refuses": ("condition", "deterministic", "ae"),
}

TEMPERATURE = 0.1  # of the contrastive term's cosine similarities


class TrackVae(nn.Module):
    """A VAE of tracks as sets of segments.

    Outside this class, distances between latents are in deviations of the segments within a track.
    The axes of exported latents are mixed, so that all have about the same variance. Standardising
    the columns then keeps the distances.

    Attributes
    ----------
    evidence
        Maps segments, or their descriptions, [B S, ...], to corrections of their evidence,
        [B S, 2 L].
    decoder
        Maps latents, [B, L], to corrections of the likelihood's mean, [B, D].
    prior
        Maps the track's posterior to what it costs, a `priors.Divergence`.
    between
        Variance of the tracks along each axis of the whitened descriptions, D of them.
    latent_dim
        L, at most D.
    sees_segments
        Whether segments are seen, [T, F], instead of their descriptions, [D].
    contrast
        Weight of the contrastive term.
    """

    evidence: nn.Module
    decoder: nn.Module
    prior: nn.Module
    between: tuple[float, ...]
    latent_dim: int
    sees_segments: bool
    contrast: float

    def setup(self) -> None:  # noqa: D102 (Linen's own)
        self.log_scale = self.param("log_scale", nn.initializers.zeros, (len(self.between),))

    def encode(self, inputs: Inputs) -> Posterior:
        """Return the posterior of each track given its segments, [B, L], its axes mixed."""
        return self.infer(inputs).rotate(mixing(self.latent_dim))

    def assign(self, posterior: Posterior) -> jax.Array:
        """Return the probability of each component of a mixture prior, [B, K], given `encode`'s."""
        return self.prior.assign(posterior.rotate(mixing(self.latent_dim).T))

    def infer(self, inputs: Inputs) -> Posterior:
        """Return the posterior of each track given its segments, [B, L], as the prior sees it."""
        return self._multiply(self._evidence(inputs), inputs.mask)

    def decode(self, z: jax.Array) -> Gaussian:
        """Return the likelihood of whitened descriptions, [B, D], given what `infer` infers."""
        rest = jnp.zeros((*z.shape[:-1], len(self.between) - self.latent_dim))
        return Gaussian(jnp.concatenate([z, rest], axis=-1) + self.decoder(z), self.log_scale)

    def __call__(self, inputs: Inputs, key: jax.Array) -> Elbo:
        """Return the ELBO's terms of a batch of tracks."""
        evidence, x, mask = self._evidence(inputs), inputs.x["whitened"], inputs.mask
        posterior = self._multiply(evidence, mask)
        divergence = self.prior(posterior)
        likelihood = self.decode(posterior.sample(key))
        error = x - likelihood.mean[:, None]
        scaled = jnp.square(error * jnp.exp(-likelihood.log_scale))
        nats = (0.5 * scaled + likelihood.log_scale).sum(axis=-1)
        squared = jnp.square(error).mean(axis=-1)
        return Elbo(
            reconstruction=(mask * nats).sum(axis=1),
            kl=divergence.kl,
            squared_error=(mask * squared).sum(axis=1) / mask.sum(axis=1),
            latent=posterior.mean,
            other=divergence.assignment + self.contrast * self._contrast(evidence, inputs),
        )

    def _evidence(self, inputs: Inputs) -> Posterior:
        """Return each segment's evidence of the track, [B, S, L]."""
        seen, shape = inputs.x["segments" if self.sees_segments else "whitened"], inputs.mask.shape
        correction = self.evidence(seen.reshape(-1, *seen.shape[2:])).reshape(*shape, -1)
        mean, log_variance = jnp.split(correction, 2, axis=-1)
        return Posterior(inputs.x["whitened"][..., : self.latent_dim] + mean, log_variance)

    def _multiply(self, evidence: Posterior, mask: jax.Array) -> Posterior:
        """Multiply N(0, diag(between)), the distribution of tracks, with the evidence."""
        return multiply(evidence, mask, jnp.array(self.between[: self.latent_dim]))

    def _contrast(self, evidence: Posterior, inputs: Inputs) -> jax.Array:
        """InfoNCE (van den Oord et al. 2018, equation 4) between two halves of each track, [B].

        Among all halves in the batch, the two of one track must be the closest. A track of one
        segment has only one half, and takes no part.
        """
        odd = jnp.arange(inputs.mask.shape[1]) % 2
        masks = [inputs.mask * (odd == side) for side in (0, 1)]
        first, second = (_unit(self._multiply(evidence, mask).mean) for mask in masks)
        similarity = first @ second.T / TEMPERATURE
        has_both = jnp.minimum(*(mask.max(axis=1) for mask in masks))
        is_other = (inputs.position[:, None] != inputs.position) & (has_both > 0)
        is_rival = is_other | jnp.eye(len(first), dtype=bool)
        nats = [
            -jnp.diag(jax.nn.log_softmax(jnp.where(is_rival, found, -jnp.inf)))
            for found in (similarity, similarity.T)
        ]
        return has_both * (nats[0] + nats[1]) / 2


class Correction(nn.Module):
    """A network, then a linear map that starts at zero.

    Attributes
    ----------
    network
        Maps what is seen to hidden units.
    size
        The size of the output.
    """

    network: nn.Module
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, ...] to [B, size]."""
        return nn.Dense(self.size, kernel_init=nn.initializers.zeros)(self.network(x))


class Hidden(nn.Module):
    """Dense layers with SiLU after each."""

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, D] to [B, features[-1]]."""
        for width in self.features:
            x = nn.silu(nn.Dense(width)(x))
        return x


def multiply(evidence: Posterior, mask: jax.Array, variance: jax.Array | float = 1.0) -> Posterior:
    """Multiply the prior N(0, diag(variance)) with the evidence of the segments that exist.

    `evidence` is [B, S, L], `mask` [B, S]; the product is [B, L].
    """
    precision = mask[..., None] * jnp.exp(-evidence.log_variance)
    total = 1 / variance + precision.sum(axis=1)
    return Posterior((precision * evidence.mean).sum(axis=1) / total, -jnp.log(total))


def mixing(size: int) -> jax.Array:
    """Return an orthonormal matrix, [L, L], each row of which is spread over all columns."""
    return jnp.array(dct(np.eye(size), norm="ortho"), jnp.float32)


def build(
    config: Mapping[str, Any],
    input_shape: Mapping[str, tuple[int, ...]],
    between: np.ndarray,
) -> TrackVae:
    """Return the track VAE that a config describes, for segments of the given shapes.

    `between` is the tracks' variance along each axis of the whitened descriptions, [D].
    """
    model, (size,) = config["model"], input_shape["description"]
    hidden, latent_dim = tuple(model["hidden_dims"]), min(model["latent_dim"], size)
    sees_segments = model["encoder"] == "conv2d"
    network: nn.Module = Hidden(hidden)
    if sees_segments:
        network = conv2d.Encoder(
            tuple(model["channels"]), model["kernel_size"], hidden[-1], model["dtype"]
        )
    variance = tuple(between.tolist())
    return TrackVae(
        evidence=Correction(network, 2 * latent_dim),
        decoder=Correction(Hidden(hidden[::-1]), size),
        prior=priors.build({**model, "latent_dim": latent_dim}, variance=variance[:latent_dim]),
        between=variance,
        latent_dim=latent_dim,
        sees_segments=sees_segments,
        contrast=model["contrast"],
    )


def _unit(vectors: jax.Array) -> jax.Array:
    """Divide vectors by their norm; its derivative is finite where one is zero."""
    return vectors * jax.lax.rsqrt(jnp.square(vectors).sum(axis=-1, keepdims=True) + 1e-12)
