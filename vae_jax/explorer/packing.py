"""Packs arrays and text into one string that a page can hold, base64 of gzip, or asks for, gzip.

Inside are the length of the JSON text (uint32), the text, and the arrays that it lists under
`arrays`. Each is stored as its bytes' planes, the lowest first, since the high bytes of positions
and quantised numbers are alike and compress well. All numbers are little-endian.
"""

import base64
import gzip
import itertools
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MISSING = 65535  # among quantised numbers


@dataclass
class Page:
    """What a page shows, for `pack`.

    Attributes
    ----------
    text
        JSON-like values.
    arrays
        Arrays of unsigned integers, by the names that `text` uses.
    rows
        Positions in the run of the tracks that are shown, [N].
    texts
        Cells of the columns that the page asks for, [N] each, by name.
    """

    text: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    texts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether it has no text of single tracks, and asks its server (see `asked`)."""
        return bool(self.text["asks"])

    def add(self, name: str, array: np.ndarray) -> str:
        """Keep an array; return its name, which is another one if that is taken."""
        name = unlike(name, self.arrays)
        self.arrays[name] = array
        return name


def unlike(name: str, others: Container[str]) -> str:
    """Return a name that is none of others': the same, or with a number."""
    numbered = (f"{name} ({i})" for i in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in others)


def encode(text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return what `pack` does as ASCII."""
    return base64.b64encode(pack(text, arrays)).decode("ascii")


def pack(text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return text and arrays of unsigned integers as gzip; the same for the same.

    Parameters
    ----------
    text
        JSON-like values.
    arrays
        Arrays of uint8, uint16 or uint32 by name.
    """
    shapes = {
        name: {"type": array.dtype.name, "shape": array.shape} for name, array in arrays.items()
    }
    content = json.dumps({**text, "arrays": shapes}, separators=(",", ":"), allow_nan=False)
    parts = [len(content).to_bytes(4, "little"), content.encode("ascii")]
    parts += [_planes(array) for array in arrays.values()]
    return gzip.compress(b"".join(parts), 6, mtime=0)


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return numbers between `low` and `high` as uint16; those that are not finite as `MISSING`."""
    scale = (MISSING - 1) / (high - low) if high > low else 0.0
    steps = np.rint((np.nan_to_num(values, nan=low) - low) * scale)
    return np.where(np.isfinite(values), np.clip(steps, 0, MISSING - 1), MISSING).astype(np.uint16)


def codes(values: np.ndarray, distinct: int) -> np.ndarray:
    """Return codes below `distinct` in the smallest type that holds them."""
    return values.astype(np.min_scalar_type(max(distinct - 1, 0)))


def _planes(array: np.ndarray) -> bytes:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes()
