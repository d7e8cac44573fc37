"""Measures single frames of sound in JAX, for `spectral`; `descriptors` sums them up per track.

The spectra are those of a feature where the settings agree, and cost next to nothing then.
"""

import numpy as np
from jax import Array
from jax import numpy as jnp

from vae_jax.features.descriptors import CHROMA

MIN_POWER = 1e-10
FRAME_SECONDS = 2048 / 22050


def frame_length(sample_rate: int) -> int:
    """Return the power of two that is next to 93 ms, in samples."""
    return 2 ** int(np.rint(np.log2(FRAME_SECONDS * sample_rate)))


def of_frames(frames: Array, power: Array, sample_rate: int) -> Array:
    """Measure frames [F, n_fft] with the power spectra [F, bins] of their windowed samples.

    Returns
    -------
    Array
        [F, M], as `descriptors` names the columns: the mean square of the samples; the sum of the
        spectrum's magnitudes, and of magnitudes times frequencies (Hz); the mean logarithm of its
        powers, and their mean, none below `MIN_POWER`; the power near each semitone.
    """
    n_fft = frames.shape[1]
    frequencies = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    moments = np.stack([np.ones_like(frequencies), frequencies], axis=1).astype(np.float32)
    floored = jnp.maximum(power, MIN_POWER)
    return jnp.concatenate(
        [
            jnp.mean(jnp.square(frames), axis=1, keepdims=True),
            jnp.matmul(jnp.sqrt(power), moments, precision="highest"),
            jnp.mean(jnp.log(floored), axis=1, keepdims=True),
            jnp.mean(floored, axis=1, keepdims=True),
            jnp.matmul(power, chroma_filters(sample_rate, n_fft), precision="highest"),
        ],
        axis=1,
    )


def onsets(decibels: Array) -> Array:
    """Return how much louder each frame's bands are than the last frame's, [T, F] -> [T]."""
    rises = jnp.maximum(jnp.diff(decibels, axis=0), 0)
    return jnp.pad(rises.mean(axis=1), (1, 0))


def chroma_filters(sample_rate: int, n_fft: int) -> np.ndarray:
    """Return the weight of each FFT bin in each semitone, float32 [n_fft // 2 + 1, CHROMA].

    Equal to librosa's `filters.chroma(tuning=0)`: Gaussians in pitch, and over octaves.
    """
    frequencies = np.arange(1, n_fft) * (sample_rate / n_fft)
    pitches = CHROMA * np.log2(frequencies / (440 / 16))  # semitones above A0
    pitches = np.concatenate([[pitches[0] - 1.5 * CHROMA], pitches])
    widths = np.append(np.maximum(np.diff(pitches), 1.0), 1.0)
    apart = np.remainder(pitches[:, None] - np.arange(CHROMA) + CHROMA / 2, CHROMA) - CHROMA / 2
    weights = np.exp(-0.5 * (2 * apart / widths[:, None]) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    weights *= np.exp(-0.5 * ((pitches / CHROMA - 5) / 2) ** 2)[:, None]
    return np.roll(weights, -3, axis=1)[: n_fft // 2 + 1].astype(np.float32)
