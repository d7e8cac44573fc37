"""Tells what kind of audio file bytes are, by their signature alone: names may lie.

The kind of a file decides which decoder is asked first, and which demuxer ffmpeg has to use. If
ffmpeg were left to guess, it would take a text for a playlist and follow it.
"""

import os
from typing import BinaryIO

from vae_jax.features import mpeg
from vae_jax.features.errors import NO_AUDIO, AudioError

HEAD_BYTES = 16
OGG_PAGE_BYTES = 65_307  # of the longest page
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
MOST_ID3_TAGS = 8  # one after another in front of the sound

# Signature, where it stands, and ffmpeg's demuxer.
SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"fLaC", 0, "flac"),
    (b"OggS", 0, "ogg"),
    (b"WAVE", 8, "wav"),
    (b"AVI ", 8, "avi"),
    (b"XWMA", 8, "xwma"),
    (b"AIFF", 8, "aiff"),
    (b"AIFC", 8, "aiff"),
    (b"riff\x2e\x91\xcf\x11", 0, "w64"),
    (b"caff", 0, "caf"),
    (b".snd", 0, "au"),
    (b"Creative Voice", 0, "voc"),
    (b"ftyp", 4, "mov"),
    (b"moov", 4, "mov"),
    (b"mdat", 4, "mov"),
    (b"wide", 4, "mov"),
    (b"\x1a\x45\xdf\xa3", 0, "matroska"),
    (ASF, 0, "asf"),
    (b"wvpk", 0, "wv"),
    (b"MAC ", 0, "ape"),
    (b"TTA1", 0, "tta"),
    (b"MPCK", 0, "mpc8"),
    (b"MP+", 0, "mpc"),
    (b"tBaK", 0, "tak"),
    (b"ajkg", 0, "shn"),
    (b"DSD ", 0, "dsf"),
    (b"FRM8", 0, "iff"),
    (b"\x0b\x77", 0, "ac3"),
    (b"\x7f\xfe\x80\x01", 0, "dts"),
    (b"#!AMR", 0, "amr"),
    (b"FLV\x01", 0, "flv"),
    (b".RMF", 0, "rm"),
    (b"\0\0\x01\xba", 0, "mpeg"),
)
# The kinds that libsndfile reads, at least with some codecs.
SNDFILE = frozenset(("flac", "ogg", "wav", "aiff", "w64", "caf", "au", "voc", "mp3"))
MPEG_TS_PACKETS = (0, 188, 376)  # where they begin
APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")


def recognise(file: BinaryIO) -> tuple[str | None, int]:
    """Return ffmpeg's demuxer for an open file, None where it is not known, and where it begins.

    Files begin behind ID3 tags.

    Raises
    ------
    AudioError
        If it is empty, is metadata of macOS, or has nothing but tags, or no index.
    """
    start, head = 0, _read(file, 0, HEAD_BYTES)
    if not head:
        raise AudioError("the file is empty", NO_AUDIO)
    if head.startswith(APPLE_DOUBLE):
        raise AudioError("an AppleDouble file, in which macOS keeps metadata", NO_AUDIO)
    for _ in range(MOST_ID3_TAGS):
        if not (length := mpeg.id3_length(head)):
            break
        start += length
        head = _read(file, start, HEAD_BYTES)
    if start and not head.rstrip(b"\0") and not file.read(2**16).rstrip(b"\0"):
        raise AudioError("it holds no audio, only tags", NO_AUDIO)
    for signature, place, demuxer in SIGNATURES:
        if head[place : place + len(signature)] == signature:
            if demuxer == "mov" and not _has_index(file, start):
                raise AudioError("not decodable: no index (moov), as of a recording never closed")
            return demuxer, start
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return "aac", start
    if head[:1] == b"\x56" and len(head) > 1 and head[1] & 0xE0 == 0xE0:
        return "loas", start
    if all(_read(file, start + place, 1) == b"G" for place in MPEG_TS_PACKETS):
        return "mpegts", start
    if mpeg.find_frame(file, start) is not None:
        return "mp3", start
    if start:
        raise AudioError("it holds no audio behind its ID3 tag", NO_AUDIO)
    return None, 0


def is_chained(file: BinaryIO) -> bool:
    """Say whether an Ogg file has more than one stream, of which libsndfile reads the first."""
    streams, rest = 0, b""
    file.seek(0)
    while block := file.read(2**20):
        block = rest + block
        streams += block.count(b"OggS\0\2")  # pages that begin a stream
        rest = block[-5:]
    return streams > 1


def is_cut(file: BinaryIO) -> bool:
    """Say whether an Ogg, CAF or ASF file ends within a page or chunk, or before its own end.

    None of these tells how many samples there should be; other kinds do.
    """
    head, size = _read(file, 0, HEAD_BYTES), file.seek(0, os.SEEK_END)
    if head.startswith(b"OggS"):
        tail = _read(file, max(0, size - OGG_PAGE_BYTES), OGG_PAGE_BYTES)
        page = tail[max(0, tail.rfind(b"OggS")) :]
        segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return len(page) < 27 or len(page) < 27 + page[26] + sum(segments)
    if head.startswith(b"caff"):
        start = 8
        while len(chunk := _read(file, start, 12)) == 12:
            start += 12 + max(0, int.from_bytes(chunk[4:], "big", signed=True))  # -1: to the end
        return start > size
    if head == ASF:
        header = _read(file, 0, 2**16)
        at = header.find(ASF_PROPERTIES)
        return at > 0 and int.from_bytes(header[at + 40 : at + 48], "little") > size
    return False


def _has_index(file: BinaryIO, start: int) -> bool:
    """Look for moov among the boxes of an MP4 file."""
    while len(head := _read(file, start, HEAD_BYTES)) >= 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind == b"moov":
            return True
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0: the last box
            break
        start += size
    return False


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    """Read from anywhere, also where a damaged header points to: nothing is there."""
    try:
        file.seek(start)
    except (OSError, OverflowError):
        return b""
    return file.read(count)
