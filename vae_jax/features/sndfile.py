"""Decodes files with libsndfile, which seeks to the windows; for `features.audio`."""

import re
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
import soundfile

from vae_jax.features import mpeg
from vae_jax.features.errors import AudioError

# Values (samples x channels) decoded at a time. Smaller blocks seek more often; larger ones spend
# a tenth of the time on fresh memory.
BLOCK_VALUES = 2**20
# Frames decoded at a time if an error is expected, which loses those of its block.
CAREFUL_FRAMES = 2**12
MISSING = 0.1  # s that a header may promise beyond what is there: encoder padding, rounding
# Formats without a length in the header, such as FLAC written to a pipe, claim 2**63 - 1 frames.
UNKNOWN_FRAMES = 2**62
# Programs that write to a pipe put the longest length there is in the header of wav or au.
STREAMED_BYTES = 0x7FFF0000
_SHORTENED = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)

Mix = Callable[[np.ndarray], np.ndarray]


class Incomplete(AudioError):
    """libsndfile cannot read all that is there, or only without seeking."""


class SndfileSource:
    """An open file.

    Parameters
    ----------
    file
        The file. libsndfile reads its descriptor, since by its name it would read `._NAME` too.
    stream
        The frames of an mp3 file, if its header does not tell them.

    Attributes
    ----------
    rate
        The sample rate in Hz.
    channels
        The number of channels.
    total
        The number of frames, as far as is known.
    promised
        The length that the header says, in seconds, if it is known to be wrong.

    Raises
    ------
    AudioError
        If libsndfile cannot read it.
    """

    name = "libsndfile"
    is_estimate = False  # whether `total` is one

    def __init__(self, file: BinaryIO, stream: mpeg.Stream | None) -> None:
        self._file, self._lead = file, 0
        self._stream: mpeg.Stream | None = None  # what libsndfile is given for the file
        self._sound = self._open()
        self.total, self._goes_through = self._sound.frames - self._behind(), False
        if stream:
            counted = stream.frames * stream.frame.samples
            if stream.is_bare and self.total >= counted:  # which is faster
                self.total = counted
            else:
                self._stream, self._lead = stream, stream.lead
                self._reopen()
                self.total = self._sound.frames - self._lead
        self.rate, self.channels = self._sound.samplerate, self._sound.channels
        self.promised = stream.promised if stream else self._promised()

    def __enter__(self) -> "SndfileSource":
        return self

    def __exit__(self, *_: object) -> None:
        self._sound.close()

    def read(
        self, starts: Sequence[int], count: int, mix: Mix
    ) -> tuple[list[np.ndarray], int | None]:
        """Return mono windows, [<= count] each, and where the file ends if that was met.

        Raises
        ------
        Incomplete
            If it cannot be read so far.
        """
        if self._goes_through:
            return self._read_through(starts, count, mix)
        if self.total > UNKNOWN_FRAMES:
            raise Incomplete("its header does not tell its length")
        sound: list[np.ndarray] = []
        try:
            for start in starts:
                if sound and self._sound.format == "OGG":
                    # After a seek, libsndfile would mix what was read before into the sound.
                    self._reopen()
                if start + self._lead != self._sound.tell():
                    self._sound.seek(start + self._lead)
                size = max(0, min(count, self.total - start))
                sound.append(_read_mono(self._sound, size, mix))
                if len(sound[-1]) < size - MISSING * self.rate:
                    raise Incomplete("truncated or damaged")
        except soundfile.LibsndfileError as error:
            raise Incomplete(f"truncated or damaged ({_reason(error)})") from error
        is_short = len(sound[-1]) < count
        return sound, starts[-1] + len(sound[-1]) if is_short else None

    def go_through(self) -> None:
        """Read from the beginning from now on, as far as there is something to decode."""
        if self.promised is None and self.total < UNKNOWN_FRAMES:
            self.promised = self.total / self.rate
        self._goes_through = True
        _, end = self._read_through((UNKNOWN_FRAMES,), 0, lambda frames: frames[:, 0])
        assert end is not None
        self.total = end

    def _read_through(
        self, starts: Sequence[int], count: int, mix: Mix
    ) -> tuple[list[np.ndarray], int | None]:
        self._reopen()
        if self._lead:
            self._sound.seek(self._lead)
        parts, block = Parts(starts, count), np.empty((CAREFUL_FRAMES, self.channels), np.float32)
        while not parts.are_whole:
            try:
                frames = self._sound.read(out=block)
            except soundfile.LibsndfileError:
                frames = block[:0]
            if not len(frames):
                return parts.sound, parts.position
            parts.add(frames, mix)
        return parts.sound, None

    def _reopen(self) -> None:
        self._sound.close()
        self._sound = self._open()

    def _open(self) -> soundfile.SoundFile:
        self._file.seek(0)
        source = mpeg.Whole(self._file, self._stream) if self._stream else self._file.fileno()
        try:
            return soundfile.SoundFile(source, closefd=False)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"not audio that can be decoded ({_reason(error)})") from error

    def _behind(self) -> int:
        """Return how many frames libsndfile takes what is behind the end of a w64 file for."""
        log = self._sound.extra_info
        align = re.search(r"Block Align +: (\d+)", log)
        for promised, actual in _SHORTENED.findall(log):
            if self._sound.format == "W64" and align and int(promised) < int(actual):
                return (int(actual) - int(promised)) // int(align[1])
        return 0

    def _promised(self) -> float | None:
        """Read from libsndfile's log what the header says, if the file is shorter."""
        for promised, actual in _SHORTENED.findall(self._sound.extra_info):
            if int(actual) < int(promised) < STREAMED_BYTES and int(actual):
                return self._sound.frames / self.rate * int(promised) / int(actual)
        return None


class Parts:
    """Collects the windows of a file that is decoded from its start, and nothing else of it."""

    def __init__(self, starts: Sequence[int], count: int) -> None:
        self.position = 0
        self._starts, self._count = starts, count
        self._parts: list[list[np.ndarray]] = [[] for _ in starts]

    @property
    def are_whole(self) -> bool:
        """Whether nothing more is needed."""
        return self.position >= self._starts[-1] + self._count

    @property
    def sound(self) -> list[np.ndarray]:
        """The windows, as far as they were decoded."""
        return [np.concatenate([np.empty(0, np.float32), *parts]) for parts in self._parts]

    def add(self, frames: np.ndarray, mix: Mix) -> None:
        """Take the frames that follow, [n, channels]."""
        for start, parts in zip(self._starts, self._parts, strict=True):
            first, last = start - self.position, start - self.position + self._count
            wanted = frames[max(0, first) : max(0, last)]
            if len(wanted):
                parts.append(np.array(mix(wanted), np.float32))
        self.position += len(frames)


def _read_mono(file: soundfile.SoundFile, count: int, mix: Mix) -> np.ndarray:
    """Read at most `count` frames and average the channels, block by block."""
    mono = np.empty(count, np.float32)
    most = min(count, max(1, BLOCK_VALUES // file.channels))
    block = np.empty((most, file.channels), np.float32)
    position = 0
    while position < count:
        frames = file.read(out=block[: count - position])
        mono[position : position + len(frames)] = mix(frames)
        position += len(frames)
        if len(frames) < len(block):
            break
    return mono[:position]


def _reason(error: soundfile.LibsndfileError) -> str:
    return f"libsndfile: {error.error_string.rstrip('.')}"
