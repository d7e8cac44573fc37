"""From stored arrays to what a model sees: standardised vectors, segments, modalities.

A view is pure and runs inside the jitted programs. `sample` is for training: of a track stored
as frames it takes one segment at random. `whole` is for export: it takes all segments.

Letters: n tracks, T frames, F bands, S segments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import UserError
from vae_jax.models.vae import Inputs
from vae_jax.records.reader import ArraySpec, Records, Statistics

PHASES = 8  # where the grid of a track's segments may begin in training, within one segment
OCTAVES = 5  # of modulation that describe a segment; at 43 frames per s, down to 0.7 Hz
SILENCE = 1e-3  # added to the energies of standardised bands, whose logarithm it bounds

Tracks = dict[str, jax.Array]  # stored arrays by name, [n, ...]; frames are padded to one length


@dataclass(frozen=True)
class ArrayView:
    """How one stored array is seen.

    Attributes
    ----------
    mean, scale
        Subtracted, and multiplied with, per column; float32.
    segment_frames
        T, the length of the segments that are cut from stored frames; None for vectors.
    """

    mean: np.ndarray
    scale: np.ndarray
    segment_frames: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what a model sees of one track: (D,) or (T, F)."""
        size = len(self.mean)
        return (size,) if self.segment_frames is None else (self.segment_frames, size)

    def standardise(self, x: jax.Array) -> jax.Array:
        """Scale [..., D] to mean 0 and standard deviation 1 where it was measured."""
        return (x.astype(jnp.float32) - self.mean) * self.scale

    def sample(self, x: jax.Array, num_frames: Any, key: jax.Array) -> jax.Array:
        """Return vectors as they are, or one random segment of each track's frames.

        A track that is shorter than a segment is repeated to fill it.
        """
        if self.segment_frames is None:
            return self.standardise(x)
        last = jnp.maximum(num_frames - self.segment_frames, 0)
        start = jax.random.randint(key, num_frames.shape, 0, last + 1)
        return self.standardise(_cut(x, num_frames, start, self.segment_frames))

    def whole(self, x: jax.Array, num_frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return all segments, side by side, [n, S, T, F], and which there are, [n, S]."""
        size, most = self.segment_frames or 1, x.shape[1]
        count = jnp.maximum(num_frames // size, 1)
        starts = jnp.arange(max(most // size, 1)) * size
        at = jnp.broadcast_to(starts[:, None], (len(starts), len(x)))
        segments = jax.vmap(lambda start: _cut(x, num_frames, start, size), out_axes=1)(at)
        mask = (jnp.arange(len(starts)) < count[:, None]).astype(jnp.float32)
        return self.standardise(segments), mask


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

    def sample(self, tracks: Tracks, key: jax.Array) -> Inputs:
        """Return what a model is trained on: of frames, one random segment per track."""
        num_frames = tracks.get("num_frames")
        x = {name: view.sample(tracks[name], num_frames, key) for name, view in self.arrays.items()}
        return self._inputs(tracks, x, {})

    def whole(self, tracks: Tracks) -> Inputs:
        """Return all that there is of each track: of frames, all segments."""
        x, masks = {}, {}
        for name, view in self.arrays.items():
            if view.segment_frames is None:
                x[name] = view.standardise(tracks[name])
            else:
                x[name], masks["segments"] = view.whole(tracks[name], tracks["num_frames"])
        return self._inputs(tracks, x, masks)

    def precompute(self, tracks: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return tracks as they are: to cut and standardise them costs little."""
        return tracks

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


@dataclass(frozen=True)
class TrackView:
    """How the track VAE sees tracks: as sets of segments and of their descriptions.

    Attributes
    ----------
    frames
        How the stored frames are seen.
    mean, scale
        Of the descriptions, [D], for standardising them.
    num_segments
        S, segments of each track in training; all there are at export.
    noise
        Standard deviation of a random offset of a track's descriptions in training, the same for
        half of its segments: recordings differ so, in level and equalisation, without being
        other music. Segments that the model sees are changed in their stead (see `augment`).
    needs_segments
        Whether the model sees segments, and not their descriptions alone.
    """

    frames: ArrayView
    mean: np.ndarray
    scale: np.ndarray
    num_segments: int
    noise: float
    needs_segments: bool

    @property
    def input_shape(self) -> dict[str, tuple[int, ...]]:
        """The shapes of one segment and of its description."""
        return {"segments": self.frames.shape, "description": (len(self.mean),)}

    def sample(self, tracks: Tracks, key: jax.Array) -> Inputs:
        """Return a random choice of each track's segments, cut on a grid of random phase."""
        num_frames, size, most = tracks["num_frames"], self.frames.shape[0], self._most(tracks)
        phase_key, order_key, noise_key = jax.random.split(key, 3)
        spare = jnp.maximum(num_frames - size, 0) // self._stride
        phases = jnp.minimum(spare, PHASES - 1) + 1
        phase = jax.random.randint(phase_key, num_frames.shape, 0, phases)
        count = jnp.maximum((num_frames - phase * self._stride) // size, 1)
        order = jax.random.uniform(order_key, (len(num_frames), most))
        order = jnp.where(jnp.arange(most) < count[:, None], order, 2.0)
        chosen = jnp.argsort(order, axis=1)[:, : self.num_segments]
        mask = jnp.arange(chosen.shape[1]) < count[:, None]
        inputs = self._inputs(tracks, phase, chosen, mask)
        if self.needs_segments:
            inputs.x["segments"] = augment(inputs.x["segments"], self.noise, noise_key)
        else:
            offset = jax.random.normal(noise_key, (len(num_frames), 2, len(self.mean)))
            inputs.x["description"] += self.noise * _by_half(offset, chosen.shape[1])
        return inputs

    def whole(self, tracks: Tracks) -> Inputs:
        """Return all segments of each track, side by side."""
        num_frames, most = tracks["num_frames"], self._most(tracks)
        number = jnp.broadcast_to(jnp.arange(most), (len(num_frames), most))
        mask = number < jnp.maximum(num_frames // self.frames.shape[0], 1)[:, None]
        return self._inputs(tracks, jnp.zeros_like(num_frames), number, mask)

    def precompute(self, tracks: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the frames of tracks by the descriptions of all segments that may be chosen.

        They take less memory, [n, PHASES, S, D], and spare every step to cut and describe anew.
        """
        if self.needs_segments:
            return tracks
        numbers = jnp.arange(self._most(tracks))

        def one(track: tuple[jax.Array, jax.Array]) -> jax.Array:
            frames, count = (jnp.repeat(leaf[None], PHASES, axis=0) for leaf in track)
            grid = jnp.broadcast_to(numbers, (PHASES, len(numbers)))
            return self._describe(self._segments(frames, count, jnp.arange(PHASES), grid))

        pairs = (tracks["features"], tracks["num_frames"])
        descriptions = jax.jit(lambda pairs: jax.lax.map(one, pairs))(pairs)
        others = {name: array for name, array in tracks.items() if name != "features"}
        return others | {"descriptions": np.asarray(descriptions)}

    @property
    def _stride(self) -> int:
        return max(1, self.frames.shape[0] // PHASES)

    def _most(self, tracks: Mapping[str, Any]) -> int:
        """Return the number of segments of the longest track."""
        if "descriptions" in tracks:
            return tracks["descriptions"].shape[2]
        return max(tracks["features"].shape[1] // self.frames.shape[0], 1)

    def _inputs(
        self, tracks: Tracks, phase: jax.Array, number: jax.Array, mask: jax.Array
    ) -> Inputs:
        """Return the segments of the given numbers, [n, S], on a grid of the given phase, [n]."""
        weight, position = mask.astype(jnp.float32), tracks.get("position")
        if "descriptions" in tracks:
            rows = jnp.arange(len(number))[:, None]
            x = {"description": tracks["descriptions"][rows, phase[:, None], number]}
            return Inputs(x, weight, position=position)
        segments = self._segments(tracks["features"], tracks["num_frames"], phase, number)
        x = {"segments": segments, "description": self._describe(segments)}
        return Inputs(x, weight, position=position)

    def _segments(
        self, frames: jax.Array, num_frames: jax.Array, phase: jax.Array, number: jax.Array
    ) -> jax.Array:
        """Cut standardised segments, [n, S, T, F]."""
        size = self.frames.shape[0]
        starts = phase[:, None] * self._stride + number * size
        cut = jax.vmap(lambda at: _cut(frames, num_frames, at, size), in_axes=1, out_axes=1)
        return self.frames.standardise(cut(starts))

    def _describe(self, segments: jax.Array) -> jax.Array:
        return (describe(segments) - self.mean) * self.scale


def describe(segments: jax.Array) -> jax.Array:
    """Describe segments by their mean and modulation per band, [..., T, F] -> [..., (1 + O) F].

    Modulation is the log energy of the Haar wavelets of each of O octaves, from half the frame
    rate downwards: how much a band changes, from roughness and rhythm to slow swells (modulation
    energies tell genres apart: McKinney and Breebaart 2003). T gives fewer octaves if it is short.
    """
    parts, smooth = [segments.mean(axis=-2)], segments
    for _ in range(min(OCTAVES, segments.shape[-2].bit_length() - 1)):
        even = smooth[..., : smooth.shape[-2] // 2 * 2, :]
        first, second = even[..., ::2, :], even[..., 1::2, :]
        energy = 0.5 * jnp.square(first - second).mean(axis=-2)
        parts.append(0.5 * jnp.log(energy + SILENCE))
        smooth = (first + second) / 2
    return jnp.concatenate(parts, axis=-1)


def augment(segments: jax.Array, strength: float, key: jax.Array) -> jax.Array:
    """Change standardised segments of spectrograms, [n, S, T, F], as recordings may differ.

    Gain and tilt of the spectrum are normal with deviation `strength`, the same for each half of
    a track's segments. A block of up to an eighth of the frames and one of the bands are set to
    0, the mean (SpecAugment, Park et al. 2019), in each segment.
    """
    count, number, frames, bands = segments.shape
    level_key, time_key, band_key = jax.random.split(key, 3)
    gain, tilt = jax.random.normal(level_key, (2, count, 2, 1, 1))
    level = strength * (gain + tilt * jnp.linspace(-1, 1, bands))
    time = _outside_block(time_key, (count, number), frames)[..., None]
    band = _outside_block(band_key, (count, number), bands)[..., None, :]
    return (segments + _by_half(level, number)) * time * band


def _by_half(values: jax.Array, number: int) -> jax.Array:
    """Give every other of a track's segments the same, [n, 2, ...] -> [n, S, ...]."""
    return values[:, jnp.arange(number) % 2]


def _outside_block(key: jax.Array, shape: tuple[int, int], size: int) -> jax.Array:
    """Return 0 inside a random block of up to an eighth of an axis, else 1, [*shape, size]."""
    start_key, width_key = jax.random.split(key)
    width = jax.random.randint(width_key, (*shape, 1), 0, size // 8 + 1)
    start = jax.random.randint(start_key, (*shape, 1), 0, size - width + 1)
    at = jnp.arange(size)
    return ((at < start) | (at >= start + width)).astype(jnp.float32)


def fuse(
    x: Mapping[str, Any], present: Mapping[str, Any], weights: Mapping[str, float]
) -> jax.Array:
    """Concatenate standardised vectors [n, D_i] so that weights, not sizes, say what counts.

    Each is divided by the root of its size, and multiplied with that of the first, which so keeps
    its scale. Where a track lacks one, it is at the mean, 0.
    """
    size = next(iter(x.values())).shape[-1]
    blocks = [
        weights[name] * np.sqrt(size / part.shape[-1]) * part * present[name][:, None]
        for name, part in x.items()
    ]
    return jnp.concatenate(blocks, axis=-1)


def build(
    config: Mapping[str, Any],
    arrays: Mapping[str, ArraySpec],
    statistics: Mapping[str, Statistics],
    num_classes: int,
) -> View | TrackView:
    """Return the view of stored arrays that `config.model` needs.

    Raises
    ------
    UserError
        If the model cannot see such features.
    """
    model, feature = config["model"], config["feature"]
    frames = {name for name, spec in arrays.items() if spec.shape and spec.shape[0] is None}
    stored = {name: spec for name, spec in arrays.items() if spec.shape}
    wants_vectors, wants_frames = model["name"] == "mlp", model["name"] in ("conv2d", "track")
    if (wants_vectors and frames) or (wants_frames and not frames):
        needed = "vectors (mfcc, lyrics_tfidf)" if wants_vectors else "frames (logmelspec)"
        raise UserError(
            f"config.model.name={model['name']} needs features that are {needed}, but "
            f"config.feature.name is {feature['name']}: change one of them."
        )
    views = {
        name: ArrayView(
            *_scaling(statistics[name]),
            segment_frames=model["segment_frames"] if name in frames else None,
        )
        for name in stored
    }
    if model["name"] == "track":
        return TrackView(
            views["features"],
            *_scaling(statistics["description"]),
            num_segments=model["num_segments"],
            noise=model["input_noise"],
            needs_segments=model["encoder"] == "conv2d",
        )
    weights = {name: feature["lyrics_weight"] if name == "lyrics" else 1.0 for name in stored}
    is_fused = len(stored) > 1 and model["name"] == "mlp"
    return View(views, is_fused, weights, num_classes)


def measure_descriptions(
    config: Mapping[str, Any], records: Records, max_tracks: int = 1000
) -> Statistics:
    """Measure the descriptions of segments, of as many tracks, evenly spaced."""
    size = config["model"]["segment_frames"]
    mean, scale = _scaling(records.statistics["features"])
    describe_one, parts = jax.jit(describe), []  # one shape, whatever the tracks' lengths
    for position in np.linspace(0, len(records) - 1, min(len(records), max_tracks)).astype(int):
        (frames,) = records.load([position])["features"]
        frames = np.resize(frames, (max(len(frames) // size, 1) * size, frames.shape[1]))
        segments = (frames.reshape(-1, size, frames.shape[1]).astype(np.float32) - mean) * scale
        parts += [np.asarray(describe_one(segment)) for segment in segments]
    return Statistics.of(np.stack(parts))


def _scaling(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    return statistics.mean.astype(np.float32), (1 / statistics.std).astype(np.float32)


def _cut(x: jax.Array, num_frames: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """Cut [n, size, F] from frames [n, T, F] at `start` [n], repeating what is too short."""

    def one(frames: jax.Array, count: jax.Array, first: jax.Array) -> jax.Array:
        return frames[(first + jnp.arange(size)) % jnp.maximum(count, 1)]

    return jax.vmap(one)(x, num_frames, start)
