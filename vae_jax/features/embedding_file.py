"""Vectors that any other model has made of the tracks, in one file, for `extractors`.

A track has one vector, or one for each of its segments, under its id. Three kinds of files:

- npz: `ids` [N] and one array, [N, D], or [N, S, D] with segments. If tracks differ in their
  numbers of segments, `num_segments` [N] as well, and the array is [R, D], track after track;
- npy: the array, [N, D] or [N, S, D], with the ids in NAME.ids.txt beside it: UTF-8, one a line;
- parquet: a column `id`, and one column of lists of D numbers, or of lists of such lists.

An npy file is mapped into memory and read as needed; every worker holds the others whole.
Nothing is unpickled, so that no file can execute code.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from vae_jax.errors import UserError
from vae_jax.manifest import Manifest
from vae_jax.records.statistics import ArraySpec
from vae_jax.storage import files, urls
from vae_jax.storage.urls import Location

IDS, NUM_SEGMENTS = "ids", "num_segments"  # names in an npz file
ID = "id"  # a parquet file's column


class VectorError(Exception):
    """A track has no usable vectors; the message says why, as the reason of its failure."""


@dataclass(frozen=True)
class EmbeddingFile:
    """The vectors of tracks by id.

    Attributes
    ----------
    name
        The file's location, for messages.
    rows
        Each track's number in the file, by id.
    vectors
        [R, D], track after track.
    ends
        Where each track's vectors end, [N] int64.
    has_segments
        Whether tracks have a vector for each segment; if not, R = N.
    """

    name: str
    rows: dict[str, int]
    vectors: np.ndarray
    ends: np.ndarray
    has_segments: bool

    @property
    def spec(self) -> ArraySpec:
        """How the vectors of a track are stored."""
        size = self.vectors.shape[1]
        shape = (None, size) if self.has_segments else (size,)
        return ArraySpec(shape, "float32", is_segments=self.has_segments)

    def find(self, id_: str) -> np.ndarray:
        """Return a track's vector, [D], or those of its segments, [S, D], float32.

        Raises
        ------
        VectorError
            If it has none, or they are not finite.
        """
        row = self.rows.get(id_)
        if row is None:
            raise VectorError(f"{self.name} does not hold its id")
        first = self.ends[row - 1] if row else 0
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            vectors = np.asarray(self.vectors[first : self.ends[row]], np.float32)
        if not len(vectors):
            raise VectorError(f"{self.name} holds its id, but no vector of it")
        if not np.isfinite(vectors).all():
            raise VectorError(f"its values in {self.name} are not all finite (NaN or infinity)")
        return vectors if self.has_segments else vectors[0]


class _Content(NamedTuple):
    """What a file holds, unchecked; `num_segments` is None unless the array is [R, D]."""

    ids: Any
    array: np.ndarray
    num_segments: np.ndarray | None = None


def check(location: Location, manifest: Manifest) -> str:
    """Return the hash of a file's content, after a look at whether it fits the manifest.

    Raises
    ------
    UserError
        If it cannot be used at all, or has none of the manifest's tracks.
    """
    found = load(location)
    if found.rows.keys().isdisjoint(manifest.ids):
        raise UserError(
            f"{location} has none of the ids in {manifest.path}: its first is "
            f"{next(iter(found.rows))!r}, the manifest's {manifest.ids[0]!r}; write the ids of the "
            "manifest into it."
        )
    parts = [location, _beside(location)] if _suffix(location) == ".npy" else [location]
    return files.fingerprint([_sha256(part) for part in parts])


def load(location: Location) -> EmbeddingFile:
    """Open a file and check its ids and shapes; values are looked at when a track is found.

    Raises
    ------
    UserError
        If it cannot be read or is not of a kind that the module describes.
    """
    read = _READERS.get(_suffix(location))
    if read is None:
        raise UserError(
            f"config.feature.embedding={location} is not the name of a .npz, .npy or .parquet file."
        )
    try:
        return _checked(str(location), read(location))
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot read {location} ({error.strerror or error}): set config.feature.embedding to "
            "a file of vectors, .npz, .npy or .parquet."
        ) from error
    except Exception as error:  # zipfile, zlib, numpy and Arrow each raise their own kinds
        if "object" in str(error).lower():
            raise UserError(
                f"{location} holds Python objects, and to load these could run any code: save ids "
                "as text, np.array(ids, str), and vectors as one array of numbers."
            ) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        kind = _suffix(location)
        raise UserError(
            f"{location} cannot be read as {kind} ({reason}): write it anew."
        ) from error


def _checked(name: str, content: _Content) -> EmbeddingFile:
    ids, array, num_segments = content
    shape = list(array.shape)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name}: its vectors are of type {array.dtype}, but must be numbers.")
    if 0 in shape or len(shape) not in ((2, 3) if num_segments is None else (2,)):
        needed = "[N, D] or [N, S, D]" if num_segments is None else f"[R, D] with {NUM_SEGMENTS}"
        raise UserError(
            f"{name}: its array is {shape}, but must be {needed}, without an empty axis."
        )
    names = _text(name, ids)
    if num_segments is None:
        num_segments = np.full(len(array), 1 if len(shape) == 2 else shape[1])
    elif num_segments.dtype.kind not in "iu" or num_segments.ndim != 1 or (num_segments < 0).any():
        raise UserError(f"{name}: {NUM_SEGMENTS} must be whole numbers, [N], none below 0.")
    elif num_segments.sum() != len(array):
        raise UserError(
            f"{name}: {NUM_SEGMENTS} add up to {num_segments.sum()}, but its array has "
            f"{len(array)} rows."
        )
    if len(names) != len(num_segments):
        raise UserError(
            f"{name} has {len(names)} ids for {len(num_segments)} tracks: give each its own."
        )
    return EmbeddingFile(
        name,
        _numbered(name, names),
        array.reshape(-1, shape[-1]),
        np.cumsum(num_segments, dtype=np.int64),
        len(shape) == 3 or content.num_segments is not None,
    )


def _text(name: str, ids: Any) -> list[str]:
    """Return ids as the manifest has them: text without space around it."""
    ids = np.asarray(ids)
    if ids.dtype.kind not in "USiu" or ids.ndim != 1:
        raise UserError(
            f"{name}: its ids are {list(ids.shape)} of type {ids.dtype}, but must be a list of "
            "text or of whole numbers, [N]."
        )
    texts = np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids.astype(str)
    return [text.strip() for text in texts.tolist()]


def _numbered(name: str, ids: Sequence[str]) -> dict[str, int]:
    numbers = {id_: number for number, id_ in enumerate(ids)}
    if len(numbers) < len(ids):
        first = next(number for number, id_ in enumerate(ids) if numbers[id_] != number)
        raise UserError(
            f"{name} has the id {ids[first]!r} twice, in its rows {first + 1} and "
            f"{ids.index(ids[first], first + 1) + 1}: ids must be unique."
        )
    return numbers


def _read_npz(location: Location) -> _Content:
    with urls.local(location) as path, open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no archive, or cut short")
        file.seek(0)
        content = np.load(file, allow_pickle=False)
        others = sorted(set(content.files) - {IDS, NUM_SEGMENTS})
        if IDS not in content.files or len(others) != 1:
            raise UserError(
                f"{location} holds {', '.join(map(repr, content.files)) or 'nothing'}, but must "
                f"hold {IDS!r} and one array of vectors."
            )
        num_segments = content[NUM_SEGMENTS] if NUM_SEGMENTS in content.files else None
        return _Content(content[IDS], content[others[0]], num_segments)


def _read_npy(location: Location) -> _Content:
    beside = _beside(location)
    with urls.local(location) as path:
        array = np.lib.format.open_memmap(path, mode="r")
    try:
        with urls.local(beside) as path:
            lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise UserError(
            f"{location} needs {beside} beside it: the ids of its rows in UTF-8, one a line."
        ) from error
    return _Content(lines, array)


def _read_parquet(location: Location) -> _Content:
    import pyarrow as pa
    from pyarrow import compute, parquet

    with urls.local(location) as path:
        schema = parquet.read_schema(path)
        columns = [field.name for field in schema if _is_list(field.type)]
        if ID not in schema.names or len(columns) != 1:
            raise UserError(
                f"{location} has the columns {', '.join(map(repr, schema.names))}, of which "
                f"{len(columns)} hold lists, but must have {ID!r} and one column of lists."
            )
        table = parquet.read_table(path, columns=[ID, *columns])
    ids = table[ID].cast(pa.string()).fill_null("").to_pylist()
    lists = table[columns[0]].combine_chunks()
    counts = compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    values, sizes = lists.flatten(), counts
    if has_segments := _is_list(values.type):
        sizes = compute.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        values = values.flatten()
    elif not counts.all():  # a track without a vector is one that the file does not hold
        ids = [id_ for id_, count in zip(ids, counts, strict=True) if count]
        sizes = counts[counts > 0]
    lengths = np.unique(sizes)
    if len(lengths) != 1:
        found = " and ".join(map(str, lengths[:3])) or "no"
        raise UserError(
            f"{location}: the vectors in its column {columns[0]!r} have {found} numbers, but must "
            "all have as many."
        )
    array = values.to_numpy(zero_copy_only=False).reshape(len(sizes), lengths[0])
    return _Content(ids, array, counts.astype(np.int64) if has_segments else None)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


_READERS = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}


def _suffix(location: Location) -> str:
    return PurePosixPath(location).suffix


def _beside(location: Location) -> Location:
    """Return where the ids of an npy file are."""
    return urls.location(f"{str(location).removesuffix('.npy')}.ids.txt")


def _sha256(location: Location) -> str:
    with urls.local(location) as path:
        return files.sha256(Path(path))
