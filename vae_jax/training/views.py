"""From stored arrays to what a model sees: standardised vectors, segments, modalities.

A view is pure and runs inside the jitted programs. `sample` is for training: it takes one segment
at random from a track that is stored as frames. `whole` is for export: it takes all segments.

Letters: n tracks, T frames, F bands, S segments.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import UserError
from vae_jax.models.declared import models_declared
from vae_jax.models.vae import Inputs
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training.array_view import ArrayView, Tracks, scaling
from vae_jax.training.track_view import TrackView
from vae_jax.training.whitening import Whitening


@dataclass(frozen=True)
class View:
    """How a model sees tracks: one array, several fused into one vector, or a dict of modalities.

    Attributes
    ----------
    arrays
        The arrays by name.
    is_fused
        Concatenate the arrays, each divided by the root of its size and weighted (early fusion).
    weights
        How much each array counts, by name.
    num_classes
        C, the classes of the condition; 0 without one.
    """

    arrays: Mapping[str, ArrayView]
    is_fused: bool
    weights: Mapping[str, float]
    num_classes: int = 0

    @property
    def input_shape(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """The shape of one example, or of each modality."""
        shapes = {name: view.shape for name, view in self.arrays.items()}
        if self.is_fused:
            return (sum(size for (size,) in shapes.values()),)
        return shapes["features"] if list(shapes) == ["features"] else shapes

    @property
    def cut(self) -> ArrayView | None:
        """The array of which `sample` takes one segment of each track; None if it takes all.

        A segment that is longer than a window is not one piece of what is stored.
        """
        for view in self.arrays.values():
            if view.segment_frames and view.segment_frames <= (view.window or math.inf):
                return view
        return None

    def sample(self, tracks: Tracks, key: jax.Array) -> Inputs:
        """Return what a model is trained on: one random segment per track, if frames are stored."""
        num_frames = tracks.get("num_frames")
        x = {name: view.sample(tracks[name], num_frames, key) for name, view in self.arrays.items()}
        return self._inputs(tracks, x, {})

    def whole(self, tracks: Tracks) -> Inputs:
        """Return all of each track: all its segments, if frames are stored."""
        x, masks = {}, {}
        for name, view in self.arrays.items():
            if view.segment_frames is None:
                x[name] = view.vectors(tracks[name], tracks.get("num_frames"))
            else:
                x[name], masks["segments"] = view.whole(tracks[name], tracks["num_frames"])
        return self._inputs(tracks, x, masks)

    def precompute(self, tracks: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return tracks as they are: to cut and standardise them costs little."""
        return tracks

    def kept(self, inputs: Inputs, latent: jax.Array) -> dict[str, jax.Array]:
        """Return nothing: see `TrackView.kept`."""
        return {}

    def _inputs(self, tracks: Tracks, x: dict[str, jax.Array], masks: dict[str, Any]) -> Inputs:
        condition = None
        if self.num_classes:
            condition = jax.nn.one_hot(tracks["condition"], self.num_classes)
        if list(x) == ["features"]:
            return Inputs(x["features"], masks.get("segments"), condition)
        present = {name: tracks[f"has_{name}"].astype(jnp.float32) for name in x}
        if self.is_fused:
            return Inputs(fuse(x, present, self.weights), None, condition)
        return Inputs(x, present | masks, condition)


def fuse(
    x: Mapping[str, Any], present: Mapping[str, Any], weights: Mapping[str, float]
) -> jax.Array:
    """Concatenate standardised vectors [n, D_i] so that weights, not sizes, say what counts.

    Each is divided by the root of its size, and multiplied with that of the first, which keeps its
    scale. A vector that a track lacks is at the mean, 0.
    """
    size = next(iter(x.values())).shape[-1]
    blocks = [
        weights[name] * np.sqrt(size / part.shape[-1]) * part * present[name][:, None]
        for name, part in x.items()
    ]
    return jnp.concatenate(blocks, axis=-1)


KINDS = {
    "vectors": "one vector of each track (mfcc, lyrics_tfidf, an embedding [N, D])",
    "frames": "frames (mfcc_frames, logmelspec)",
    "segments": "vectors of its segments (musicnn, an embedding [N, S, D])",
}


def check(config: Mapping[str, Any], arrays: Mapping[str, ArraySpec]) -> None:
    """Raise a `UserError` if the model, or PLDA, cannot see what is stored of each track."""
    model, feature = config["model"], config["feature"]
    rows = [spec for spec in arrays.values() if spec.shape[:1] == (None,)]
    found = ("segments" if rows[0].is_segments else "frames") if rows else "vectors"
    sees = models_declared()[model["name"]].sees
    needed = {
        "vector": ("vectors", "segments"),
        "segment": ("frames",),
        "segments": ("frames",) if model["encoder"] == "conv2d" else ("frames", "segments"),
        "modalities": tuple(KINDS),
    }[sees]
    if found not in needed:
        key = "encoder" if sees == "segments" and found == "segments" else "name"
        raise UserError(
            f"config.model.{key}={model[key]} needs {' or '.join(KINDS[kind] for kind in needed)}, "
            f"but config.feature.name={feature['name']} gives {KINDS[found]}: change one of them."
        )
    if "plda" in config["baselines"] and found == "vectors":
        raise UserError(
            f"config.baselines=plda needs {KINDS['segments']}, but "
            f"config.feature.embedding gives {KINDS['vectors']}: leave plda out."
        )


def build(
    config: Mapping[str, Any],
    arrays: Mapping[str, ArraySpec],
    statistics: Mapping[str, Statistics],
    num_classes: int,
    whitening: Whitening | None = None,
) -> View | TrackView:
    """Return the view of stored arrays that `config.model` needs.

    `whitening` is the whitening of descriptions, for the track VAE.

    Raises
    ------
    UserError
        If the model cannot see such features.
    """
    model, feature = config["model"], config["feature"]
    check(config, arrays)
    sees_vectors = models_declared()[model["name"]].sees == "vector"
    frames = {name for name, spec in arrays.items() if spec.shape and spec.shape[0] is None}
    cut = set() if sees_vectors else frames
    stored = {name: spec for name, spec in arrays.items() if spec.shape}
    views = {
        name: ArrayView(
            *scaling(statistics[name]),
            segment_frames=spec.segment_rows(model["segment_frames"]) if name in cut else None,
            window=spec.window,
            is_pooled=name in frames - cut,
        )
        for name, spec in stored.items()
    }
    if whitening is not None:
        return TrackView(
            views["features"],
            *scaling(statistics["description"]),
            whitening=whitening,
            num_segments=model["num_segments"],
            noise=model["input_noise"],
            needs_segments=model["encoder"] == "conv2d",
        )
    weights = {name: feature["lyrics_weight"] if name == "lyrics" else 1.0 for name in stored}
    return View(views, len(stored) > 1 and sees_vectors, weights, num_classes)


def measure_means(records: Records) -> Statistics:
    """Measure the means of tracks' vectors of segments, which vary less than these."""
    parts = (
        np.stack([rows.mean(axis=0) for rows in records.load(part)["features"]])
        for part in records.parts(np.arange(len(records)))
    )
    return functools.reduce(Statistics.merge, map(Statistics.of, parts))
