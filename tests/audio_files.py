"""Synthesises small audio files, sound and forged, for tests."""

import struct
from pathlib import Path

import numpy as np
import soundfile


def music(seconds: float, sample_rate: int = 22050, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return decaying chords over soft noise, float32 [N, channels], peak .5."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    pitches = 110 * 2 ** (random.integers(0, 36, size=(channels, 4)) / 12)
    beat = random.uniform(0.2, 0.6)
    decay = np.exp(-6 * (time % beat))
    samples = np.stack(
        [
            decay * np.sin(2 * np.pi * notes[:, None] * time).sum(axis=0)
            + 0.02 * random.standard_normal(len(time))
            for notes in pitches
        ],
        axis=1,
    )
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def write(path: Path, samples: np.ndarray, sample_rate: int, subtype: str | None = None) -> Path:
    """Write samples [N] or [N, channels] in the format that the file's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".opus":
        soundfile.write(path, samples, sample_rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, sample_rate, subtype=subtype)
    return path


def write_music(
    path: Path, seconds: float = 2.0, sample_rate: int = 22050, channels: int = 1, seed: int = 0
) -> Path:
    """Write `music` in the format that the file's suffix names."""
    return write(path, music(seconds, sample_rate, channels, seed), sample_rate)


def forged_wav(
    data: bytes, sample_rate: int = 22050, channels: int = 1, data_bytes: int | None = None
) -> bytes:
    """Return a 16-bit WAV file whose header says what it is told to, true or not."""
    data_bytes = len(data) if data_bytes is None else data_bytes
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + data_bytes, 2**32 - 1), b"WAVE")
    byte_rate = min(2 * channels * sample_rate, 2**32 - 1)
    sound = (1, channels, sample_rate, byte_rate, 2 * channels, 16)
    return (
        riff
        + struct.pack("<4sIHHIIHH", b"fmt ", 16, *sound)
        + struct.pack("<4sI", b"data", data_bytes)
        + data
    )


def forge_flac_length(path: Path, total_samples: int) -> Path:
    """Overwrite the 36-bit number of samples in a FLAC file's header; 0 means unknown."""
    content = bytearray(path.read_bytes())
    content[21] = (content[21] & 0xF0) | (total_samples >> 32)
    content[22:26] = struct.pack(">I", total_samples & 0xFFFFFFFF)
    path.write_bytes(content)
    return path
