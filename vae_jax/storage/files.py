"""Atomic writes and the small file formats that every stage shares (JSON, npz, CSV).

Every file is written beside its target, fsynced and renamed, so that a reader sees the old
content or the new, never half of it. The next run removes what a killed one was writing.

Cells of CSV files are escaped, since spreadsheets run cells that look like formulas, and ids,
paths and reasons may be anybody's: text that begins with = + - @, a tab or a carriage return gets
an apostrophe in front, which spreadsheets take for the mark of a text. Numbers stay numbers; and
so do words after + - or @, such as "-0Gj8-vB1q4", since names without brackets, bars or quotes
run nothing: ids like YouTube's join with other tables as they are. `read_csv` and `manifest.read`
take the apostrophe off again.
"""

import codecs
import contextlib
import csv
import hashlib
import itertools
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
from absl import logging

from vae_jax.errors import UserError

_TEMPORARY = re.compile(r"\.vae_jax-(\d+)-[0-9a-f]{16}\.tmp")  # with the process that writes it
SEAL = "seal"
_FORMULA = re.compile(r"(?![-+@][\w.+-]*\Z)[-+=@\t\r\n＝＋－＠]|'+[-+=@\t\r\n＝＋－＠]")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an error."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp would not do: its files are private, and to make them as readable as others one
        # has to ask for the umask, which clears it for a moment, for all threads.
        temporary = path.parent / f".vae_jax-{os.getpid()}-{secrets.token_hex(8)}.tmp"
        file = open(temporary, "xb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}.") from error
        raise


def sync_directory(directory: str | os.PathLike) -> None:
    """Make a rename in `directory` survive a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON."""
    with atomic_write(path) as file:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        # A path's bytes that are not UTF-8 become escapes, which JSON reads as what they were.
        file.write(text.encode(errors="backslashreplace"))
        file.write(b"\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; a damaged one is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: it is not JSON ({error}).") from error


def write_sealed_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Write an object as JSON with its fingerprint inside, so that any change of it shows."""
    write_json(path, {**value, SEAL: fingerprint(value)})


def read_sealed_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `write_sealed_json` wrote; if anything is changed, a `UserError` names the file."""
    value = read_json(path)
    if not isinstance(value, dict) or value.pop(SEAL, None) != fingerprint(value):
        raise UserError(f"{path} is damaged: its content does not match its seal.")
    return value


def write_npz(path: str | os.PathLike, **arrays: Any) -> None:
    """Write plain (never object) arrays to an uncompressed npz file."""
    if any(np.asarray(array).dtype == object for array in arrays.values()):
        raise TypeError("object arrays would need pickle to load")
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # NumPy below 2.2 would take allow_pickle for an array


def read_npz(path: str | os.PathLike, *names: str) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file, or those named; a damaged one is a `UserError`."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays.files}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run the stage that writes it first.") from error
    except Exception as error:  # zipfile, zlib and numpy each raise their own kinds
        raise UserError(f"{path} is damaged ({error}): delete it and run again.") from error


def write_csv(
    path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write rows as UTF-8 CSV with the given columns; missing values become empty cells."""
    with atomic_write(path) as file:
        text = codecs.getwriter("utf-8")(file, "backslashreplace")  # paths may not be UTF-8
        plain = csv.DictWriter(text, columns, lineterminator="\n")
        quoted = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in itertools.chain([dict(zip(columns, columns, strict=True))], rows):
            cells = {column: _escape(value) for column, value in row.items()}
            # The csv module leaves a lone carriage return unquoted, which ends the row when read.
            (quoted if any("\r" in cell for cell in cells.values()) else plain).writerow(cells)


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Read a CSV file that this package wrote; a damaged one is a `UserError`."""
    return list(iterate_csv(path))


def iterate_csv(path: str | os.PathLike) -> Iterator[dict[str, str]]:
    """Yield the rows of `read_csv`, one by one."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = ([unescape(cell) for cell in row] for row in csv.reader(file, strict=True))
            columns = next(rows, None)
            if columns is None:
                raise UserError(f"{path} is damaged: it is empty; delete it and run again.")
            for number, row in enumerate(rows, 1):
                if len(row) != len(columns):
                    raise UserError(
                        f"{path} is damaged: row {number} below the header has {len(row)} cells "
                        f"instead of {len(columns)}; mend it or move it away."
                    )
                yield dict(zip(columns, row, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): mend it or move it away.") from error


def unescape(cell: str) -> str:
    """Return what `write_csv` was given for a cell of text."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell[1:]) else cell


def _escape(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text


@contextlib.contextmanager
def lock(directory: str | os.PathLike, *folders: str) -> Iterator[None]:
    """Keep other runs from writing into `directory`; wait, and say so, while one does.

    The lock is the kernel's: it ends with the process, however that ends. Files that a killed run
    was writing in `directory`, and in the subfolders that patterns name, are removed.
    """
    try:
        taken = try_lock(directory)
    except filelock.Timeout:
        logging.warning("%s is in use by another run; waiting until it ends", directory)
        taken = try_lock(directory, -1)
    with taken:
        for folder in (".", *folders):
            for path in Path(directory).glob(f"{folder}/.vae_jax-*.tmp"):
                written = _TEMPORARY.fullmatch(path.name)
                if written and not _is_another_at_work(int(written[1])):
                    path.unlink(missing_ok=True)
        yield


def _is_another_at_work(number: int) -> bool:
    """Say whether another process has this number, and may still write what is named after it."""
    if number == os.getpid():  # in a container, that of the killed run as well
        return False
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def try_lock(directory: str | os.PathLike, seconds: float = 0) -> filelock.AcquireReturnProxy:
    """Lock a folder, which is made if it is missing; a context manager that lets go of it.

    Raises
    ------
    filelock.Timeout
        If another process holds the lock for so many seconds; -1 waits for ever.
    UserError
        If the folder cannot be written.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(Path(directory) / ".lock").acquire(seconds)
    except OSError as error:
        if isinstance(error, filelock.Timeout):
            raise
        raise UserError(f"cannot write into {directory}: {error.strerror}.") from error


def fingerprint(*parts: Any) -> str:
    """Hash JSON-like values to 16 hex digits; equal values give equal digits on any machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: str | os.PathLike) -> str:
    """Hash a file's content without reading it whole into memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
