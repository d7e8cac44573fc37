"""Reads `metadata.csv`, the list of tracks that every run starts from.

Columns: `id` (required, unique), `audio_path`, `language`, `genre`, `label`, `lyrics`, and any
others (artist, title, ...), which are kept and can be named in configs.
"""

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from vae_jax import files, urls
from vae_jax.errors import UserError
from vae_jax.urls import Location

MAX_FIELD = 64 * 2**20  # characters; the csv module's own limit would refuse long lyrics
MAX_ID = 1000  # characters; every array of ids takes the longest id's memory for each


@dataclass(frozen=True)
class Track:
    """One row of the manifest.

    Attributes
    ----------
    id
        Unique name of the track.
    audio_path
        Where the audio should be (it may be missing), a path or, as text, a URL; None where the
        cell is empty.
    lyrics
        The lyrics, or an empty string.
    columns
        All other columns by name (language, genre, label, artist, ...), stripped; an empty
        string is a missing value.
    """

    id: str
    audio_path: Location | None = None
    lyrics: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The tracks of one `metadata.csv`, in file order."""

    path: Location
    columns: tuple[str, ...]
    tracks: tuple[Track, ...]

    def column(self, name: str, ids: Sequence[str]) -> list[str]:
        """Return a column's values for `ids`; missing columns and values are empty strings."""
        values = {track.id: track.columns.get(name, "") for track in self.tracks}
        return [values.get(id_, "") for id_ in ids]


def read(path: str | os.PathLike, requires: Sequence[str] = ()) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    path
        A UTF-8 CSV file, with or without a byte order mark, with any line ends; or its URL.
    requires
        Columns that must exist beside `id`.

    Raises
    ------
    UserError
        If the file cannot be read, has no rows, lacks a column, has an id that is empty, used
        twice, too long or holds control characters, or is not well-formed CSV; the message names
        the row by its line in the file.
    """
    path = urls.location(path)
    try:
        with urls.local(path) as local, open(local, encoding="utf-8-sig", newline="") as file:
            rows = _rows(path, _lines(path, file))
            columns = _header(path, next(rows, None), requires)
            tracks = tuple(_tracks(path, columns, rows))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start} of a block): save it as UTF-8 CSV."
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read the manifest {path} ({error.strerror}): "
            "set config.manifest to a CSV file."
        ) from error
    if not tracks:
        raise UserError(f"{path} has no rows: add one per track below the header.")
    return Manifest(path, columns, tracks)


def _lines(path: Location, file: TextIO) -> Iterator[str]:
    """Yield lines, but never one that would fill the memory."""
    number = 0
    while line := file.readline(MAX_FIELD):
        number += 1
        if len(line) == MAX_FIELD:
            raise UserError(
                f"{path}, line {number}: {MAX_FIELD} characters or more in one line; "
                "is this a CSV file?"
            )
        yield line


def _rows(path: Location, file: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number of the row's end, cells) for every row that is not blank."""
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(file, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num}: not well-formed CSV ({error}); "
                'quote cells that hold commas, quotes or line breaks, and double each " in them.'
            ) from error
        if cells:
            yield reader.line_num, [files.unescape(cell) for cell in cells]


def _header(
    path: Location, row: tuple[int, list[str]] | None, requires: Sequence[str]
) -> tuple[str, ...]:
    if row is None:
        raise UserError(f"{path} is empty: its first row must name the columns, id among them.")
    columns = tuple(cell.strip() for cell in row[1])
    for name in ("id", *requires):
        if name not in columns:
            raise UserError(
                f"{path} has no column {name!r} (it has {', '.join(map(_quoted, columns[:20]))}): "
                "add one."
            )
    name, count = Counter(columns).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path} names the column {name[:50]!r} twice: rename one of them.")
    return columns


def _tracks(
    path: Location, columns: tuple[str, ...], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[Track]:
    seen: dict[str, int] = {}
    folder = urls.parent(path)
    for line, cells in rows:
        if len(cells) != len(columns):
            raise UserError(
                f"{path}, line {line}: {len(cells)} cells, but the header names "
                f"{len(columns)} columns; quote cells that hold commas."
            )
        values = dict(zip(columns, cells, strict=True))
        id_ = values.pop("id").strip()
        if not id_:
            raise UserError(f"{path}, line {line}: the id is empty; give every track its own id.")
        if len(id_) > MAX_ID:
            raise UserError(f"{path}, line {line}: the id is longer than {MAX_ID} characters.")
        if "\0" in values.get("audio_path", "") or any(map(_is_control, id_)):
            raise UserError(f"{path}, line {line}: a NUL or control character; remove it.")
        if id_ in seen:
            raise UserError(
                f"{path}, line {line}: the id {id_!r} is already used in line {seen[id_]}; "
                "ids must be unique."
            )
        seen[id_] = line
        yield Track(
            id=id_,
            audio_path=_resolve(folder, values.pop("audio_path", "").strip()),
            lyrics=values.pop("lyrics", ""),
            columns={name: value.strip() for name, value in values.items()},
        )


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _quoted(name: str) -> str:
    return repr(name[:50])


def _resolve(folder: Location, audio_path: str) -> Location | None:
    """Resolve a location: a URL or absolute, or relative to the manifest, or else to here."""
    if not audio_path:
        return None
    beside = urls.join(folder, audio_path)
    if isinstance(beside, Path) and not beside.exists() and Path(audio_path).exists():
        return Path(audio_path)
    return beside
