"""Finds the values of many serialised tf.train.Examples at once, which protobuf takes one by one.

Examples of one kind say the same things in the same order, and differ in how long the values are.
So all are walked in step, with an array of positions: a dozen operations of numpy per feature for
a whole batch. The wire format (protobuf's "Encoding") of an Example, as far as it is written here:

    Example   0a length Features
    Features  a sequence of: 0a length Entry
    Entry     0a length key  12 length Feature
    Feature   0a length BytesList   or   12 length FloatList
    BytesList, FloatList: 0a length value
"""

from typing import NamedTuple

import numpy as np

FIRST, SECOND = 0x0A, 0x12  # tags of a message's first and second field, if it has a length


class Places(NamedTuple):
    """Where values lie: their first byte and their number of bytes, [n] int64 each."""

    begin: np.ndarray
    size: np.ndarray


def locate(buffer: np.ndarray, begin: np.ndarray, end: np.ndarray) -> dict[str, Places]:
    """Return where the examples' bytes values lie, by the features' names.

    Parameters
    ----------
    buffer
        Bytes that hold all examples, uint8.
    begin, end
        Where each begins and ends there, [n] int64.

    Raises
    ------
    ValueError
        If one is no Example, or its features are not those of the first.
    """
    found = {}
    try:
        at = _message(buffer, begin, FIRST, end)
        while (at < end).any():
            name, kind, places, at = _entry(buffer, at)
            if kind == FIRST:
                found[name] = places
    except IndexError as error:
        raise ValueError("an example is cut short") from error
    _check((at == end).all())
    return found


def windows(buffer: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """Return `size` bytes from each position, [n, size]."""
    if size == 0:
        return np.zeros((len(at), 0), np.uint8)
    return np.lib.stride_tricks.sliding_window_view(buffer, size)[at]


def values(content: bytes, places: Places) -> list[bytes]:
    """Return the values that lie in given places, [n]."""
    return [
        content[begin : begin + size]
        for begin, size in zip(places.begin.tolist(), places.size.tolist(), strict=True)
    ]


def _entry(buffer: np.ndarray, at: np.ndarray) -> tuple[str, int, Places, np.ndarray]:
    """Return a feature's name, the kind of its list, where its value lies, and what follows it."""
    at, size = _length(buffer, at, FIRST)
    end = at + size
    key_size = int(buffer[at[0] + 1])  # below 128, so that it is one byte
    header = windows(buffer, at, key_size + 2)  # tag, size and key: the same in all examples
    _check(header[0, 0] == FIRST and (header == header[0]).all())
    at = _message(buffer, at + key_size + 2, SECOND, end)
    kind = int(buffer[at[0]])
    at = _message(buffer, at, kind, end)
    value = _length(buffer, at, FIRST)
    _check((value.begin + value.size == end).all())
    return bytes(header[0, 2:]).decode(), kind, value, end


def _message(buffer: np.ndarray, at: np.ndarray, tag: int, end: np.ndarray) -> np.ndarray:
    """Return where the fields of a message begin, which must reach to `end`."""
    content = _length(buffer, at, tag)
    _check((content.begin + content.size == end).all())
    return content.begin


def _length(buffer: np.ndarray, at: np.ndarray, tag: int) -> Places:
    """Return what a tag and a length, a varint, announce."""
    _check((buffer[at] == tag).all())
    byte = buffer[at + 1]
    at, size = at + 2, byte.astype(np.int64)
    for shift in range(7, 36, 7):
        going = byte > 127  # this bit says that more follows
        if not going.any():
            return Places(at, size)
        byte = np.where(going, buffer[at * going], 0)
        size += (byte.astype(np.int64) - going) << shift
        at = at + going
    raise ValueError("a length of more than five bytes")


def _check(is_right: bool | np.bool_) -> None:
    if not is_right:
        raise ValueError("the bytes are not those of an example of this kind")
