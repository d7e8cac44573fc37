"""Decodes one window of an audio file, or several, to mono waveforms, for `features.extract`.

The samples are exactly those of `librosa.load(path, sr=..., offset=..., duration=...)`: libsndfile
with a seek to the window, the mean over channels, soxr's HQ resampling. Containers that libsndfile
does not know (m4a, aac, wma, webm) are decoded by audioread, where it finds ffmpeg or the like.
"""

import math
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
    """One decoded window of a track, or several of one length.

    Attributes
    ----------
    waveform
        Mono samples, float32 [N], full scale 1; spread windows are [W, N].
    sample_rate
        Of the waveform, in Hz.
    offsets
        Where each window begins in the file, in seconds.
    duration
        Of the whole file by its header, in seconds; of the part that was read where the header
        does not tell.
    """

    waveform: np.ndarray
    sample_rate: int
    offsets: tuple[float, ...]
    duration: float

    @property
    def offset(self) -> float:
        """Where the first window begins."""
        return self.offsets[0]


@dataclass(frozen=True)
class Excerpt:
    """Which part of a file is read.

    Attributes
    ----------
    kind
        "start", "center" (the middle of the file), or "spread".
    duration
        Of all windows together, in seconds; a shorter file is read whole.
    num_windows
        Of a spread excerpt, each of duration / num_windows. Each lies in the middle of one of as
        many equal parts of the file. Of a file that is shorter than the excerpt there are as many
        windows as its length comes closest to, so they may overlap; one shorter than a window is
        read whole. No window reaches beyond the file.
    """

    kind: str
    duration: float
    num_windows: int = 1

    def place(self, total: int | None, rate: int) -> "_Windows":
        """Return the windows of a file of `total` frames, where known, at `rate` frames a second.

        Raises
        ------
        AudioError
            If they depend on a length that is not known.
        """
        if self.kind == "start":
            return _Windows(rate, (0.0,), int(self.duration * rate), total)
        if total is None:
            raise AudioError(
                f"its header does not tell its length, so that it has no known {self.kind}"
            )
        seconds = total / rate
        if self.kind == "center":
            offset = max(0.0, (seconds - self.duration) / 2)
            return _Windows(rate, (offset,), int(self.duration * rate), total)
        window = self.duration / self.num_windows
        count = max(1, min(self.num_windows, round(seconds / window)))
        margin = max(0.0, seconds / count - window) / 2
        last = max(0.0, seconds - window - margin)
        offsets = np.linspace(margin, last, count)
        return _Windows(rate, tuple(offsets.tolist()), math.ceil(window * rate), total)


@dataclass(frozen=True)
class _Windows:
    """Which frames of a file to read: at most `count` from each offset (s), of `total` if known."""

    rate: int
    offsets: tuple[float, ...]
    count: int
    total: int | None

    @property
    def starts(self) -> list[int]:
        """The first frame of each."""
        starts = [int(offset * self.rate) for offset in self.offsets]
        if self.total is None:
            return starts
        return [max(0, min(start, self.total - self.count)) for start in starts]


def load(
    path: str | os.PathLike,
    *,
    sample_rate: int,
    duration: float,
    excerpt: str,
    min_duration: float,
    num_windows: int = 1,
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
        Length of the window, or of all windows together, in seconds; a shorter file is read whole.
    excerpt
        "start", "center" for the middle of the file, or "spread" for windows all over it.
    min_duration
        Shorter audio is an error, in seconds.
    num_windows
        Of a spread excerpt (see `Excerpt`).

    Raises
    ------
    AudioError
        If the file is missing, unreadable, not audio, truncated, too short, silent, or holds
        samples that are no numbers.
    """
    path = Path(path)
    read = _read_foreign if _is_foreign(_head(path)) else _read_sndfile
    try:
        sound, windows = read(path, Excerpt(excerpt, duration, num_windows))
        _check(sound, windows.rate, min_duration)
        parts = [_resample(mono, windows.rate, sample_rate) for mono in sound]
    except MemoryError as error:
        raise AudioError(f"a window of {duration:g} s of it does not fit in memory") from error
    if excerpt == "spread":  # of one length, which resampling may exceed by a sample
        parts = [np.stack(parts)[:, : round(duration * sample_rate / num_windows)]]
    return Audio(
        waveform=parts[0],
        sample_rate=sample_rate,
        offsets=windows.offsets,
        duration=(windows.total or len(sound[0])) / windows.rate,
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


def _read_sndfile(path: Path, excerpt: Excerpt) -> tuple[list[np.ndarray], _Windows]:
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
        windows = _place(excerpt, total, file.samplerate)
        try:
            sound = [_read_window(file, start, windows.count) for start in windows.starts]
        except soundfile.LibsndfileError as error:
            raise AudioError(f"truncated or damaged ({_reason(error)})") from error
    if total is not None:
        for mono, offset, start in zip(sound, windows.offsets, windows.starts, strict=True):
            promised = min(windows.count, total - start) / windows.rate
            if len(mono) / windows.rate < promised - TRUNCATION_TOLERANCE:
                raise AudioError(
                    f"truncated: its header promises {promised:.2f} s from {offset:.2f} s on, "
                    f"but {len(mono) / windows.rate:.2f} s can be decoded"
                )
    return sound, windows


def _read_window(file: soundfile.SoundFile, start: int, count: int) -> np.ndarray:
    if file.format == "OGG" and file.tell():  # libsndfile mixes what was read before into it
        with soundfile.SoundFile(file.name) as fresh:
            return _read_window(fresh, start, count)
    if start != file.tell():
        file.seek(start)
    return _read_mono(file, min(count, file.frames - start))


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


def _read_foreign(path: Path, excerpt: Excerpt) -> tuple[list[np.ndarray], _Windows]:
    import audioread

    try:
        with audioread.audio_open(str(path)) as file:
            rate, width = file.samplerate, 2 * file.channels
            total = round(file.duration * rate) or None  # ffmpeg's estimate; 0 where it has none
            windows = _place(excerpt, total, rate)
            places = [(start * width, (start + windows.count) * width) for start in windows.starts]
            position, parts = 0, [bytearray() for _ in places]
            for chunk in file:
                for data, (first, last) in zip(parts, places, strict=True):
                    data += chunk[max(0, first - position) : max(0, last - position)]
                position += len(chunk)
                if position >= places[-1][1]:
                    break
    except audioread.NoBackendError as error:
        raise AudioError(
            "no decoder for this format: install ffmpeg, or convert it to flac or mp3"
        ) from error
    except (audioread.DecodeError, OSError) as error:
        raise AudioError("not audio that ffmpeg can decode") from error
    sound = []
    for data in parts:
        whole = len(data) - len(data) % width
        frames = np.frombuffer(data[:whole], "<i2").reshape(-1, width // 2)
        sound.append(_to_mono(frames.astype(np.float32) / np.float32(2**15)))
    most = max(map(len, sound))
    return [mono for mono in sound if len(mono) == most], windows


def _place(excerpt: Excerpt, total: int | None, rate: int) -> _Windows:
    low, high = SAMPLE_RATES
    if not low <= rate <= high:
        raise AudioError(f"its sample rate of {rate} Hz is outside {low} to {high} Hz")
    return excerpt.place(total, rate)


@np.errstate(over="ignore", invalid="ignore")  # `_check` reports such samples
def _to_mono(frames: np.ndarray) -> np.ndarray:
    """Average [N, channels] over the channels."""
    if frames.shape[1] == 2:  # equal to the mean, and ten times faster
        return (frames[:, 0] + frames[:, 1]) / np.float32(2)
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)


def _check(sound: list[np.ndarray], rate: int, min_duration: float) -> None:
    read = sum(map(len, sound)) / rate
    if not read:
        raise AudioError("the file holds no samples")
    if read < min_duration:
        raise AudioError(
            f"{read:.2f} s is shorter than config.feature.min_duration ({min_duration:g} s)"
        )
    # NaN if any sample is
    low = float(np.min([mono.min() for mono in sound]))
    high = float(np.max([mono.max() for mono in sound]))
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
