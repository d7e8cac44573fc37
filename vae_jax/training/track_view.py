"""How the track VAE sees tracks: as sets of segments and of their descriptions.

Letters: n tracks, T frames, F bands, S segments, D columns, O octaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.fft import dct

from vae_jax.models.vae import Inputs
from vae_jax.records.reader import Records
from vae_jax.records.statistics import Statistics
from vae_jax.training import input_pipeline, whitening
from vae_jax.training.array_view import ArrayView, Tracks, scaling
from vae_jax.training.matrix_log import matrix_log
from vae_jax.training.whitening import Whitening

PHASES = 8  # where the grid of a track's segments may begin in training, within one segment
COVARIED = 10  # bands, or cepstral coefficients of more bands, whose covariance describes a segment
OCTAVES = 5  # of modulation that describe a segment; at 43 frames per s, down to 0.7 Hz
MFCC_BANDS = 40  # at most; frames with more bands are spectra
NUM_FIRST = 8  # principal components of the tracks' means, whose variance kept is reported apart
NOISE = 1e-2  # added to the variances of standardised bands, whose covariance it bounds
SILENCE = 1e-3  # added to the energies of standardised bands, whose logarithm it bounds


@dataclass(frozen=True)
class TrackView:
    """How the track VAE sees tracks: as sets of segments and of their descriptions.

    Attributes
    ----------
    frames
        How the stored frames are seen.
    mean, scale
        Mean and inverse deviation of the descriptions, [D], for standardising them.
    whitening
        The whitening of standardised descriptions.
    num_segments
        S, segments of each track in training; at export all are taken.
    noise
        Standard deviation of a random offset of a track's descriptions in training, the same for
        half of its segments. Recordings of the same music differ so, in level and equalisation. If
        the model sees segments, they are changed instead (see `augment`).
    needs_segments
        Whether the model sees segments, and not their descriptions alone.
    """

    frames: ArrayView
    mean: np.ndarray
    scale: np.ndarray
    whitening: Whitening
    num_segments: int
    noise: float
    needs_segments: bool

    @property
    def input_shape(self) -> dict[str, tuple[int, ...]]:
        """The shapes of one segment and of its description."""
        return {"segments": self.frames.shape, "description": (len(self.mean),)}

    @property
    def cut(self) -> ArrayView | None:
        """None, since `sample` takes several segments: see `View.cut`."""
        return None

    def sample(self, tracks: Tracks, key: jax.Array) -> Inputs:
        """Return a random choice of each track's segments, cut on a grid of random phase."""
        num_frames, size, most = tracks["num_frames"], self.frames.shape[0], self._most(tracks)
        phase_key, order_key, noise_key = jax.random.split(key, 3)
        length, _ = self.frames.windows(num_frames)
        spare = jnp.maximum(length - size, 0) // self._stride
        phases = jnp.minimum(spare, self._phases - 1) + 1
        phase = jax.random.randint(phase_key, num_frames.shape, 0, phases)
        count = self.frames.count(num_frames, phase * self._stride)
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
        return self._whitened(inputs)

    def whole(self, tracks: Tracks) -> Inputs:
        """Return all segments of each track, side by side."""
        num_frames, most = tracks["num_frames"], self._most(tracks)
        number = jnp.broadcast_to(jnp.arange(most), (len(num_frames), most))
        phase = jnp.zeros_like(num_frames)
        mask = number < self.frames.count(num_frames, phase)[:, None]
        return self._whitened(self._inputs(tracks, phase, number, mask))

    def precompute(self, tracks: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the frames of tracks by the descriptions of all segments that may be chosen.

        They take less memory, [n, phases, S, D], and no step has to cut and describe anew.
        """
        if self.needs_segments:
            return tracks
        numbers = jnp.arange(self._most(tracks))

        def one(track: tuple[jax.Array, jax.Array]) -> jax.Array:
            frames, count = (jnp.repeat(leaf[None], self._phases, axis=0) for leaf in track)
            grid = jnp.broadcast_to(numbers, (self._phases, len(numbers)))
            return self._describe(self._segments(frames, count, jnp.arange(self._phases), grid))

        pairs = (tracks["features"], tracks["num_frames"])
        descriptions = jax.jit(lambda pairs: jax.lax.map(one, pairs))(pairs)
        others = {name: array for name, array in tracks.items() if name != "features"}
        return others | {"descriptions": np.asarray(descriptions)}

    def kept(self, inputs: Inputs, latent: jax.Array) -> dict[str, jax.Array]:
        """Return how much of the tracks' mean descriptions a linear map of their latents loses.

        The map inverts the whitening: for it, latents are the first L whitened columns, which the
        decoder corrects. The loss and the whole are sums of squares by track, [n, 2]. In
        `variance_kept` all columns count, in `variance_kept_first` the first principal components.
        """
        mask = inputs.mask / inputs.mask.sum(axis=1, keepdims=True)
        mean = jnp.einsum("ns,nsd->nd", mask, inputs.x["description"])
        lost = mean - latent @ self.whitening.inverse[: latent.shape[1]]
        first = self.whitening.principal_axes(NUM_FIRST)
        return {
            name: jnp.stack([jnp.square(x @ axes).sum(axis=1) for x in (lost, mean)], axis=1)
            for name, axes in (
                ("variance_kept", np.eye(len(first), dtype=np.float32)),
                ("variance_kept_first", first),
            )
        }

    @property
    def _phases(self) -> int:
        return min(PHASES, self.frames.shape[0])

    @property
    def _stride(self) -> int:
        return self.frames.shape[0] // self._phases

    def _most(self, tracks: Mapping[str, Any]) -> int:
        """Return the number of segments of the longest track."""
        if "descriptions" in tracks:
            return tracks["descriptions"].shape[2]
        return self.frames.most(tracks["features"].shape[1])

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

    def _whitened(self, inputs: Inputs) -> Inputs:
        """Add the descriptions in units of what varies within tracks, [n, S, D]."""
        return inputs.replace(
            x=inputs.x | {"whitened": inputs.x["description"] @ self.whitening.matrix}
        )

    def _segments(
        self, frames: jax.Array, num_frames: jax.Array, phase: jax.Array, number: jax.Array
    ) -> jax.Array:
        """Cut standardised segments, [n, S, T, F]."""
        return self.frames.segments(frames, num_frames, phase * self._stride, number)

    def _describe(self, segments: jax.Array) -> jax.Array:
        return (describe(segments) - self.mean) * self.scale


def describe(segments: jax.Array) -> jax.Array:
    """Describe segments, [..., T, F] -> [..., D], by their bands' means, modulation, covariance.

    Modulation is the log energy of the Haar wavelets in each of O octaves, from half the frame rate
    downwards. It says how much a band changes, from roughness and rhythm to slow swells, and tells
    genres apart (McKinney and Breebaart 2003). The covariance says which bands change together, and
    tells artists apart (Mandel and Ellis 2005). It enters by what is off the diagonal of its matrix
    logarithm, which lies in a vector space (Arsigny et al. 2006). Short segments have fewer
    octaves, and a segment of one frame has its mean alone.
    """
    parts, smooth = [segments.mean(axis=-2)], segments
    for _ in range(min(OCTAVES, segments.shape[-2].bit_length() - 1)):
        even = smooth[..., : smooth.shape[-2] // 2 * 2, :]
        first, second = even[..., ::2, :], even[..., 1::2, :]
        energy = 0.5 * jnp.square(first - second).mean(axis=-2)
        parts.append(0.5 * jnp.log(energy + SILENCE))
        smooth = (first + second) / 2
    if segments.shape[-2] > 1:
        parts.append(_log_covariance(segments))
    return jnp.concatenate(parts, axis=-1)


def _log_covariance(segments: jax.Array) -> jax.Array:
    """Return the upper triangle of the bands' log covariance, [..., T, F] -> [..., C (C - 1) / 2].

    C is the number of bands, or of cepstral coefficients if there are more bands than `COVARIED`.
    """
    bands = segments.shape[-1]
    size = min(bands, COVARIED)
    if bands > MFCC_BANDS:
        segments = segments @ jnp.array(dct(np.eye(bands), norm="ortho")[:, :size], jnp.float32)
    deviation = segments[..., :size] - segments[..., :size].mean(axis=-2, keepdims=True)
    covariance = jnp.einsum("...ti,...tj->ij...", deviation, deviation) / segments.shape[-2]
    noise = NOISE * jnp.eye(size).reshape(size, size, *[1] * (covariance.ndim - 2))
    logarithm = matrix_log(covariance + noise, floor=NOISE)
    return jnp.moveaxis(logarithm[np.triu_indices(size, 1)], 0, -1)


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
    """Give every other of a track's segments the same value, [n, 2, ...] -> [n, S, ...]."""
    return values[:, jnp.arange(number) % 2]


def _outside_block(key: jax.Array, shape: tuple[int, int], size: int) -> jax.Array:
    """Return 0 inside a random block of up to an eighth of an axis, else 1, [*shape, size]."""
    start_key, width_key = jax.random.split(key)
    width = jax.random.randint(width_key, (*shape, 1), 0, size // 8 + 1)
    start = jax.random.randint(start_key, (*shape, 1), 0, size - width + 1)
    at = jnp.arange(size)
    return ((at < start) | (at >= start + width)).astype(jnp.float32)


def measure_descriptions(
    config: Mapping[str, Any], records: Records, max_tracks: int = 1000
) -> tuple[Statistics, Whitening]:
    """Measure the descriptions of the segments of some tracks, evenly spaced.

    Tracks that are held out for validation count in the statistics, but not in the whitening.
    """
    measured = np.linspace(0, len(records) - 1, min(len(records), max_tracks)).astype(int)
    parts = _describe_tracks(records, measured, config["model"]["segment_frames"])
    statistics = Statistics.of(np.concatenate(parts))
    _, held_out = input_pipeline.split(records.ids, config["train"]["validation_fraction"])
    is_seen = ~np.isin(measured, held_out)
    if not is_seen.any():
        is_seen[:] = True
    seen = [part for part, one in zip(parts, is_seen, strict=True) if one]
    track = np.repeat(np.arange(len(seen)), [len(part) for part in seen])
    standardised = (np.concatenate(seen) - statistics.mean) / statistics.std
    return statistics, whitening.measure(standardised, track)


def _describe_tracks(
    records: Records, positions: np.ndarray, segment_frames: int
) -> list[np.ndarray]:
    """Return the descriptions of each track's segments, [S, D] each."""
    spec = records.arrays["features"]
    size, window = spec.segment_rows(segment_frames), spec.window
    mean, scale = scaling(records.statistics["features"])
    describe_one, tracks = jax.jit(describe), []  # one shape, whatever the tracks' lengths
    for position in positions:
        (frames,) = records.load([position])["features"]
        parts = []
        for part in np.split(frames, range(window, len(frames), window) if window else []):
            part = np.resize(part, (max(len(part) // size, 1) * size, part.shape[1]))
            segments = (part.reshape(-1, size, part.shape[1]).astype(np.float32) - mean) * scale
            parts += [np.asarray(describe_one(segment)) for segment in segments]
        tracks.append(np.stack(parts))
    return tracks
