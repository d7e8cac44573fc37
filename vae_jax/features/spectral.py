"""Log-mel spectrograms, MFCCs and their summaries in JAX, equal to librosa's, for `extract`.

Waveforms are padded with zeros to one length, or to a few if the window is long, so that few
compilations serve all tracks. The number of real samples travels beside them. Letters: B batch, W
windows of a track, N samples, T frames, F mel bands, C channels (bands or coefficients).
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vae_jax.features import descriptors, measures

FRAMES_PER_BLOCK = 64  # frames and spectra, about 1 MB at a time, stay in a core's cache
BANDS_PER_MATMUL = 16  # neighbouring mel bands share FFT bins; far ones would multiply zeros
MIN_PADDED = 2**20  # samples; windows up to this, 48 s at 22,050 Hz, share one padded length
MIN_POWER = 1e-10
TOP_DB = 80.0  # dynamic range below a track's maximum


@dataclass(frozen=True)
class SpectralSpec:
    """What determines a spectrum; hashable, so that it can be a static argument.

    Attributes
    ----------
    sample_rate, fmin, fmax
        Frequencies in Hz; the mel bands lie between fmin and fmax.
    n_fft, win_length, hop_length
        Lengths in samples; a Hann window of win_length is centred in n_fft.
    n_mels, n_mfcc
        Numbers of mel bands and of cepstral coefficients.
    """

    sample_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    fmin: float
    fmax: float
    n_mfcc: int

    @classmethod
    def of(cls, feature: Mapping[str, Any]) -> "SpectralSpec":
        """Take the spec from `config.feature`, resolving what is not set."""
        values = {field.name: feature[field.name] for field in fields(cls)}
        if values["win_length"] is None:
            values["win_length"] = values["n_fft"]
        if values["fmax"] is None:
            values["fmax"] = values["sample_rate"] / 2
        return cls(**values)

    def num_frames(self, num_samples: Any) -> Any:
        """Return the number of frames centred within `num_samples` (an int or an array)."""
        return 1 + (num_samples - self.n_fft % 2) // self.hop_length


class Measures(NamedTuple):
    """What `descriptors` sums up, of a waveform; padding and all.

    Attributes
    ----------
    frames
        `measures.of_frames` of every fourth frame, [T / 4, M].
    onsets
        `measures.onsets`, [T].
    """

    frames: Any
    onsets: Any


@functools.partial(jax.jit, static_argnames="spec")
def log_mel(waveform: jax.Array, num_samples: jax.Array, spec: SpectralSpec) -> jax.Array:
    """Return the mel spectrogram in dB.

    Equal to librosa's `power_to_db(melspectrogram(y), ref=1, amin=1e-10, top_db=80)`, per track:
    frames are centred, padded with zeros, and the maximum is taken over the real frames.

    Parameters
    ----------
    waveform
        float32 [N] or [B, N]; zeros after the real samples.
    num_samples
        Real samples, int [] or [B].
    spec
        The only static argument: one compilation per spec and shape.

    Returns
    -------
    jax.Array
        float32 [T, F] or [B, T, F] with T = spec.num_frames(N). Only the first
        spec.num_frames(num_samples) frames mean anything; the caller drops the others.
    """
    if waveform.ndim == 2:
        return _map(lambda pair: log_mel(*pair, spec), (waveform, num_samples))
    return _decibels(mel_power(waveform, spec), num_samples, spec)


def _decibels(mel: jax.Array, num_samples: jax.Array, spec: SpectralSpec) -> jax.Array:
    """Return a mel power spectrogram [T, F] in dB, within `TOP_DB` of its maximum."""
    decibels = 10 * jnp.log10(jnp.maximum(mel, MIN_POWER))
    valid = jnp.arange(len(decibels))[:, None] < spec.num_frames(num_samples)
    loudest = jnp.max(decibels, initial=-jnp.inf, where=valid)
    return jnp.maximum(decibels, loudest - TOP_DB)


@functools.partial(jax.jit, static_argnames="spec")
def listen(
    waveform: jax.Array, num_samples: jax.Array, spec: SpectralSpec
) -> tuple[jax.Array, Measures]:
    """Return `log_mel`, and what `descriptors` sums up, from the same spectra.

    The hop must be a quarter of the window, as in `listening_spec`.
    """
    if waveform.ndim == 2:
        return _map(lambda pair: listen(*pair, spec), (waveform, num_samples))

    def measure(frames: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
        few = slice(None, None, descriptors.STRIDE)
        return _mel(power, spec), measures.of_frames(frames[few], power[few], spec.sample_rate)

    mel, measured = _over_frames(waveform, spec, measure)
    decibels = _decibels(mel, num_samples, spec)
    return decibels, Measures(measured, measures.onsets(decibels))


def listening_spec(sample_rate: int) -> SpectralSpec:
    """Return what descriptors are made of, whatever a feature's own settings are."""
    length = measures.frame_length(sample_rate)
    hop = length // descriptors.STRIDE
    return SpectralSpec(sample_rate, length, length, hop, 128, 0.0, sample_rate / 2, 20)


@functools.partial(jax.jit, static_argnames=("spec", "name", "deltas"))
def described(
    waveform: jax.Array, num_samples: jax.Array, spec: SpectralSpec, name: str, deltas: bool
) -> tuple[jax.Array, Measures]:
    """Return a feature of `audio_feature` and what `descriptors` sums up, in one program."""
    ours = replace(listening_spec(spec.sample_rate), n_mfcc=spec.n_mfcc)
    decibels, measured = listen(waveform, num_samples, ours)
    if spec != ours:
        decibels = log_mel(waveform, num_samples, spec)
    return _FROM_DECIBELS[name](decibels, num_samples, spec, deltas), measured


@functools.partial(jax.jit, static_argnames="spec")
def mfcc(waveform: jax.Array, num_samples: jax.Array, spec: SpectralSpec) -> jax.Array:
    """Return mel-frequency cepstral coefficients, equal to librosa's `feature.mfcc`.

    They are the orthonormal DCT-II of `log_mel` over bands, [..., T, C]. Arguments and frames are
    those of `log_mel`.
    """
    return _mfcc(log_mel(waveform, num_samples, spec), spec)


def _mfcc(decibels: jax.Array, spec: SpectralSpec) -> jax.Array:
    return jnp.matmul(decibels, _dct(spec.n_mels, spec.n_mfcc), precision="highest")


@functools.partial(jax.jit, static_argnames="deltas")
def summary(frames: jax.Array, num_frames: jax.Array, deltas: bool = False) -> jax.Array:
    """Describe a track by its mean and standard deviation over time.

    Parameters
    ----------
    frames
        Float [T, C], of which the first `num_frames` count (at least one); or the frames of its
        windows, [W, T, C].
    num_frames
        int [] or [W].
    deltas
        Also describe the differences between neighbouring frames of a window.

    Returns
    -------
    jax.Array
        float32 [2C] (means, then population standard deviations), with deltas [4C].
    """
    parts = _moments(frames, num_frames)
    if deltas:
        parts += _moments(jnp.diff(frames, axis=-2), num_frames - 1)
    return jnp.concatenate(parts)


@functools.partial(jax.jit, static_argnames=("spec", "deltas"))
def mfcc_summary(
    waveform: jax.Array, num_samples: jax.Array, spec: SpectralSpec, deltas: bool
) -> jax.Array:
    """Return the `summary` of one track's `mfcc`, float32 [2C] or [4C].

    The track is a waveform, [N], or several windows, [W, N]; windows of 0 samples do not count.
    """
    return _summary(log_mel(waveform, num_samples, spec), num_samples, spec, deltas)


def _summary(
    decibels: jax.Array, num_samples: jax.Array, spec: SpectralSpec, deltas: bool
) -> jax.Array:
    num_frames = jnp.where(num_samples > 0, spec.num_frames(num_samples), 0)
    return summary(_mfcc(decibels, spec), num_frames, deltas)


# Features by name, of the log-mel spectrogram and (num_samples, spec, deltas).
_FROM_DECIBELS: dict[str, Callable[..., jax.Array]] = {
    "mfcc": _summary,
    "mfcc_frames": lambda decibels, num_samples, spec, deltas: _mfcc(decibels, spec),
    "logmelspec": lambda decibels, *settings: decibels,
}


@dataclass(frozen=True)
class AudioFeature:
    """One stored audio feature: call it with a waveform, or with the windows of a track.

    Attributes
    ----------
    shape, dtype
        Shape and type of what it returns; None is the number of frames, which differs by track.
    max_samples
        The longest waveform.
    compute
        (padded waveform [N], num_samples) -> array [T, ...] or [...], jitted; or
        (padded windows [W, N], num_samples [W]) -> array [W, T, ...] or [...].
    num_rows
        Says how many of a waveform's rows T count, given its samples.
    num_windows
        W, the most windows that a track can have; None if it is one waveform.
    is_segments
        Whether each row describes a segment of the track; it is a frame otherwise.
    measured_with
        The frames of which `compute` also returns `Measures`, behind the array; None if it does
        not.
    """

    shape: tuple[int | None, ...]
    dtype: str
    max_samples: int
    compute: Callable[..., Any]
    num_rows: Callable[[int], int]
    num_windows: int | None = None
    is_segments: bool = False
    measured_with: SpectralSpec | None = None

    @property
    def window_frames(self) -> int | None:
        """The frames of each window, if frames of windows are stored."""
        if self.num_windows is None or self.shape[0] is not None or self.is_segments:
            return None
        return self.num_rows(self.max_samples)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return the feature of mono sound; safe to call from threads.

        The sound is a waveform [N <= max_samples], or up to W windows [<= W, N], each of which is
        padded as a waveform of its own. The frames of windows follow one another.
        """
        return self.listen(waveform)[0]

    def listen(self, waveform: np.ndarray) -> tuple[np.ndarray, descriptors.Descriptors | None]:
        """Return the feature, and the descriptors of the sound if these are to be made."""
        *count, length = waveform.shape
        most = [self.num_windows or 1] * len(count)
        padded = np.zeros((*most, self._padded_length(length)), np.float32)
        padded[(*map(slice, waveform.shape),)] = waveform
        lengths = np.zeros(most, np.int32)
        lengths[(*map(slice, count),)] = length
        computed, described = self.compute(padded, lengths), None
        if spec := self.measured_with:
            computed, (frames, onsets) = computed
            real, most = spec.num_frames(length), (*count, 1)[0]
            frames = np.asarray(frames).reshape(-1, *frames.shape[-2:])
            onsets = np.asarray(onsets).reshape(-1, onsets.shape[-1])
            described = descriptors.describe(
                frames[:most, : -(-real // descriptors.STRIDE)],
                onsets[:most, :real],
                spec.sample_rate / spec.hop_length,
            )
        values = np.asarray(computed)
        if self.shape[0] is None:
            values = values[(*map(slice, count), slice(self.num_rows(length)))]
            values = values.reshape(-1, values.shape[-1])
        return values.astype(self.dtype), described

    def _padded_length(self, num_samples: int) -> int:
        """Round up to a power of two, or the longest: memory follows the track, not the window."""
        power = 2 ** math.ceil(math.log2(max(num_samples, MIN_PADDED)))
        return min(power, self.max_samples)


def audio_feature(feature: Mapping[str, Any]) -> AudioFeature:
    """Return the audio feature that `config.feature` names: mfcc, mfcc_frames or logmelspec."""
    spec, deltas = SpectralSpec.of(feature), feature["deltas"]
    # Frames that are stored as float16 lose at most 2**-11 of a value: .016 dB below 64 dB.
    shape, dtype, compute = {
        "mfcc": (
            ((4 if deltas else 2) * spec.n_mfcc,),
            "float32",
            functools.partial(mfcc_summary, spec=spec, deltas=deltas),
        ),
        "mfcc_frames": ((None, spec.n_mfcc), "float16", functools.partial(mfcc, spec=spec)),
        "logmelspec": ((None, spec.n_mels), "float16", functools.partial(log_mel, spec=spec)),
    }[feature["name"]]
    max_samples, num_windows = longest(feature, spec.sample_rate)
    made = AudioFeature(shape, dtype, max_samples, compute, spec.num_frames, num_windows)
    if not feature["descriptors"]:
        return made
    if feature["name"] not in _FROM_DECIBELS:
        return listening(made, spec.sample_rate)
    together = functools.partial(described, spec=spec, name=feature["name"], deltas=deltas)
    return replace(made, compute=together, measured_with=listening_spec(spec.sample_rate))


def listening(feature: AudioFeature, sample_rate: int) -> AudioFeature:
    """Return a feature that is described as well, by a program of its own."""
    spec = listening_spec(sample_rate)

    def together(waveform: np.ndarray, num_samples: np.ndarray) -> tuple[jax.Array, Measures]:
        return feature.compute(waveform, num_samples), listen(waveform, num_samples, spec)[1]

    return replace(feature, compute=together, measured_with=spec)


def longest(feature: Mapping[str, Any], sample_rate: int) -> tuple[int, int | None]:
    """Return the samples of a track's longest waveform, and its most windows; None without any."""
    if feature["excerpt"] == "spread":
        num_windows = feature["num_windows"]
        return round(feature["duration"] * sample_rate / num_windows), num_windows
    # Resampling rounds up, by one sample if the ratio of the rates is not exact in binary.
    return math.ceil(feature["duration"] * sample_rate) + 1, None


def _map(function: Callable, values: Any) -> Any:
    """Map over the first axis: one by one on a CPU, whose cache is small, else all at once."""
    if jax.default_backend() == "cpu":
        return lax.map(function, values)
    return jax.vmap(function)(values)


def mel_power(waveform: jax.Array, spec: SpectralSpec) -> jax.Array:
    """Return the mel power spectrogram [T, F] of a waveform [N]."""
    return _over_frames(waveform, spec, lambda frames, power: _mel(power, spec))


def _mel(power: jax.Array, spec: SpectralSpec) -> jax.Array:
    """Sum spectra [..., bins] in mel bands, [..., F]."""
    return jnp.concatenate(
        [
            jnp.matmul(power[:, first : first + len(weights)], weights, precision="highest")
            for first, weights in _mel_bands(spec)
        ],
        axis=1,
    )


def _over_frames(
    waveform: jax.Array, spec: SpectralSpec, measure: Callable[[jax.Array, jax.Array], Any]
) -> Any:
    """Return what `measure` makes of the frames of a waveform [N], or of every nth: [T, ...].

    It is called with the samples of a block of frames, [b, n_fft], and their power [b, bins].
    """
    num_frames = spec.num_frames(len(waveform))
    num_blocks = -(-num_frames // FRAMES_PER_BLOCK)
    block_hop = FRAMES_PER_BLOCK * spec.hop_length
    block_length = block_hop - spec.hop_length + spec.n_fft
    before = spec.n_fft // 2
    after = (num_blocks - 1) * block_hop + block_length - before - len(waveform)
    # `after` is negative if a hop longer than the window leaves the last samples unused.
    padded = lax.pad(waveform, jnp.zeros((), waveform.dtype), [(before, after, 0)])
    window = _window(spec)

    def block(number: jax.Array) -> Any:
        samples = lax.dynamic_slice(padded, (number * block_hop,), (block_length,))
        starts = jnp.arange(FRAMES_PER_BLOCK) * spec.hop_length
        frames = jax.vmap(lambda start: lax.dynamic_slice(samples, (start,), (spec.n_fft,)))(starts)
        spectrum = jnp.fft.rfft(frames * window)
        return measure(frames, jnp.square(spectrum.real) + jnp.square(spectrum.imag))

    blocks = _map(block, jnp.arange(num_blocks))

    def join(part: jax.Array) -> jax.Array:
        stride = FRAMES_PER_BLOCK // part.shape[1]
        return part.reshape(-1, *part.shape[2:])[: -(-num_frames // stride)]

    return jax.tree.map(join, blocks)


def _moments(frames: jax.Array, count: jax.Array) -> list[jax.Array]:
    """Return mean and standard deviation over the first `count` rows, in all windows together.

    They are 0 if there are no rows.
    """
    valid = jnp.arange(frames.shape[-2])[:, None] < jnp.asarray(count)[..., None, None]
    axes = tuple(range(frames.ndim - 1))
    count = jnp.maximum(jnp.maximum(count, 0).sum(), 1)
    mean = jnp.sum(frames, axis=axes, where=valid) / count
    variance = jnp.sum(jnp.square(frames - mean), axis=axes, where=valid) / count
    return [mean, jnp.sqrt(variance)]


def _window(spec: SpectralSpec) -> np.ndarray:
    """Return a periodic Hann window, centred in n_fft samples."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.win_length) / spec.win_length)
    before = (spec.n_fft - spec.win_length) // 2
    return np.pad(hann, (before, spec.n_fft - spec.win_length - before)).astype(np.float32)


def _mel_bands(spec: SpectralSpec) -> list[tuple[int, np.ndarray]]:
    """Cut the mel filter bank into (first bin, weights [bins, <= BANDS_PER_MATMUL]) blocks."""
    filters = mel_filters(spec)
    bands = []
    for first in range(0, spec.n_mels, BANDS_PER_MATMUL):
        block = filters[first : first + BANDS_PER_MATMUL]
        used = np.flatnonzero(block.any(axis=0))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, 1)
        bands.append((int(low), block[:, low:high].T))
    return bands


def mel_filters(spec: SpectralSpec) -> np.ndarray:
    """Return triangular filters of unit area, float32 [F, n_fft // 2 + 1].

    Equal to librosa's `filters.mel`: Slaney's mel scale (Auditory Toolbox, 1998).
    """
    edges = _mel_edges(spec)
    bins = np.arange(spec.n_fft // 2 + 1) * (spec.sample_rate / spec.n_fft)
    left, center, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (center - left), (right - bins) / (right - center)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (right - left))).astype(np.float32)


def mel_frequencies(spec: SpectralSpec) -> np.ndarray:
    """Return the centres of the filters in Hz, float64 [F]."""
    return _mel_edges(spec)[1:-1]


# Slaney's scale is linear up to 1 kHz, which is 15 mel, and logarithmic above.
_MEL_PER_HZ = 3 / 200
_KNEE_HZ, _KNEE_MEL = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27


def _mel_edges(spec: SpectralSpec) -> np.ndarray:
    """Return where filters begin, peak and end, in Hz, float64 [F + 2]."""
    low, high = _hz_to_mel(np.array([spec.fmin, spec.fmax]))
    return _mel_to_hz(np.linspace(low, high, spec.n_mels + 2))


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz * _MEL_PER_HZ, above)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel / _MEL_PER_HZ, above)


def _dct(n_mels: int, n_mfcc: int) -> np.ndarray:
    """Return the first columns of the orthonormal DCT-II, float32 [F, C]."""
    angles = np.pi / n_mels * (np.arange(n_mels)[:, None] + 0.5) * np.arange(n_mfcc)
    basis = np.cos(angles) * np.sqrt(2 / n_mels)
    basis[:, 0] /= np.sqrt(2)
    return basis.astype(np.float32)
