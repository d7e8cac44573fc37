"""Decodes one window of an audio file, or several, to mono waveforms, for `features.extract`.

The samples are exactly those of `librosa.load(path, sr=..., offset=..., duration=...)`: libsndfile
with a seek to the window, the mean over channels, soxr's HQ resampling. If it is installed, ffmpeg
decodes the files that libsndfile does not read, or not to their end.
"""

import functools
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr

from vae_jax.features import containers, mpeg
from vae_jax.features.errors import (
    ANTIPHASE,
    CUT,
    ENDS_EARLY,
    MISSING,
    NO_AUDIO,
    READABLE,
    SILENT,
    TOO_SHORT,
    UNREADABLE,
    UNSUPPORTED,
    AudioError,
    MachineError,
)
from vae_jax.features.ffmpeg import FfmpegSource
from vae_jax.features.sndfile import Incomplete, Mix, SndfileSource
from vae_jax.features.windows import Excerpt, Windows

# Music is stored at rates between these; a forged header could ask for any amount of memory.
SAMPLE_RATES = (1_000, 768_000)  # Hz
# -84 dB of full scale, two steps of 16-bit audio: anything softer is at most dithered silence.
SILENCE = 2.0**-14
# Full scale of 32-bit integers; larger floats are no audio, and their power would overflow.
FULL_SCALE = 2.0**31
# Headers may promise this much more than can be decoded (s): encoder padding, rounding.
TRUNCATION_TOLERANCE = 0.1
LEAST = 0.01  # s; an encoder of nothing writes a frame or two, which decode to less
MOST_ATTEMPTS = 3
MOST_CHANNELS = 8  # channels that are looked at alone
HEADERLESS = (".raw", ".pcm", ".gsm", ".vox")


@dataclass(frozen=True)
class Audio:
    """One decoded window of a track, or several of one length.

    Attributes
    ----------
    waveform
        Mono samples, float32 [N], full scale 1; spread windows are [W, N].
    sample_rate
        The waveform's sample rate in Hz.
    offsets
        Where each window begins in the file, in seconds.
    duration
        Length of the sound in the whole file, in seconds, whatever its header says.
    decoder
        The decoder that read it.
    warnings
        What is odd about it, a sentence each.
    """

    waveform: np.ndarray
    sample_rate: int
    offsets: tuple[float, ...]
    duration: float
    decoder: str
    warnings: tuple[str, ...] = ()

    @property
    def offset(self) -> float:
        """Where the first window begins."""
        return self.offsets[0]


def load(
    path: str | os.PathLike,
    *,
    sample_rate: int,
    duration: float,
    excerpt: str,
    min_duration: float,
    num_windows: int = 1,
    refuse_truncated: bool = False,
) -> Audio:
    """Decode a window of an audio file; memory depends on the window, not on the file.

    A damaged or cut file is decoded as far as it goes, with a warning.

    Parameters
    ----------
    path
        A regular file in any format of libsndfile (wav, flac, mp3, ogg, opus, aiff, ...) or, if
        ffmpeg is installed, of `containers.SIGNATURES`.
    sample_rate
        The rate to resample to, in Hz.
    duration
        Length of the window, or of all windows together, in seconds; a shorter file is read whole.
    excerpt
        "start", "center" for the middle of the file, or "spread" for windows all over it.
    min_duration
        Shorter audio is an error, in seconds.
    num_windows
        The number of windows of a spread excerpt (see `Excerpt`).
    refuse_truncated
        Whether a file that is shorter than its header says is an error.

    Raises
    ------
    AudioError
        If the file is missing, not audio, too short, silent, or holds samples that are not finite.
    MachineError
        If it cannot be read, or not without ffmpeg.
    """
    wanted = Excerpt(excerpt, duration, num_windows)
    try:
        with _opened(Path(path)) as file:
            decoded = _decode(file, wanted, Path(path).suffix.lower())
            decoded = replace(decoded, is_cut=containers.is_cut(file))
        warnings = _check(decoded, min_duration, refuse_truncated)
        parts = [_resample(mono, decoded.rate, sample_rate) for mono in decoded.sound]
    except MemoryError as error:
        raise MachineError(f"a window of {duration:g} s of it does not fit in memory") from error
    if excerpt == "spread":  # windows have one length, which resampling may exceed by a sample
        parts = [np.stack(parts)[:, : round(duration * sample_rate / num_windows)]]
    return Audio(
        waveform=parts[0],
        sample_rate=sample_rate,
        offsets=decoded.windows.offsets,
        duration=decoded.total / decoded.rate,
        decoder=decoded.decoder,
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Decoded:
    """Mono windows of a file of `total` frames, which promised so many seconds, or nothing."""

    sound: list[np.ndarray]
    windows: Windows
    rate: int
    total: int
    promised: float | None
    decoder: str
    channel: int | None = None  # if the mean of all is silent, as in antiphase
    is_cut: bool = False


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; one that cannot be opened may be there at the next run."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for a writer forever
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise AudioError(f"{path} is {kind}", NO_AUDIO)
        file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        kind = MISSING if isinstance(error, FileNotFoundError) else UNREADABLE
        raise MachineError(f"cannot read {path}: {error.strerror}", kind, READABLE) from error
    with file:
        yield file


def _decode(file: BinaryIO, excerpt: Excerpt, suffix: str) -> _Decoded:
    """Ask libsndfile, then ffmpeg, then libsndfile for what it can read without seeking."""
    demuxer, start = containers.recognise(file)
    stream = mpeg.examine(file, start) if demuxer == "mp3" else None
    refused: AudioError | None = None
    if demuxer == "ogg" and containers.is_chained(file):
        pass  # libsndfile would read the first of its streams alone
    elif demuxer is None or demuxer in containers.SNDFILE:
        try:
            with SndfileSource(file, stream) as source:
                return _read(source, excerpt)
        except AudioError as error:
            refused = error
    if demuxer is not None:
        try:
            with FfmpegSource(file, demuxer) as other:
                return _read(other, excerpt)
        except MachineError as error:
            if not isinstance(refused, Incomplete):
                reasons = [str(reason) for reason in (refused, error) if reason]
                raise MachineError("; ".join(reasons), error.kind, error.retry) from error
        except AudioError as error:
            refused = refused or error
    if isinstance(refused, Incomplete):
        with SndfileSource(file, stream) as source:
            source.go_through()
            return _read(source, excerpt)
    if suffix in HEADERLESS and demuxer is None:
        raise AudioError("headerless audio, whose sample rate nobody knows", UNSUPPORTED)
    assert refused is not None
    raise refused


def _read(source: SndfileSource | FfmpegSource, excerpt: Excerpt) -> _Decoded:
    """Read an excerpt of the channels' mean or, if that is silent, of the first that is not."""
    low, high = SAMPLE_RATES
    if not low <= source.rate <= high:
        raise AudioError(
            f"its sample rate of {source.rate} Hz is outside {low} to {high} Hz", UNSUPPORTED
        )
    decoded = _read_mix(source, excerpt, _to_mono)
    if source.channels > 1 and _is_silent(decoded.sound):
        for channel in range(min(source.channels, MOST_CHANNELS)):
            alone = _read_mix(source, excerpt, functools.partial(_one_channel, channel=channel))
            if not _is_silent(alone.sound):
                return replace(alone, channel=channel)
    return decoded


def _read_mix(source: SndfileSource | FfmpegSource, excerpt: Excerpt, mix: Mix) -> _Decoded:
    """Read an excerpt, and once more if the file turns out to be shorter than it seemed."""
    total = source.total
    for _ in range(MOST_ATTEMPTS):
        windows = excerpt.place(total, source.rate)
        sound, end = source.read(windows.starts, windows.count, mix)
        missing = max(
            min(windows.count, total - start) - len(mono)
            for start, mono in zip(windows.starts, sound, strict=True)
        )
        tolerated = 0 if excerpt.kind == "spread" else TRUNCATION_TOLERANCE * source.rate
        if end is None or missing <= tolerated:
            break
        total = end
    if end is not None and source.is_estimate:
        total = end
    if not any(map(len, sound)):
        raise AudioError("it holds no audio: no samples", NO_AUDIO)
    return _Decoded(sound, windows, source.rate, total, source.promised, source.name)


@np.errstate(over="ignore", invalid="ignore")  # `_check` reports such samples
def _to_mono(frames: np.ndarray) -> np.ndarray:
    """Average [N, channels] over the channels."""
    if frames.shape[1] == 2:  # equal to the mean, and ten times faster
        return (frames[:, 0] + frames[:, 1]) / np.float32(2)
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)


def _one_channel(frames: np.ndarray, channel: int) -> np.ndarray:
    return frames[:, channel]


def _range(sound: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the lowest and the highest sample, which are NaN if any is."""
    filled = [mono for mono in sound if len(mono)]
    return float(np.min([m.min() for m in filled])), float(np.max([m.max() for m in filled]))


def _is_silent(sound: Sequence[np.ndarray]) -> bool:
    """Say whether nothing is louder than dither, apart from a constant."""
    low, high = _range(sound)
    return (high - low) / 2 < SILENCE


def _check(decoded: _Decoded, min_duration: float, refuse_truncated: bool) -> tuple[str, ...]:
    """Refuse what cannot be used; return what is odd about the rest."""
    read = sum(map(len, decoded.sound)) / decoded.rate
    if read < LEAST:
        raise AudioError("it holds no audio", NO_AUDIO)
    if read < min_duration:
        raise AudioError(
            f"{read:.2f} s is shorter than config.feature.min_duration ({min_duration:g} s)",
            TOO_SHORT,
        )
    low, high = _range(decoded.sound)
    if not (low >= -FULL_SCALE and high <= FULL_SCALE):
        raise AudioError("it holds samples that are not finite or beyond any full scale")
    if _is_silent(decoded.sound):
        raise AudioError(
            f"silent: no sample of the {read:.1f} s read exceeds {SILENCE:.0e}", SILENT
        )
    warnings, seconds = [], decoded.total / decoded.rate
    if decoded.promised is not None and seconds < decoded.promised - TRUNCATION_TOLERANCE:
        warnings.append(f"{CUT}: {seconds:.1f} of {decoded.promised:.1f} s")
    elif decoded.is_cut:
        warnings.append(f"{ENDS_EARLY}: the file ends in the midst of its sound")
    if warnings and refuse_truncated:
        raise AudioError(warnings[0])
    if decoded.channel is not None:
        warnings.append(f"{ANTIPHASE}: of them, number {decoded.channel + 1} is used")
    return tuple(warnings)


def _resample(mono: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample as librosa does, to exactly ceil(N * sample_rate / rate) samples."""
    if rate == sample_rate:
        return np.ascontiguousarray(mono)
    length = int(np.ceil(len(mono) * (sample_rate / rate)))
    resampled = soxr.resample(mono, rate, sample_rate, quality="soxr_hq")[:length]
    missing = length - len(resampled)
    return np.pad(resampled, (0, missing)) if missing else resampled
