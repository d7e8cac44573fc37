"""Writes a checkpoint as TensorFlow does, and numbers that every machine makes alike."""

import struct
from collections.abc import Mapping

import google_crc32c
import numpy as np

from vae_jax.records.tfrecord import masked

ENTRIES = 16  # of a block, of which the first has its whole key


def uniform(shape: tuple[int, ...], seed: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Return float32 numbers, scattered between `low` and `high` by a hash of their places."""
    place = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed * 1_000_003)
    bits = (place * np.uint64(2654435761)) % np.uint64(2**32)
    bits = (bits ^ (bits >> np.uint64(15))) * np.uint64(2246822519) % np.uint64(2**32)
    bits = bits ^ (bits >> np.uint64(13))
    return (low + (high - low) * bits.astype(float) / 2**32).reshape(shape).astype(np.float32)


def write(variables: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """Return the content of NAME.index and of NAME.data-00000-of-00001 for float32 variables."""
    data = b""
    entries = {b"": _number(1, 1) + _bytes(3, _number(1, 1))}  # one data file, version 1
    for name, array in sorted(variables.items()):
        content = np.ascontiguousarray(array, "<f4").tobytes()
        shape = b"".join(_bytes(2, _number(1, size)) for size in array.shape)
        entry = _number(1, 1) + _bytes(2, shape) + _number(4, len(data)) + _number(5, len(content))
        entries[name.encode()] = entry + b"\x35" + struct.pack("<I", _checksum(content))
        data += content
    rows, table, handles = list(entries.items()), b"", []
    for first in range(0, len(rows), ENTRIES):
        block = _block(rows[first : first + ENTRIES])
        handles.append((rows[first + ENTRIES - 1 :][:1] or rows[-1:], len(table), len(block)))
        table += block
    last_keys = [(row[0][0], _varint(at) + _varint(size - 5)) for row, at, size in handles]
    places = []
    for block in (_block([]), _block(last_keys)):
        places.append(_varint(len(table)) + _varint(len(block) - 5))
        table += block
    return table + b"".join(places).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57), data


def _block(rows: list[tuple[bytes, bytes]]) -> bytes:
    content, before = b"", b""
    for key, value in rows:
        shared = next(
            (i for i, pair in enumerate(zip(key, before, strict=False)) if pair[0] != pair[1]),
            min(len(key), len(before)),
        )
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        content += key[shared:] + value
        before = key
    content += struct.pack("<II", 0, 1) + b"\0"  # one restart, at 0; not compressed
    return content + struct.pack("<I", _checksum(content))


def _checksum(content: bytes) -> int:
    return masked(google_crc32c.value(content))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
