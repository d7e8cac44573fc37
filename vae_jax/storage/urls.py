"""Locations of a manifest and its audio: paths, or URLs of object stores, read through fsspec.

A location is a `Path`, or a `str` for a URL. Only the schemes below are followed: a manifest may
be anybody's, and must not make this machine send requests to just any server.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from vae_jax.errors import UserError

Location = Path | str
# fsspec would chain protocols at ::, and a line break would hide what follows it.
_URL = re.compile(r"(gs|s3|az|file|memory)://(?!.*::)[^\x00-\x1f\x7f]*\Z")
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
# Fields of an object in a store that change with its content, the best first.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
REQUESTS = 32  # at a time


def location(text: str | os.PathLike) -> Location:
    """Return a URL as it is, and anything else as a path."""
    return str(text) if _URL.match(str(text)) else Path(text)


def resolved(text: str | os.PathLike) -> str:
    """Return a location as text that is the same from any folder, however it is spelt."""
    return str(item.resolve() if isinstance(item := location(text), Path) else item)


def join(folder: Location, name: str) -> Location:
    """Return what `name` is in a folder, unless it is a URL or an absolute path itself."""
    named = location(name)
    if isinstance(folder, str) and isinstance(named, Path) and not named.is_absolute():
        return f"{folder.rstrip('/')}/{name}"
    return named if isinstance(named, str) else folder / named


def parent(child: Location) -> Location:
    """Return the folder that holds a file."""
    return child.rpartition("/")[0] if isinstance(child, str) else child.parent


def relative(child: Location, folder: Location) -> str:
    """Return a location as seen from a folder; a URL elsewhere stays whole."""
    if isinstance(child, str) or isinstance(folder, str):
        return str(child).removeprefix(f"{folder}/")
    return os.path.relpath(child, folder)


def states(locations: Iterable[Location | None]) -> list[list[Any] | None]:
    """Return each file's size and what changes with its content; None where it is missing."""
    locations = list(locations)
    if not any(isinstance(item, str) for item in locations):
        return [_state(item) for item in locations]
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(_state, locations))


@contextlib.contextmanager
def local(source: Location) -> Iterator[Path]:
    """Yield a file's path on this machine; for a URL that of a temporary copy, which is whole.

    Raises
    ------
    OSError
        If the URL cannot be read.
    UserError
        If the package for its scheme is not installed.
    """
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="vae_jax-") as folder:
        copy = Path(folder) / f"copy{PurePosixPath(source).suffix}"
        with _failing(source):
            filesystem, path = _open(source)
            filesystem.get_file(path, str(copy))
        yield copy


def write(target: Location, content: bytes) -> None:
    """Write a whole file, or an object at a URL."""
    from vae_jax.storage import files

    if isinstance(target, Path):
        with files.atomic_write(target) as file:
            file.write(content)
        return
    with _failing(target):
        filesystem, path = _open(target)
        filesystem.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        filesystem.pipe_file(path, content)


def copy(source: Location, path: Path) -> None:
    """Copy a file, or an object at a URL, to a path."""
    from vae_jax.storage import files

    with local(source) as here, open(here, "rb") as content, files.atomic_write(path) as file:
        shutil.copyfileobj(content, file)


def names(folder: str) -> set[str]:
    """Return the names of what the folder at a URL holds; none if there is no such folder."""
    try:
        with _failing(folder):
            filesystem, path = _open(folder)
            filesystem.invalidate_cache(path)  # others write there too
            return {PurePosixPath(name).name for name in filesystem.ls(path, detail=False)}
    except FileNotFoundError:
        return set()


def remove(item: Location) -> None:
    """Remove a folder with all that it holds, or an object at a URL, if it is there."""
    if isinstance(item, Path):
        shutil.rmtree(item, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError), _failing(item):
        filesystem, path = _open(item)
        filesystem.rm(path, recursive=True)


def _state(item: Location | None) -> list[Any] | None:
    try:
        if isinstance(item, Path):
            state = os.stat(item)
            return [state.st_size, state.st_mtime_ns]
        if isinstance(item, str):
            with _failing(item):
                filesystem, path = _open(item)
                info = filesystem.info(path)
                version = next((info[key] for key in _VERSIONS if info.get(key)), None)
                return [info["size"], str(version)]
    except OSError:
        pass
    return None


def _open(url: str) -> tuple[Any, str]:
    """Return the file system that a URL names, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(url.partition(":")[0], "the package for its scheme")
        raise UserError(f"{url} cannot be read: pip install {package}.") from error


@contextlib.contextmanager
def _failing(url: str) -> Iterator[None]:
    """Turn whatever a store's client raises into an `OSError`."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except Exception as error:  # botocore, google.auth and aiohttp each raise their own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(errno.EIO, reason, url) from error
