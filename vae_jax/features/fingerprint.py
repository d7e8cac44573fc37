"""Acoustic fingerprints, which tell whether two files hold the same recording.

Chromaprint (Lalinsky 2010, after Ke et al. 2005) describes the notes of every eighth of a second by
32 bits, whatever the format and the level. It comes with most builds of ffmpeg.
"""

import functools
import subprocess
from pathlib import Path

import numpy as np

from vae_jax.errors import UserError
from vae_jax.features import audio

SAMPLE_RATE = 11025  # Hz; Chromaprint's own
DURATION = 120.0  # s that are compared, from the beginning
MIN_DURATION = 8.0  # s; less tells too little
BITS = 32
MAX_SHIFT = 160  # items, 20 s: how much later one of the two may begin
MIN_OVERLAP = 60  # items, 7 s
MIN_VARIETY = 0.25  # of the items must differ: silence and held notes are no evidence
TIME_LIMIT = 120  # s


@functools.cache
def check_installed() -> None:
    """Refuse to go on without Chromaprint."""
    try:
        listed = subprocess.run(
            ["ffmpeg", "-hide_banner", "-muxers"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        listed = ""
    if " chromaprint " not in listed:
        raise UserError(
            "telling recordings apart needs an ffmpeg with Chromaprint (such as Debian's): "
            "install one, or look for equal files and alike tracks only, with --nofingerprint."
        )


def compute(path: Path) -> np.ndarray:
    """Return a file's fingerprint, [n] uint32.

    Raises
    ------
    AudioError, MachineError
        If the file cannot be decoded, or is shorter than `MIN_DURATION`.
    """
    heard = audio.load(
        path,
        sample_rate=SAMPLE_RATE,
        duration=DURATION,
        excerpt="start",
        min_duration=MIN_DURATION,
    )
    peak = max(float(np.abs(heard.waveform).max()), 1e-9)
    samples = (heard.waveform * (0.9 * 2**15 / peak)).astype("<i2")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "s16le", "-ac", "1"]
    command += ["-ar", str(SAMPLE_RATE), "-i", "pipe:0", "-f", "chromaprint", "-fp_format", "raw"]
    done = subprocess.run(
        [*command, "pipe:1"],
        input=samples.tobytes(),
        capture_output=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    return np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], "<u4")


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of equal bits where two fingerprints, [n] and [m], agree best.

    Unrelated recordings have about half of their bits in common. 0 if there is too little to judge.
    """
    if min(_variety(first), _variety(second)) < MIN_VARIETY:
        return 0.0
    n, m = len(first), len(second)
    agreement = _signs(first)[::-1] @ _signs(second).T  # [n, m], from -32 to 32
    skewed = np.zeros((n, m + n), np.float32)
    skewed[:, :m] = agreement
    sums = skewed.ravel()[: n * (m + n - 1)].reshape(n, m + n - 1).sum(axis=0)
    shifts = np.arange(m + n - 1) - (n - 1)
    overlaps = np.minimum(n, m - shifts) - np.maximum(0, -shifts)
    allowed = (np.abs(shifts) <= MAX_SHIFT) & (overlaps >= max(MIN_OVERLAP, min(n, m) // 2))
    if not allowed.any():
        return 0.0
    return float(0.5 + 0.5 * (sums[allowed] / (BITS * overlaps[allowed])).max())


def _variety(fingerprint: np.ndarray) -> float:
    return len(np.unique(fingerprint)) / max(len(fingerprint), 1)


def _signs(fingerprint: np.ndarray) -> np.ndarray:
    """Return bits as -1 and 1, [n, 32] float32."""
    bits = np.unpackbits(np.ascontiguousarray(fingerprint, "<u4").view(np.uint8))
    return bits.reshape(-1, BITS).astype(np.float32) * 2 - 1
