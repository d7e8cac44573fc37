"""Reads the variables of a TensorFlow checkpoint, without TensorFlow and without running anything.

A checkpoint is NAME.index, which says where each variable lies, and NAME.data-00000-of-00001. The
index is a sorted table as LevelDB writes it (its doc/table_format.md): blocks of entries that share
prefixes of their keys, each block followed by how it is compressed and a checksum. The values are
protocol buffers (tensorflow/core/protobuf/tensor_bundle.proto): the header under the empty key, and
a BundleEntryProto under each variable's name.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import google_crc32c
import numpy as np

from vae_jax.records.tfrecord import masked

MAGIC = 0xDB4775248B80FB57  # the last eight bytes of a table
FOOTER_BYTES = 48  # where the table's own index lies, padded, and the magic number
TRAILER_BYTES = 5  # after each block: the compression's number, and the checksum
FLOAT32 = 1  # tensorflow/core/framework/types.proto
VARINT, BYTES, FIXED32 = 0, 2, 5  # kinds of fields of a protocol buffer


class Entry(NamedTuple):
    """Where a variable lies in the data, in bytes, and the masked CRC32C of that."""

    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    checksum: int


def read(index: bytes, data: bytes, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return some of a checkpoint's variables, which must be float32, by name.

    Parameters
    ----------
    index, data
        The content of the two files.
    names
        The variables to read; others, such as the optimiser's, are not looked at.

    Raises
    ------
    ValueError
        If one is missing or of another type, or if anything is damaged, cut short, compressed or
        kept in several data files.
    """
    try:
        found = entries(index)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError("the index is cut short or damaged") from error
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"there is no variable {missing[0]!r}")
    return {name: _variable(name, found[name], data) for name in names}


def entries(index: bytes) -> dict[str, Entry]:
    """Return where each of a checkpoint's variables lies, by name."""
    found = {}
    for key, value in _table(index):
        if key:
            found[key.decode()] = _entry(value)
        else:
            header, _ = _fields(value)
            if header.get(1, 0) != 1 or header.get(2, 0) != 0:
                raise ValueError("it is in several data files, or in big-endian order")
    return found


def _variable(name: str, entry: Entry, data: bytes) -> np.ndarray:
    if entry.dtype != FLOAT32 or entry.size != 4 * math.prod(entry.shape):
        raise ValueError(f"the variable {name!r} is not of type float32, or of another size")
    content = _cut(data, entry.offset, entry.size)
    if masked(google_crc32c.value(content)) != entry.checksum:
        raise ValueError(f"the variable {name!r} does not match its checksum")
    return np.frombuffer(content, "<f4").reshape(entry.shape).astype(np.float32)


def _entry(message: bytes) -> Entry:
    """Read a BundleEntryProto; numbers that are 0 are not written."""
    number, parts = _fields(message)
    if number.get(3, 0) != 0 or any(field == 7 for field, _ in parts):
        raise ValueError("a variable is in another data file, or in slices")
    shapes = [_fields(part)[1] for field, part in parts if field == 2]
    sizes = [_fields(part)[0] for dims in shapes for field, part in dims if field == 2]
    shape = tuple(size.get(1, 0) for size in sizes)
    offset, size, checksum = (number.get(field, 0) for field in (4, 5, 6))
    return Entry(number.get(1, 0), shape, offset, size, checksum)


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table."""
    footer = _cut(content, len(content) - FOOTER_BYTES, FOOTER_BYTES)
    if struct.unpack("<Q", footer[-8:]) != (MAGIC,):
        raise ValueError("the index is no table of a checkpoint")
    _, _, at = _place(footer, 0)  # of filters, which are not used
    begin, size, _ = _place(footer, at)
    for _, block in _block(content, begin, size):
        first, length, _ = _place(block, 0)
        yield from _block(content, first, length)


def _block(content: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block: prefix length, lengths of the rest and of the value."""
    block = _cut(content, begin, size + TRAILER_BYTES)
    if block[size] != 0:
        raise ValueError("the index is compressed")
    if struct.unpack("<I", block[size + 1 :]) != (masked(google_crc32c.value(block[: size + 1])),):
        raise ValueError("the index does not match its checksum")
    (num_restarts,) = struct.unpack("<I", _cut(block, size - 4, 4))
    end, at, key = size - 4 - 4 * num_restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + _cut(block, at, rest)
        yield key, _cut(block, at + rest, length)
        at += rest + length


def _place(content: bytes, at: int) -> tuple[int, int, int]:
    """Return where a block begins, its size, and what follows this handle."""
    begin, at = _varint(content, at)
    size, at = _varint(content, at)
    return begin, size, at


def _fields(message: bytes) -> tuple[dict[int, int], list[tuple[int, bytes]]]:
    """Return a protocol buffer's fields that are numbers, and those that are bytes."""
    numbers, parts, at = {}, [], 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, kind = tag >> 3, tag & 7
        if kind == VARINT:
            numbers[field], at = _varint(message, at)
        elif kind == BYTES:
            size, at = _varint(message, at)
            parts.append((field, _cut(message, at, size)))
            at += size
        elif kind == FIXED32:
            numbers[field] = int.from_bytes(_cut(message, at, 4), "little")
            at += 4
        else:
            raise ValueError("the index holds a field of an unknown kind")
    return numbers, parts


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to 64 bits, seven to the byte, and what follows it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("the index holds a number of more than 64 bits")


def _cut(content: bytes, begin: int, size: int) -> bytes:
    """Return so many bytes; a slice would be shorter where there are fewer."""
    if not 0 <= begin <= begin + size <= len(content):
        raise ValueError("it is cut short or damaged")
    return content[begin : begin + size]
