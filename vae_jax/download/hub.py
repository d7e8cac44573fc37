"""Data sets on the Hugging Face hub: list one revision, fetch files resumably, verify them.

`huggingface_hub` does the requests, redirects, log-in and retries. Its version 2.4 checks the size
of what arrives but not the hash, trusts a finished file without looking at it, and deletes a
partial file when the process ends, so that an interrupted download starts again. This module adds
what is missing.
"""

import concurrent.futures
import hashlib
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from vae_jax.console import Progress
from vae_jax.download import hub_errors, local
from vae_jax.errors import UserError
from vae_jax.storage import files

ENDPOINT = "https://huggingface.co"
WORKERS = 4  # files at a time
ATTEMPTS = 3  # for a server error, and for a file with the wrong content
TIMEOUT = 30.0  # s, for the listing
T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a revision; `digest` is the SHA-256 of an LFS file, else git's blob id."""

    path: str
    size: int  # bytes
    digest: str  # hexadecimal

    def matches(self, path: Path) -> bool:
        """Return whether a local file has exactly this content."""
        try:
            if path.stat().st_size != self.size:
                return False
            if len(self.digest) == 64:
                return files.sha256(path) == self.digest
            # A git blob id is the SHA-1 of a header and the content.
            hasher = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    hasher.update(chunk)
            return hasher.hexdigest() == self.digest
        except OSError:
            return False


@dataclass(frozen=True)
class Snapshot:
    """All files of one data set at one commit."""

    repo_id: str
    revision: str  # the commit's full hash
    endpoint: str
    files: Mapping[str, RemoteFile]

    def record(self) -> dict[str, Any]:
        """Return what a manifest's record says about its origin."""
        return {"repo_id": self.repo_id, "revision": self.revision, "endpoint": self.endpoint}


def snapshot(repo_id: str, revision: str | None = None) -> Snapshot:
    """Resolve a revision (branch, tag or commit; the main branch if None) and list its files.

    The endpoint is `$HF_ENDPOINT`, else the public hub.
    """
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    api = local.require("huggingface_hub").HfApi(endpoint=endpoint, library_name="vae_jax")
    with hub_errors.explained(repo_id, endpoint, revision):
        info = _patiently(
            lambda: api.dataset_info(
                repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT
            )
        )
    listing = {}
    for sibling in info.siblings or []:
        local.check_name(sibling.rfilename)
        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        listing[sibling.rfilename] = RemoteFile(sibling.rfilename, sibling.size, digest)
    return Snapshot(repo_id, info.sha, endpoint, listing)


def fetch(source: Snapshot, wanted: Mapping[Path, RemoteFile], work: Path) -> None:
    """Fetch files in parallel; files that are there and right are kept.

    Parameters
    ----------
    source
        The revision that the files belong to.
    wanted
        The remote file for each local path.
    work
        Folder for partial files, on the same disk; they continue in the next run.

    Raises
    ------
    UserError
        If access is refused, the hub cannot be reached or fails, the disk is full, or a file's
        content is not what the hub announces.
    """
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        intact = list(pool.map(lambda item: item[1].matches(item[0]), wanted.items()))
    missing = {path: wanted[path] for path, right in zip(wanted, intact, strict=True) if not right}
    if not missing:
        return
    _check_room(work, sum(file.size for file in missing.values()))
    client = local.require("huggingface_hub")
    client.utils.disable_progress_bars()  # in favour of one bar for all files
    client.utils.logging.set_verbosity_error()
    with (
        hub_errors.explained(source.repo_id, source.endpoint, source.revision, work),
        _Meter(source.repo_id, sum(file.size for file in missing.values())) as meter,
    ):
        _in_parallel(
            lambda item, stop: _fetch_one(source, item[1], item[0], work, stop, meter),
            missing.items(),
        )


def _in_parallel(job: Callable[[Item, threading.Event], None], items: Iterable[Item]) -> None:
    """Run a job for every item; the first error stops the others and is raised."""
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
    try:
        futures = [pool.submit(job, item, stop) for item in items]
        for future in concurrent.futures.as_completed(futures):
            future.result()
    except BaseException as error:
        stop.set()
        # Whoever interrupts does not want to wait for a slow network.
        pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
        raise
    pool.shutdown()


def _fetch_one(
    source: Snapshot,
    file: RemoteFile,
    target: Path,
    work: Path,
    stop: threading.Event,
    meter: "_Meter",
) -> None:
    partial = work / f"{files.fingerprint(file.path, file.digest)}.part"
    for _ in range(ATTEMPTS):
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        _patiently(lambda: _stream(source, file, partial, stop, meter))
        if file.matches(partial):
            break
        partial.unlink()  # perhaps only its first part, of an earlier run, is bad
    else:
        raise UserError(
            f"{file.path} of {source.repo_id} arrived {ATTEMPTS} times with another content than "
            "the hub announces: a proxy may change it; try another network."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, target)
    files.sync_directory(target.parent)


def _stream(
    source: Snapshot, file: RemoteFile, partial: Path, stop: threading.Event, meter: "_Meter"
) -> None:
    """Append to `partial` what it lacks."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # The client's hf_hub_url would not do: it trusts the endpoint that was set when imported.
    place = f"{source.repo_id}/resolve/{source.revision}/{quote(file.path)}"
    headers = build_hf_headers(library_name="vae_jax")
    headers["Accept-Encoding"] = "identity"  # a range of compressed bytes continues nothing
    with _Partial(partial, stop, meter) as out:
        http_get(
            f"{source.endpoint}/datasets/{place}",
            out,
            resume_size=out.tell(),
            headers=headers,
            expected_size=file.size,
            displayed_filename=file.path,
        )
        out.flush()
        os.fsync(out.fileno())


class _Partial(io.BufferedWriter):
    """A file to append to, which reports its size and ends a download that is not wanted."""

    def __init__(self, path: Path, stop: threading.Event, meter: "_Meter") -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._path, self._stop, self._meter = path, stop, meter

    def write(self, chunk: Any) -> int:
        if self._stop.is_set():
            raise concurrent.futures.CancelledError
        count = super().write(chunk)
        self._meter.report(self._path, self.tell())
        return count


class _Meter:
    """Adds up the sizes of files that several threads write."""

    def __init__(self, what: str, total: int) -> None:
        self._progress = Progress(what, _megabytes(total), "MB")
        self._sizes: dict[Path, int] = {}
        self._lock = threading.Lock()

    def report(self, path: Path, size: int) -> None:
        with self._lock:
            self._sizes[path] = size
            self._progress.update(_megabytes(sum(self._sizes.values())))

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)


def _megabytes(size: int) -> int:
    return -(-size // 1_000_000)


def _patiently(request: Callable[[], T]) -> T:
    """Repeat a request while the server is the one that fails (5xx)."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(ATTEMPTS - 1):
        try:
            return request()
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
            time.sleep(2**attempt)
    return request()


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no room for the download: it needs {needed / 1e6:,.0f} MB, but the disk of {folder} "
            f"has {free / 1e6:,.0f} MB left."
        )
