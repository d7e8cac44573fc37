"""Reads `metadata.csv`, the list of tracks that every run starts from.

Columns: `id` (required, unique), `audio_path`, `language`, `genre`, `label`, `lyrics`, and any
others (artist, title, ...), which are kept and can be named in configs.
"""

import csv
import itertools
import os
import re
import unicodedata
import urllib.parse
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO, overload

from vae_jax.errors import UserError
from vae_jax.labels import Folding, fold
from vae_jax.storage import files, urls
from vae_jax.storage.urls import Location

MAX_FIELD = 64 * 2**20  # characters; the csv module's own limit would refuse long lyrics
MAX_ID = 1000  # characters; every array of ids takes the longest id's memory for each
MAX_SHARED = 10_000  # values that rows share; a column with more has mostly unique ones
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # what spreadsheets write
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_FILE_URI = re.compile(r"file:(?://(?:localhost)?)?(/[^\0]*)", re.I)


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
class Manifest(Sequence[Track]):
    """The tracks of one `metadata.csv`, in file order.

    The columns are held in memory, and a `Track` is made when it is asked for: a million of them
    would take a gigabyte, and a look at the disk each. A slice is a manifest too.

    Attributes
    ----------
    path
        The file; audio is looked for beside it.
    ids
        The ids of all tracks.
    columns
        The cells of each other column, by name. Those of `audio_path` and `lyrics` are as written
        in the file, and all others are stripped.
    """

    path: Location
    ids: Sequence[str]
    columns: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, row: int) -> Track: ...

    @overload
    def __getitem__(self, row: slice) -> "Manifest": ...

    def __getitem__(self, row: int | slice) -> "Track | Manifest":
        cells: dict[str, Any] = {name: values[row] for name, values in self.columns.items()}
        if isinstance(row, slice):
            return replace(self, ids=self.ids[row], columns=cells)
        audio_path = resolve(urls.parent(self.path), cells.pop("audio_path", ""))
        return Track(self.ids[row], audio_path, cells.pop("lyrics", ""), cells)

    def column(self, name: str, ids: Sequence[str]) -> list[str]:
        """Return a column's values for `ids`; missing columns and values are empty strings."""
        values = dict(zip(self.ids, self.columns.get(name, ()), strict=False))
        return [values.get(id_, "") for id_ in ids]

    def labels(self, name: str, ids: Sequence[str]) -> list[str]:
        """Return a column's values as labels (see `vae_jax.labels`): those that are one, alike."""
        meant = self.folding(name).labels
        return [meant.get(cell, "") for cell in self.column(name, ids)]

    def folding(self, name: str) -> Folding:
        """Return what the cells of a column stand for."""
        return fold(self.columns.get(name, ()), name)


def read(
    path: str | os.PathLike, requires: Sequence[str] = (), renamed: Mapping[str, str] | None = None
) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    path
        A UTF-8 CSV file, with or without a byte order mark, with any line ends; or its URL. Cells
        are separated by commas, semicolons or tabs. Columns without a name are ignored.
    requires
        Columns that must exist beside `id`.
    renamed
        What columns are called instead, by their names in the file.

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
            named = renamed or {}
            own_ids = [name for name, ours in named.items() if ours == "id"] or ["id"]
            lines, separator = _separated(_lines(path, file), own_ids[0])
            rows = _rows(path, lines, separator)
            header = _header(path, next(rows, None), requires, named)
            columns = _cells(path, header, rows, separator)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start} of a block): save it as UTF-8 CSV."
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read the manifest {path} ({error.strerror}): "
            "set config.manifest to a CSV file."
        ) from error
    ids = columns.pop("id")
    if not ids:
        raise UserError(f"{path} has no rows: add one per track below the header.")
    return Manifest(path, ids, columns)


def as_id(text: str) -> str:
    """Return a text as an id may be: on one line, not too long, without control characters."""
    return _CONTROL.sub(" ", text).strip()[-MAX_ID:].strip()


def resolve(folder: Location, cell: str) -> Location | None:
    """Resolve a location: a URL or absolute, or relative to the manifest, or else to here.

    A name is taken as it is written, if there is such a file, and otherwise without the spaces
    around it, or with its accents composed or decomposed.
    """
    if not cell.strip():
        return None
    for name in _spellings(cell):
        beside = urls.join(folder, name)
        if not isinstance(beside, Path) or os.path.exists(beside):
            return beside
        if os.path.exists(name):
            return Path(name)
    return urls.join(folder, _spellings(cell.strip())[0])


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


def _separated(lines: Iterator[str], id_name: str) -> tuple[Iterator[str], str]:
    """Return the lines, and the separator that makes `id` a cell of the first that is not blank.

    A line such as `sep=;`, which Excel understands, names it instead; it is left blank. If there
    is no such cell, it is the most frequent one.
    """
    blank, first = 0, ""
    for first in lines:
        if first.strip():
            break
        blank += 1
    fitting = [
        separator
        for separator in SEPARATORS
        if id_name in [cell.strip().strip('"') for cell in first.split(separator)]
    ]
    if named := re.fullmatch(r"sep=([,;\t])\s*", first):
        fitting, first = [named[1]], "\n"
    separator = [*fitting, max(SEPARATORS, key=first.count)][0]
    return itertools.chain(itertools.repeat("\n", blank), [first], lines), separator


def _rows(path: Location, lines: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number of the row's end, cells) for every row that is not blank."""
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num}: not well-formed CSV ({error}); "
                f"quote cells that hold {SEPARATORS[separator]}, quotes or line breaks, and double "
                'each " in them.'
            ) from error
        if cells:
            yield reader.line_num, [files.unescape(cell) for cell in cells]


def _header(
    path: Location,
    row: tuple[int, list[str]] | None,
    requires: Sequence[str],
    renamed: Mapping[str, str],
) -> tuple[str, ...]:
    if row is None:
        raise UserError(f"{path} is empty: its first row must name the columns, id among them.")
    cells = [cell.strip() for cell in row[1]]
    there = f"it has {', '.join(map(_quoted, cells[:20]))}"
    for name in renamed:
        if name not in cells:
            raise UserError(f"{path} has no column {name!r} ({there}).")
    columns = tuple(renamed.get(cell, cell) for cell in cells)
    for name in ("id", *requires):
        if name not in columns:
            raise UserError(
                f"{path} has no column {name!r} ({there}): add one, or if it is called otherwise, "
                f"`vae-jax download csv FILE --column {name}=NAME` renames it."
            )
    name, count = Counter(filter(None, columns)).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path} names the column {name[:50]!r} twice: rename one of them.")
    return columns


def _cells(
    path: Location, header: Sequence[str], rows: Iterator[tuple[int, list[str]]], separator: str
) -> dict[str, list[str]]:
    """Return the cells of each column that has a name, checked."""
    columns: dict[str, list[str]] = {name: [] for name in header}
    nameless = columns.pop("", [])
    ids, paths = columns["id"], columns.get("audio_path", [""])
    known: set[str] = set()
    lines = array("q")
    keep = [(columns.get(name, nameless).append, _keeper(name)) for name in header]
    for line, cells in rows:
        if len(cells) != len(header):
            cells = _with_nameless(cells, header)
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(cells)} cells, but the header names "
                f"{len(header)} columns; quote cells that hold {SEPARATORS[separator]}."
            )
        for (append, kept), cell in zip(keep, cells, strict=True):
            append(kept(cell))
        nameless.clear()
        id_ = ids[-1]
        if not id_:
            raise UserError(f"{path}, line {line}: the id is empty; give every track its own id.")
        if len(id_) > MAX_ID:
            raise UserError(f"{path}, line {line}: the id is longer than {MAX_ID} characters.")
        if _CONTROL.search(id_) or "\0" in paths[-1]:
            raise UserError(f"{path}, line {line}: a NUL or control character; remove it.")
        if id_ in known:
            raise UserError(
                f"{path}, line {line}: the id {id_!r} is already used in line "
                f"{lines[ids.index(id_)]}; ids must be unique."
            )
        known.add(id_)
        lines.append(line)
    return columns


def _with_nameless(cells: list[str], header: Sequence[str]) -> list[str]:
    """Return a row with as many empty cells at its end as the header, as far as that is all."""
    while len(cells) > len(header) and not cells[-1].strip():
        cells = cells[:-1]
    if not any(header[len(cells) :]):
        cells = cells + [""] * (len(header) - len(cells))
    return cells


def _keeper(name: str) -> Callable[[str], str]:
    """Return the function from a column's cell to what is kept of it."""
    if name in ("audio_path", "lyrics"):
        return str
    if name == "id":
        return str.strip
    shared: dict[str, str] = {}

    def keep(cell: str) -> str:
        """Strip; let the rows that say the same, such as a genre, share one string."""
        cell = cell.strip()
        return shared.setdefault(cell, cell) if len(shared) < MAX_SHARED else cell

    return keep


def _quoted(name: str) -> str:
    return repr(name[:50])


def _spellings(cell: str) -> list[str]:
    """Return what a cell may mean, the likeliest first."""
    names = [cell, cell.lstrip(), cell.rstrip(), cell.strip()]
    if uri := _FILE_URI.fullmatch(cell.lstrip()):
        names = [uri[1], uri[1].rstrip()]
        names = [*map(urllib.parse.unquote, names), *names]
    names += [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names]
    return list(dict.fromkeys(names))
