"""Describes tracks in words of a listener: loudness, brightness, tempo, key; for `extractors`.

What `spectral` has measured of a track's frames is summed up over the track, in all of its
windows together. Frames that are 60 dB below the loudest one do not count, so that neither silence
at the beginning nor a fade-out does. What cannot be said of a track, such as the tempo of silence,
is missing: NaN, or "".

Letters: W windows, T frames, M measures.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.storage import files

Descriptors = Mapping[str, float | str]

NUMBERS = (
    *("loudness_db", "loudness_range_db", "brightness_hz", "noisiness", "attacks_per_second"),
    *("tempo_bpm", "tempo_confidence", "key_confidence"),
)
WORDS = ("key", "mode")
NAMES = (*NUMBERS[:-1], *WORDS, NUMBERS[-1])  # in the order in which they are written

STRIDE = (
    4  # frames overlap by three quarters; every fourth is measured, the others for onsets alone
)
CHROMA = 12  # semitones, from C
POWER, MAGNITUDES, MOMENTS, LOG_POWERS, POWERS = range(5)  # columns of `frames`, before the chroma

AUDIBLE_DB = 60.0  # below the loudest frame, librosa's `effects.trim`
SILENCE_DB = -100.0  # relative to full scale; nothing below it is heard
RANGE = (10, 95)  # percentiles of frames' levels, as in EBU Tech 3342

# Attacks are peaks of the onset strength, by the settings of librosa's `onset.onset_detect`.
PEAK_SECONDS, MEAN_SECONDS, WAIT_SECONDS, RISE = 0.03, 0.10, 0.03, 0.07

# The tempo is that of librosa's `feature.tempo`: the lag of the largest mean autocorrelation in
# windows of 8 s, weighted by a log-normal distribution of tempi.
TEMPO_WINDOW = 8.0  # s
USUAL_TEMPO, FASTEST, SLOWEST = 120.0, 320.0, 30.0  # bpm

# How well each semitone fits a key on C (Krumhansl and Kessler 1982).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
SEMITONES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def describe(frames: np.ndarray, onsets: np.ndarray, frame_rate: float) -> Descriptors:
    """Describe a track by what was measured of its windows.

    Parameters
    ----------
    frames
        `measures.of_frames` of every fourth frame, [W, T / 4, M].
    onsets
        `measures.onsets`, [W, T].
    frame_rate
        Frames a second, T of them.

    Returns
    -------
    dict
        The values by `NAMES`:

        - `loudness_db`: the root mean square of the samples, in dB of full scale;
        - `loudness_range_db`: between quiet (10%) and loud (95%) frames of 93 ms;
        - `brightness_hz`: the mean of librosa's `feature.spectral_centroid`;
        - `noisiness`: the mean of librosa's `feature.spectral_flatness`, 0 for tones, 1 for noise;
        - `attacks_per_second`: how often librosa's `onset.onset_detect` finds one;
        - `tempo_bpm`, `tempo_confidence`: the tempo, and how well onsets correlate with those a
          beat later, from 0 to 1;
        - `key`, `mode`, `key_confidence`: the key whose profile correlates best with the mean of
          librosa's `feature.chroma_stft`, and that correlation.
    """
    frames = np.asarray(frames, np.float64).reshape(-1, frames.shape[-1])
    level = 10 * np.log10(np.maximum(frames[:, POWER], 1e-30))
    audible = frames[level > max(level.max() - AUDIBLE_DB, SILENCE_DB)]
    if not len(audible):
        return dict.fromkeys(NUMBERS, np.nan) | dict.fromkeys(WORDS, "")
    onsets = np.asarray(onsets, np.float64)
    return {
        **_level(audible),
        **_timbre(audible),
        "attacks_per_second": _num_attacks(onsets, frame_rate) * frame_rate / onsets.size,
        **_tempo(onsets, frame_rate),
        **_key(audible[:, -CHROMA:]),
    }


def to_json(described: Descriptors | None) -> list[float | str | None] | None:
    """Return the values in the order of `NAMES`, to six digits; None where one is missing."""
    if described is None:
        return None
    return [
        (value or None) if isinstance(value, str) else _rounded(value)
        for value in (described[name] for name in NAMES)
    ]


def from_json(values: Sequence[Any] | None) -> Descriptors | None:
    """Rebuild from `to_json`."""
    if values is None:
        return None
    return {
        name: ("" if name in WORDS else np.nan) if value is None else value
        for name, value in zip(NAMES, values, strict=True)
    }


def read(path: Path, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of a `descriptors.csv`, of given tracks; "" where nothing is known.

    They are none if there is no such file.
    """
    if not path.exists():
        return {}
    rows = {row.pop("id"): row for row in files.iterate_csv(path)}
    names = [*next(iter(rows.values()), {})]
    return {name: [rows.get(id_, {}).get(name, "") for id_ in ids] for name in names}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _level(frames: np.ndarray) -> Descriptors:
    power = frames[:, POWER]
    low, high = np.percentile(10 * np.log10(power), RANGE)
    return {"loudness_db": 10 * np.log10(power.mean()), "loudness_range_db": high - low}


def _timbre(frames: np.ndarray) -> Descriptors:
    magnitudes = frames[:, MAGNITUDES]
    centroids = frames[:, MOMENTS] / np.maximum(magnitudes, 1e-30)
    flatness = np.exp(frames[:, LOG_POWERS]) / frames[:, POWERS]
    return {"brightness_hz": centroids.mean(), "noisiness": flatness.mean()}


def _num_attacks(onsets: np.ndarray, frame_rate: float) -> int:
    """Count the peaks of onset strengths [W, T], as librosa's `onset_detect` does in one window."""
    rise = onsets - onsets.min()
    if not rise.max():
        return 0
    return sum(_num_peaks(row, frame_rate) for row in rise / rise.max())


def _num_peaks(x: np.ndarray, frame_rate: float) -> int:
    """Count frames that are the highest nearby and rise above the mean nearby (Boeck 2012)."""
    before = int(PEAK_SECONDS * frame_rate)
    near = int(MEAN_SECONDS * frame_rate)
    wait = int(WAIT_SECONDS * frame_rate)
    lagged = np.stack([np.pad(x, (lag, 0))[: len(x)] for lag in range(before + 1)])
    sums, index = np.concatenate([[0.0], np.cumsum(x)]), np.arange(len(x))
    first, last = np.maximum(index - near, 0), np.minimum(index + near + 1, len(x))
    means = (sums[last] - sums[first]) / (last - first)
    count, free = 0, 0
    for frame in np.flatnonzero((x >= lagged.max(axis=0)) & (x >= means + RISE)).tolist():
        if frame >= free:
            count, free = count + 1, frame + wait + 1
    return count


def _tempo(onsets: np.ndarray, frame_rate: float) -> Descriptors:
    """Find the tempo in onset strengths [W, T]; there is none without two beats in a window."""
    longest = int(TEMPO_WINDOW * frame_rate)
    length = min(longest, onsets.shape[1])
    lags = np.arange(int(60 * frame_rate / FASTEST) + 1, int(60 * frame_rate / SLOWEST) + 1)
    lags = lags[lags < length // 2]
    nothing = {"tempo_bpm": np.nan, "tempo_confidence": np.nan}
    if len(lags) < 3:
        return nothing
    starts = range(0, onsets.shape[1] - length + 1, max(length // 4, 1))
    parts = np.concatenate([onsets[:, start : start + length] for start in starts])
    parts = parts[np.ptp(parts, axis=1) > 0]
    if not len(parts):
        return nothing
    # A short window would favour short lags; this is what one of 8 s does.
    fair = _overlap(longest)[lags] / _overlap(length)[lags]
    strength = _repetition(parts)[lags] * fair
    usual = -0.5 * np.log2(60 * frame_rate / lags / USUAL_TEMPO) ** 2
    best = int(np.argmax(np.log1p(1e6 * strength) + usual))
    beats = _repetition(parts - parts.mean(axis=1, keepdims=True)) / _overlap(length)
    return {
        "tempo_bpm": 60 * frame_rate / (lags[0] + _summit(strength, best)),
        "tempo_confidence": float(np.clip(beats[lags[best]], 0, 1)),
    }


def _repetition(parts: np.ndarray) -> np.ndarray:
    """Return the mean autocorrelation of windows [n, T] at all lags, 1 at lag 0."""
    repeated = _autocorrelation(parts * _hann(parts.shape[1]))
    return (repeated / repeated[:, :1]).mean(axis=0)


def _summit(y: np.ndarray, peak: int) -> float:
    """Return where the parabola through a peak and its neighbours is highest."""
    if not 0 < peak < len(y) - 1:
        return float(peak)
    below, at, above = y[peak - 1 : peak + 2]
    bend = below - 2 * at + above
    return peak + (float(np.clip(0.5 * (below - above) / bend, -0.5, 0.5)) if bend < 0 else 0.0)


def _autocorrelation(x: np.ndarray) -> np.ndarray:
    """Return the autocorrelation of [..., T] at all lags from 0."""
    spectrum = np.fft.rfft(x, 2 * x.shape[-1])
    return np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[..., : x.shape[-1]]


@functools.cache
def _hann(length: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


@functools.cache
def _overlap(length: int) -> np.ndarray:
    """Return the autocorrelation of a Hann window, 1 at lag 0."""
    found = _autocorrelation(_hann(length))
    return found / found[0]


@functools.cache
def _profiles() -> np.ndarray:
    """Return the profiles of all keys, [24, 12], centred and of length 1: major, then minor."""
    rows = np.stack([np.roll(mode, tonic) for mode in (MAJOR, MINOR) for tonic in range(12)])
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _key(chroma: np.ndarray) -> Descriptors:
    """Find the key of chroma [T, 12]; the frames count alike."""
    mean = (chroma / np.maximum(chroma.max(axis=1, keepdims=True), 1e-30)).mean(axis=0)
    if np.ptp(mean) < 1e-9:
        return {"key": "", "mode": "", "key_confidence": np.nan}
    centred = mean - mean.mean()
    fit = _profiles() @ centred / np.linalg.norm(centred)
    best = int(np.argmax(fit))
    return {
        "key": SEMITONES[best % 12],
        "mode": "major" if best < len(SEMITONES) else "minor",
        "key_confidence": float(fit[best]),
    }
