"""The framing of TFRecord files, written and verified without TensorFlow.

Each record is its length (uint64), the masked CRC32C of the length, the data, and the masked CRC32C
of the data, all little-endian, as TensorFlow writes it.
"""

import functools
import struct
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from vae_jax.records import tf_example

HEADER_BYTES, FOOTER_BYTES = 12, 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES


def masked(crc: Any) -> Any:
    """Return TensorFlow's mask of a CRC32C, or of an array of them, uint32.

    A checksum that is itself checksummed would lose its strength.
    """
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.lru_cache(maxsize=4096)
def header(length: int) -> bytes:
    """Return what stands before a record of so many bytes."""
    size = struct.pack("<q", length)
    return size + struct.pack("<I", masked(google_crc32c.value(size)))


def write_record(file: BinaryIO, data: bytes) -> int:
    """Append one framed record; return the CRC32C of its data."""
    checksum = google_crc32c.value(data)
    for part in (header(len(data)), data, struct.pack("<I", masked(checksum))):
        file.write(part)  # joining them would copy
    return checksum


def read_record(path: str, begin: int, end: int) -> bytes | None:
    """Return the data of the framed record at a place in a file; None if it is not whole."""
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            content = file.read(end - begin)
    except OSError:
        return None
    if not are_sound(content, np.zeros(1, np.int64), np.full(1, len(content))).all():
        return None
    return content[HEADER_BYTES:-FOOTER_BYTES]


def are_sound(content: bytes, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Say which of framed records have the length that they state, and match their checksums, [n].

    `begin` and `end` say where each lies in `content`, [n] int64.
    """
    buffer, sound = np.frombuffer(content, np.uint8), end - begin >= FRAME_BYTES
    if not sound.all():  # what is shorter has no header and footer to look at
        if sound.any():
            sound[sound] = are_sound(content, begin[sound], end[sound])
        return sound
    headers = b"".join(map(header, (end - begin - FRAME_BYTES).tolist()))
    expected = np.frombuffer(headers, np.uint8).reshape(-1, HEADER_BYTES)
    sound &= (tf_example.windows(buffer, begin, HEADER_BYTES) == expected).all(axis=1)
    stated = tf_example.windows(buffer, end - FOOTER_BYTES, FOOTER_BYTES).view("<u4")[:, 0]
    places = zip((begin + HEADER_BYTES).tolist(), (end - FOOTER_BYTES).tolist(), strict=True)
    found = [google_crc32c.value(content[first:last]) for first, last in places]
    return sound & (stated == masked(np.array(found, np.uint32)))
