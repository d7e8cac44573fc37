"""Decodes one window of an audio file to a mono waveform, for `features.extract`.

The samples are exactly those of `librosa.load(path, sr=..., offset=..., duration=...)`: libsndfile
with a seek to the window, the mean over channels, soxr's HQ resampling. Containers that libsndfile
does not know (m4a, aac, wma, webm) are decoded by audioread, where it finds ffmpeg or the like.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

# Outside these no music is stored; a forged header could otherwise ask for any amount of memory.
SAMPLE_RATES = (1_000, 768_000)  # Hz
# -84 dB of full scale, two steps of 16-bit audio: what stays below is at most dithered silence.
SILENCE = 2.0**-14
# Full scale of 32-bit integers; larger floats are no audio, and their power would overflow.
FULL_SCALE = 2.0**31
# Headers may promise this much more than can be decoded (s): encoder padding, rounding.
TRUNCATION_TOLERANCE = 0.1
# Values (samples x channels) decoded at a time: smaller blocks seek more often, larger ones spend
# a tenth of the time on fresh memory.
BLOCK_VALUES = 2**20
# Formats without a length in the header, such as FLAC written to a pipe, claim 2**63 - 1 frames.
UNKNOWN_FRAMES = 2**62
HEAD_BYTES = 16


class AudioError(Exception):
    """A track that cannot be used; the message is one sentence that says why.

    It fails that track, never the run.
    """


@dataclass(frozen=True)
class Audio:
    """One decoded window of a track.

    Attributes
    ----------
    waveform
        Mono samples, float32 [N], full scale 1.
    sample_rate
        Of the waveform, in Hz.
    offset
        Where the window begins in the file, in seconds.
    duration
        Of the whole file by its header, in seconds; of the part that was read where the header
        does not tell.
    """

    waveform: np.ndarray
    sample_rate: int
    offset: float
    duration: float


@dataclass(frozen=True)
class _Window:
    """Which frames of a file to read: at most `count` from `start`, of `total` where known."""

    rate: int
    offset: float
    start: int
    count: int
    total: int | None


def load(
    path: str | os.PathLike,
    *,
    sample_rate: int,
    duration: float,
    excerpt: str,
    min_duration: float,
) -> Audio:
    """Decode a window of an audio file; memory depends on the window, not on the file.

    Parameters
    ----------
    path
        A regular file in any format of libsndfile (wav, flac, mp3, ogg, opus, aiff, ...), or m4a,
        aac, wma or webm where ffmpeg is installed.
    sample_rate
        To resample to, in Hz.
    duration
        Length of the window in seconds; a shorter file is read whole.
    excerpt
        "start", or "center" for the middle of the file.
    min_duration
        Shorter audio is an error, in seconds.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, not audio, truncated, too short, silent, or holds
        samples that are no numbers.
    """
    path = Path(path)
    read = _read_foreign if _is_foreign(_head(path)) else _read_sndfile
    try:
        mono, window = read(path, duration, excerpt)
        _check(mono, window, min_duration)
        waveform = _resample(mono, window.rate, sample_rate)
    except MemoryError as error:
        raise AudioError(f"a window of {duration:g} s of it does not fit in memory") from error
    return Audio(
        waveform=waveform,
        sample_rate=sample_rate,
        offset=window.offset,
        duration=(window.total or len(mono)) / window.rate,
    )


def _head(path: Path) -> bytes:
    """Return the first bytes of a regular file that is not empty."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for a writer forever
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise AudioError(f"{path} is {kind}")
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise AudioError("the file is empty")
    return head


def _is_foreign(head: bytes) -> bool:
    """Recognise containers beyond libsndfile: MP4, raw AAC, ASF (wma), Matroska (webm).

    Only these reach ffmpeg, which would take a text file for a playlist and follow it.
    """
    return head[4:8] == b"ftyp" or head.startswith(
        (b"\xff\xf1", b"\xff\xf9", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\x1a\x45\xdf\xa3")
    )


def _read_sndfile(path: Path, duration: float, excerpt: str) -> tuple[np.ndarray, _Window]:
    if path.suffix.lower() == ".raw":
        raise AudioError("headerless audio, whose sample rate nobody knows: convert it to wav")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not audio that can be decoded ({_reason(error)})") from error
    with file:
        if file.format == "RAW":  # libsndfile takes any file called .vox or .gsm for audio
            raise AudioError("headerless audio, whose sample rate nobody knows: convert it to wav")
        total = file.frames if file.frames < UNKNOWN_FRAMES else None
        window = _window(file.samplerate, total, duration, excerpt)
        try:
            if window.start:
                file.seek(window.start)
            mono = _read_mono(file, min(window.count, file.frames - window.start))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"truncated or damaged ({_reason(error)})") from error
    if total is not None:
        promised = min(window.count, total - window.start) / window.rate
        if len(mono) / window.rate < promised - TRUNCATION_TOLERANCE:
            raise AudioError(
                f"truncated: its header promises {promised:.2f} s from {window.offset:.2f} s on, "
                f"but {len(mono) / window.rate:.2f} s can be decoded"
            )
    return mono, window


def _read_mono(file: soundfile.SoundFile, count: int) -> np.ndarray:
    """Read at most `count` frames and average the channels, block by block."""
    mono = np.empty(count, np.float32)
    most = min(count, max(1, BLOCK_VALUES // file.channels))
    block = np.empty((most, file.channels), np.float32)
    position = 0
    while position < count:
        frames = file.read(out=block[: count - position])
        mono[position : position + len(frames)] = _to_mono(frames)
        position += len(frames)
        if len(frames) < len(block):
            break
    return mono[:position]


def _read_foreign(path: Path, duration: float, excerpt: str) -> tuple[np.ndarray, _Window]:
    import audioread

    try:
        with audioread.audio_open(str(path)) as file:
            rate, width = file.samplerate, 2 * file.channels
            total = round(file.duration * rate) or None  # ffmpeg's estimate; 0 where it has none
            window = _window(rate, total, duration, excerpt)
            first, last = window.start * width, (window.start + window.count) * width
            position, data = 0, bytearray()
            for chunk in file:
                data += chunk[max(0, first - position) : max(0, last - position)]
                position += len(chunk)
                if position >= last:
                    break
    except audioread.NoBackendError as error:
        raise AudioError(
            "no decoder for this format: install ffmpeg, or convert it to flac or mp3"
        ) from error
    except (audioread.DecodeError, OSError) as error:
        raise AudioError("not audio that ffmpeg can decode") from error
    whole = len(data) - len(data) % width
    frames = np.frombuffer(data[:whole], "<i2").reshape(-1, width // 2)
    return _to_mono(frames.astype(np.float32) / np.float32(2**15)), window


def _window(rate: int, total: int | None, duration: float, excerpt: str) -> _Window:
    """Place the window in a file of `total` frames; all times in seconds, `rate` in Hz."""
    low, high = SAMPLE_RATES
    if not low <= rate <= high:
        raise AudioError(f"its sample rate of {rate} Hz is outside {low} to {high} Hz")
    if excerpt == "start":
        offset = 0.0
    elif total is None:
        raise AudioError("its header does not tell its length, so that it has no known center")
    else:
        offset = max(0.0, (total / rate - duration) / 2)
    return _Window(rate, offset, int(offset * rate), int(duration * rate), total)


@np.errstate(over="ignore", invalid="ignore")  # `_check` reports such samples
def _to_mono(frames: np.ndarray) -> np.ndarray:
    """Average [N, channels] over the channels."""
    if frames.shape[1] == 2:  # equal to the mean, and ten times faster
        return (frames[:, 0] + frames[:, 1]) / np.float32(2)
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)


def _check(mono: np.ndarray, window: _Window, min_duration: float) -> None:
    read = len(mono) / window.rate
    if not len(mono):
        raise AudioError("the file holds no samples")
    if read < min_duration:
        raise AudioError(
            f"{read:.2f} s is shorter than config.feature.min_duration ({min_duration:g} s)"
        )
    low, high = float(mono.min()), float(mono.max())  # NaN if any sample is
    if not (low >= -FULL_SCALE and high <= FULL_SCALE):
        raise AudioError("it holds samples that are not finite or beyond any full scale")
    if max(-low, high) < SILENCE:
        raise AudioError(f"silent: no sample of the {read:.1f} s read exceeds {SILENCE:.0e}")


def _resample(mono: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample as librosa does, to exactly ceil(N * sample_rate / rate) samples."""
    if rate == sample_rate:
        return np.ascontiguousarray(mono)
    length = int(np.ceil(len(mono) * (sample_rate / rate)))
    resampled = soxr.resample(mono, rate, sample_rate, quality="soxr_hq")[:length]
    missing = length - len(resampled)
    return np.pad(resampled, (0, missing)) if missing else resampled


def _reason(error: soundfile.LibsndfileError) -> str:
    return f"libsndfile: {error.error_string.rstrip('.')}"
