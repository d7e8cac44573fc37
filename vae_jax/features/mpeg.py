"""Counts the frames of MPEG audio (mp3, mp2), whose files often do not say how many there are.

A header behind the first frame's may say it (Xing, Info; libsndfile reads no VBRI), but is wrong in
files that were cut or joined. If it cannot be trusted, frames are counted from header to header,
and libsndfile is given the file with a header that is right.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from vae_jax.features.errors import NO_AUDIO, AudioError

FIXED_BITS = 0xFFFE0C00  # of a frame's header: sync, version, layer, sample rate
MOST_JUNK = 2**17  # bytes at the beginning in which the first frame is looked for
DECODER_DELAY = 529  # samples
BLOCK = 2**20  # bytes read at a time
TAG_BYTES = 4096  # of music may be missing, or of tags follow it, while a header is trusted
TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")

_BITRATES = {  # kbit/s by (is version 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_BITRATES[False, 3] = _BITRATES[False, 2]
_RATES = (44100, 48000, 32000)


@dataclass(frozen=True)
class Frame:
    """What a frame's header says: its length in bytes and samples, and the sample rate in Hz."""

    header: int
    size: int
    samples: int
    rate: int

    @property
    def is_layer_three(self) -> bool:
        """Whether it is mp3; others have no header that tells a count."""
        return (self.header >> 17) & 3 == 1

    @property
    def side_bytes(self) -> int:
        """Bytes between the header and where Xing's begins."""
        is_mono = (self.header >> 6) & 3 == 3
        if (self.header >> 19) & 3 == 3:
            return 17 if is_mono else 32
        return 9 if is_mono else 17


@dataclass(frozen=True)
class Stream:
    """Where the frames of a file lie, and how many there are.

    Attributes
    ----------
    first, end
        Where the first frame with sound begins, and where the last one ends, in bytes.
    info
        The frame with Xing's header, or one like it, with the true count.
    frames
        The number of frames.
    promised
        How many seconds a header says that there are, or None.
    frame
        The first frame's header.
    lead
        Samples that libsndfile decodes from a made header, before those of the first frame.
    is_bare
        Whether the file has no header of any kind, so that libsndfile may read it as it is.
    """

    first: int
    end: int
    info: bytes
    frames: int
    promised: float | None
    frame: Frame
    lead: int = 0
    is_bare: bool = False


def id3_length(head: bytes) -> int:
    """Return the length of an ID3v2 tag that begins here, 0 without one."""
    if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 127:
        return 0
    size = (head[6] << 21) | (head[7] << 14) | (head[8] << 7) | head[9]
    return size + (20 if head[5] & 16 else 10)  # with a footer


def parse(header: int) -> Frame | None:
    """Return the frame that has these four bytes in front, if one can have."""
    version, layer = (header >> 19) & 3, 4 - ((header >> 17) & 3)
    bitrate, rate = (header >> 12) & 15, (header >> 10) & 3
    if header >> 21 != 0x7FF or version == 1 or layer == 4 or rate == 3:
        return None
    if not 0 < bitrate < 15:  # 0 is a free format, which hardly anything reads
        return None
    is_first = version == 3
    hertz = _RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    bits, padding = _BITRATES[is_first, layer][bitrate - 1] * 1000, (header >> 9) & 1
    if layer == 1:
        return Frame(header, (12 * bits // hertz + padding) * 4, 384, hertz)
    samples = 576 if layer == 3 and not is_first else 1152
    return Frame(header, samples // 8 * bits // hertz + padding, samples, hertz)


def find_frame(file: BinaryIO, start: int) -> tuple[int, Frame] | None:
    """Return where the first frame begins that is followed by another of its kind."""
    file.seek(start)
    data = file.read(MOST_JUNK)
    at = data.find(b"\xff")
    while at >= 0:
        frame = parse(int.from_bytes(data[at : at + 4], "big")) if at + 4 <= len(data) else None
        if frame:
            following = data[at + frame.size : at + frame.size + 4]
            is_alone = at == 0 and at + frame.size == len(data) < MOST_JUNK
            if is_alone or (int.from_bytes(following, "big") ^ frame.header) & FIXED_BITS == 0:
                return start + at, frame
        at = data.find(b"\xff", at + 1)
    return None


def examine(file: BinaryIO, start: int) -> Stream | None:
    """Return where the frames lie if no header tells, or a wrong one does; else None.

    Parameters
    ----------
    start
        Where the sound begins, behind ID3 tags, in bytes.
    """
    found = find_frame(file, start)
    if found is None or not found[1].is_layer_three:
        return None
    first, frame = found
    size = file.seek(0, io.SEEK_END)
    file.seek(first)
    info = file.read(frame.size)
    kind, at = info[4 + frame.side_bytes :][:4], 4 + frame.side_bytes
    promised, length = None, None
    if kind in (b"Xing", b"Info") and len(info) >= at + 16:
        flags, *values = struct.unpack(">III", info[at + 4 : at + 16])
        if flags & 1:
            promised = values.pop(0)
        if flags & 2 and values:
            length = values.pop(0)
        first += frame.size
    elif info[36:40] == b"VBRI" and len(info) >= 54:
        promised = struct.unpack(">I", info[50:54])[0]
        first += frame.size
        kind = b""
    else:
        kind = b""
    if first >= size:
        raise AudioError("it holds no audio, only a header of mp3", NO_AUDIO)
    if kind and promised and length and _is_whole(file, first - frame.size + length, size):
        return None
    frames, end = count(file, first, frame.header, size)
    if kind and promised and abs(frames - promised) <= 1:
        return None
    if not frames:
        raise AudioError("it holds no audio, only headers of mp3", NO_AUDIO)
    seconds = promised and (promised * frame.samples - _trimmed(info, at)) / frame.rate
    if kind and promised:
        return Stream(first, end, _patched(info, at, frames, end - first), frames, seconds, frame)
    made, lead, is_bare = _made(frame, frames), frame.samples - DECODER_DELAY, first == found[0]
    return Stream(first, end, made, frames, seconds, frame, lead, is_bare)


def count(file: BinaryIO, start: int, header: int, size: int) -> tuple[int, int]:
    """Count frames like that with the given header, from `start` on; return where they end too.

    Anything between them is passed over, such as a tag where files were joined.
    """
    sizes: dict[int, int] = {}
    frames, position, end, fixed = 0, start, start, header & FIXED_BITS
    base, data = start, _block(file, start)
    while True:
        at = position - base
        if at + 4 > len(data) and base + len(data) < size:
            base, data, at = position, _block(file, position), 0
        if at + 4 > len(data):
            return frames, end
        word = int.from_bytes(data[at : at + 4], "big")
        length = sizes.get(word)
        if length is None:
            frame = parse(word) if word & FIXED_BITS == fixed else None
            length = sizes[word] = frame.size if frame else 0
        if length and position + length <= size:
            frames, position = frames + 1, position + length
            end = position
        elif length:  # the last frame is cut
            return frames, end
        elif skipped := id3_length(data[at : at + 10]):
            position += skipped
        else:
            following = _next(file, position + 1, fixed, size)
            if following is None:
                return frames, end
            position = following


class Whole(io.RawIOBase):
    """The file as it would be with a header that is right, to read and seek in."""

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        self._file, self._info, self._first = file, stream.info, stream.first
        self._size = len(stream.info) + stream.end - stream.first
        self._at = 0

    def __len__(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as in any file."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """Return where reading goes on."""
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill a buffer as far as there is something to read."""
        view = memoryview(buffer).cast("B")
        data = self._info[self._at : self._at + len(view)]
        missing = min(len(view), self._size - self._at) - len(data)
        if missing > 0:
            self._file.seek(self._first + self._at + len(data) - len(self._info))
            data += self._file.read(missing)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: object) -> int:
        """Refuse to."""
        raise io.UnsupportedOperation("read only")


def _block(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read(BLOCK)


def _next(file: BinaryIO, start: int, fixed: int, size: int) -> int | None:
    """Return where the next two frames in a row begin."""
    while start < size:
        data = _block(file, start)
        at = data.find(b"\xff")
        while at >= 0 and at + 4 <= len(data):
            word = int.from_bytes(data[at : at + 4], "big")
            frame = parse(word) if word & FIXED_BITS == fixed else None
            if frame:
                file.seek(start + at + frame.size)
                following = file.read(4)
                if len(following) == 4 and int.from_bytes(following, "big") & FIXED_BITS == fixed:
                    return start + at
                if start + at + frame.size == size:
                    return start + at
            at = data.find(b"\xff", at + 1)
        if data.startswith(TAGS[1]) and len(data) < BLOCK:
            return None
        start += max(1, len(data) - 3)
    return None


def _is_whole(file: BinaryIO, end: int, size: int) -> bool:
    """Say whether the music ends where its header says, with nothing but tags behind it."""
    if end > size + TAG_BYTES // 4:
        return False
    if size - end <= TAG_BYTES:
        return True
    file.seek(end)
    return file.read(16).startswith(TAGS)


def _patched(info: bytes, at: int, frames: int, length: int) -> bytes:
    """Return Xing's header with other counts, and nothing to drop at the end."""
    patched = bytearray(info)
    patched[at + 8 : at + 12] = struct.pack(">I", frames)
    if patched[at + 7] & 2:
        patched[at + 12 : at + 16] = struct.pack(">I", len(info) + length)
    if delays := _delays(info, at):
        patched[delays + 1] &= 0xF0
        patched[delays + 2] = 0
    return bytes(patched)


def _delays(info: bytes, at: int) -> int:
    """Return where LAME's part of a header tells its delays, in bytes; 0 without one."""
    found = max(info.find(name, at) for name in (b"LAME", b"Lav"))
    return found + 21 if found > 0 and found + 24 <= len(info) else 0


def _trimmed(info: bytes, at: int) -> int:
    """Return how many samples are dropped at both ends."""
    if not (delays := _delays(info, at)):
        return 0
    both = int.from_bytes(info[delays : delays + 3], "big")
    return (both >> 12) + (both & 0xFFF)


def _made(frame: Frame, frames: int) -> bytes:
    """Return a frame with Xing's header like the given one, and a silent one.

    libsndfile drops the delay of its decoder from what follows such a header, and so drops silence.
    """
    header = (frame.header & ~0xF200) | 0x10000  # without padding and checksum
    for bitrate in range(1, 15):
        made = parse(header | (bitrate << 12))
        if made and made.size >= 4 + made.side_bytes + 12:
            break
    assert made is not None
    start = made.header.to_bytes(4, "big") + bytes(made.side_bytes)
    xing = start + b"Xing" + struct.pack(">II", 1, frames + 1)
    return xing.ljust(made.size, b"\0") + start.ljust(made.size, b"\0")
