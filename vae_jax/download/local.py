"""The local side of every source: safe names, one run at a time, the manifest and its record."""

import contextlib
import importlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any

import filelock

from vae_jax import extras
from vae_jax.errors import UserError
from vae_jax.storage import files

COLUMNS = ("id", "audio_path", "language", "genre", "label", "lyrics")
WORK_FOLDER = ".download"  # partial files and bookkeeping, inside the target folder


def require(package: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this source needs the package {package.split('.')[0]}: "
            f"run {extras.command('download')}."
        ) from error


def check_name(name: str) -> PurePosixPath:
    """Return a remote file name as a relative path; refuse one that leads anywhere else.

    Raises
    ------
    UserError
        If the name is empty, absolute (for any system), has a `..` part, a backslash or a control
        character.
    """
    path = PurePosixPath(name)
    unsafe = (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or PureWindowsPath(name).drive != ""
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    )
    if unsafe:
        raise UserError(
            f"refused the remote file name {name!r}: it could be written outside the target "
            "folder; do not trust this source."
        )
    return path


def confined(folder: Path, name: str) -> Path:
    """Return `folder / name` for a remote name, refusing whatever would lie outside `folder`."""
    target = folder / check_name(name)
    if not target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"refused to write {target}: a symbolic link leads it outside {folder}.")
    return target


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Yield the work folder inside `folder`, locked against a second download into it."""
    work = folder / WORK_FOLDER
    try:
        lock = files.try_lock(work)
    except filelock.Timeout as error:
        raise UserError(
            f"another download is writing to {folder}: wait for it, or choose another folder."
        ) from error
    with lock:
        yield work


def check_manifest(path: Path) -> None:
    """Refuse to replace a manifest that no download wrote, or that was edited since.

    Called before anything is fetched, so that nobody waits for hours to hear it.
    """
    if not path.exists():
        return
    record = record_path(path)
    written = files.read_json(record).get("manifest_sha256") if record.exists() else None
    if written != files.sha256(path):
        raise UserError(
            f"{path} exists and is not as a download left it: move it away, or choose another "
            "place for the new one."
        )


def write_manifest(
    path: Path,
    extra_columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    record: Mapping[str, Any],
) -> None:
    """Write the manifest, and beside it the record of where it came from.

    Parameters
    ----------
    path
        The CSV file.
    extra_columns
        Columns after the project's own (`COLUMNS`).
    rows
        One mapping per track.
    record
        JSON-like values: source, revision, settings; written to `record_path(path)`.
    """
    files.write_csv(path, (*COLUMNS, *extra_columns), rows)
    files.write_json(record_path(path), {**record, "manifest_sha256": files.sha256(path)})


def record_path(manifest: Path) -> Path:
    """Return where the record of a manifest's origin lies."""
    return manifest.with_name(f"{manifest.stem}.source.json")


def relative(path: Path, folder: Path) -> str:
    """Return `path` as a manifest names it: relative to `folder` where it lies inside."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
