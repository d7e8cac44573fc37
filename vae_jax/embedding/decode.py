"""Decodes with a trained model: reconstructions of a few tracks, and latent traversals.

The embed stage calls it with the latents of all tracks; the result is drawn by `visualize`.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vae_jax.embedding.encoder import Encoder
from vae_jax.embedding.reconstructions import Reconstructions
from vae_jax.features import spectral
from vae_jax.models.posterior import Posterior
from vae_jax.models.vae import Inputs
from vae_jax.records.reader import Records
from vae_jax.records.statistics import Statistics
from vae_jax.training import input_pipeline
from vae_jax.training.array_view import Tracks
from vae_jax.training.input_pipeline import Source
from vae_jax.training.views import View

NUM_TRACKS = 8
NUM_DIMENSIONS = 6
NUM_VALUES = 7
REACH = 2.0  # standard deviations of a latent over the collection, to both sides of its mean


def decode(
    encoder: Encoder, records: Records, conditions: Sequence[str], latents: Iterable[np.ndarray]
) -> Reconstructions | None:
    """Reconstruct tracks that are evenly spaced in the records, and traverse the latent space.

    A track of frames is reconstructed in its middle segment, and one of modalities or of fused
    features in its audio. A traversal sets one latent dimension to `NUM_VALUES` values within
    `REACH`, with all others at the collection's mean. The dimensions are those whose posterior
    means vary most.

    Parameters
    ----------
    encoder
        The trained model.
    records
        Features of N tracks.
    conditions
        Each track's class, for a model with a condition; traversals take these tracks' average.
    latents
        Posterior means of all tracks, in chunks, [n, L].

    Returns
    -------
    Reconstructions | None
        None for models that do not decode to stored features, or without a track that has them.
    """
    model_spec = encoder.model_spec
    model, view = model_spec.build()
    if not isinstance(view, View):
        return None
    name = next(iter(view.arrays))
    chosen = _evenly_spaced(records, name)
    if not len(chosen):
        return None
    dimensions, moved = _traversals(latents, model_spec.config["model"]["latent_dim"])
    source = Source(records, model_spec.class_numbers(conditions))
    tracks = source.load(np.maximum(input_pipeline.pad(chosen, NUM_TRACKS), 0))
    flat = moved.reshape(-1, moved.shape[-1])
    program = jax.jit(_program(model, view, name, len(chosen)))  # so little runs on one device
    arrays = program({"params": encoder.best_params}, tracks, flat)
    inputs, outputs, traversals = jax.device_get(arrays)
    array = view.arrays[name]
    return Reconstructions(
        ids=records.ids[chosen],
        inputs=inputs,
        outputs=outputs,
        center=array.mean,
        scale=np.broadcast_to(1 / array.scale, array.mean.shape),
        traversals=traversals.reshape(*moved.shape[:2], *traversals.shape[1:]),
        dimensions=dimensions,
        values=np.stack([moved[i, :, d] for i, d in enumerate(dimensions)]),
        **_axes(model_spec.config["feature"], name) if array.segment_frames else {},
    )


def _program(
    model: nn.Module, view: View, name: str, count: int
) -> Callable[[Any, Tracks, jax.Array], list[jax.Array]]:
    """Return the function from variables, tracks and latents to inputs, outputs and traversals.

    Inputs and outputs are array `name` of the first `count` tracks, and traversals that of all
    latents.
    """
    array = view.arrays[name]

    def stored(x: jax.Array) -> jax.Array:
        return x[..., : len(array.mean)] / array.scale + array.mean  # the first block, if fused

    def program(variables: Any, tracks: Tracks, latents: jax.Array) -> list[jax.Array]:
        def decoded(z: jax.Array, condition: jax.Array | None) -> jax.Array:
            likelihood = model.apply(variables, z, condition, method="decode")
            return stored(cast(Any, _part(likelihood, name)).mean)

        inputs = _middle_segments(view.whole(tracks))
        z = cast(Posterior, model.apply(variables, inputs, method="encode")).mean
        average = inputs.condition
        if average is not None:
            average = jnp.tile(average[:count].mean(axis=0), (len(latents), 1))
        x, outputs = stored(_part(inputs.x, name)), decoded(z, inputs.condition)
        return [x[:count], outputs[:count], decoded(latents, average)]

    return program


def _part(x: Any, name: str) -> Any:
    """Return one modality, or `x` itself if there are no modalities."""
    return x[name] if isinstance(x, dict) else x


def _evenly_spaced(records: Records, name: str) -> np.ndarray:
    """Return up to `NUM_TRACKS` positions of tracks that have an array, int32."""
    bounds = np.linspace(0, len(records), min(NUM_TRACKS, len(records)) + 1).astype(int)
    found = [
        next((i for i in range(*part) if records.load([i]).get(f"has_{name}", [1])[0]), None)
        for part in pairwise(bounds)
    ]
    return np.array([position for position in found if position is not None], np.int32)


def _traversals(latents: Iterable[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the dimensions that vary most, [D], and the latents to decode, [D, V, L].

    The dimensions are among the first `size`: the audio's, where modalities have their own.
    """
    measured = functools.reduce(Statistics.merge, map(Statistics.of, latents))
    mean = measured.mean.astype(np.float32)
    std = np.sqrt(measured.squares / measured.count).astype(np.float32)
    dimensions = np.argsort(-std[:size], kind="stable")[:NUM_DIMENSIONS]
    moved = np.tile(mean, (len(dimensions), NUM_VALUES, 1))
    for i, dimension in enumerate(dimensions):
        moved[i, :, dimension] += np.linspace(-REACH, REACH, NUM_VALUES) * std[dimension]
    return dimensions, moved


def _middle_segments(inputs: Inputs) -> Inputs:
    """Keep one segment of each track, where tracks are cut into segments."""
    mask = inputs.mask
    there = mask.get("segments") if isinstance(mask, dict) else mask
    if there is None:
        return inputs
    middle = (there.sum(axis=1).astype(int) - 1) // 2
    x = jax.tree.map(lambda a: a[jnp.arange(len(a)), middle] if a.ndim == 4 else a, inputs.x)
    return inputs.replace(x=x, mask=mask if isinstance(mask, dict) else None)


def _axes(feature: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a spectrogram's axes mean: `hop_seconds` and the centres of mel bands."""
    axes: dict[str, Any] = {"hop_seconds": feature["hop_length"] / feature["sample_rate"]}
    if feature["audio_feature" if name == "audio" else "name"] == "logmelspec":
        axes["mel_frequencies"] = spectral.mel_frequencies(spectral.SpectralSpec.of(feature))
    return axes
