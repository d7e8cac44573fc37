"""A records directory kept at the URL of an object store, with a copy on this machine.

A process that writes a shard puts it there, its marker last. A process that reads fetches what
differs. So machines need to share nothing but the bucket, and a job that is killed on one of them
continues on another. TensorFlow can read the files where they are.
"""

import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging

from vae_jax.errors import UserError
from vae_jax.records import layout
from vae_jax.storage import files, urls

_MARKER = re.compile(r"shard-(\d+)\.json")


def put_shard(store: str, directory: Path, shard: int) -> None:
    """Put a finished shard into the store, its marker last."""
    for path in (layout.shard_path(directory, shard), layout.marker_path(directory, shard)):
        urls.write(urls.join(store, path.name), path.read_bytes())


def fetch_shards(
    store: str, directory: Path, only: Collection[int] | None = None
) -> dict[int, Mapping[str, Any]]:
    """Bring home the finished shards that differ from those here, or `only` some.

    Returns the markers of all that are there and intact.
    """
    shards = _numbers(urls.names(store))
    if only is not None:
        shards = [shard for shard in shards if shard in only]
    with ThreadPoolExecutor(urls.REQUESTS) as pool:
        markers = pool.map(lambda shard: _fetch_shard(store, directory, shard), shards)
        return {shard: found for shard, found in zip(shards, markers, strict=True) if found}


def _fetch_shard(store: str, directory: Path, shard: int) -> Mapping[str, Any] | None:
    """Bring a shard home, unless it is here; return its marker, or None if it is damaged."""
    path, marker = layout.shard_path(directory, shard), layout.marker_path(directory, shard)
    try:
        with urls.local(urls.join(store, marker.name)) as copy:
            stored = files.read_sealed_json(copy)
        here = layout.intact_marker(directory, shard)
        if here is None or any(here[key] != stored[key] for key in ("fingerprint", "sha256")):
            urls.copy(urls.join(store, path.name), path)
            files.write_sealed_json(marker, {**stored, "file": layout.file_state(path)})
            if files.sha256(path) != stored["sha256"]:
                marker.unlink()
                raise UserError("its content does not match its marker")
        return stored
    except (OSError, UserError) as error:
        logging.warning("shard %d in %s is damaged (%s)", shard, store, error)
        return None


def synchronise(store: str, directory: Path) -> None:
    """Bring all finished shards from there here, and put there those that are here alone."""
    stored = fetch_shards(store, directory)
    for shard in _numbers({path.name for path in directory.glob("*")}):
        if shard not in stored and layout.intact_marker(directory, shard):
            put_shard(store, directory, shard)


def reopen(store: str) -> None:
    """Mark the records as unfinished, before their shards change one by one."""
    urls.remove(urls.join(store, layout.STATISTICS))


def finish(store: str, directory: Path) -> None:
    """Put what is made of all shards there, and remove what is no more; `statistics.json` last."""
    here = {path.name for path in directory.iterdir()}
    for name in urls.names(store) - here:
        urls.remove(urls.join(store, name))
    for name in (*layout.SUMMARIES, layout.STATISTICS):
        if name in here:
            urls.write(urls.join(store, name), (directory / name).read_bytes())


def fetch(store: str, directory: Path) -> None:
    """Bring finished records home.

    Raises
    ------
    UserError
        If they are not finished, or one of the shards is damaged.
    """
    names = urls.names(store)
    if layout.STATISTICS not in names:
        raise UserError(f"{store} holds no finished features: run --stage=features first.")
    markers = fetch_shards(store, directory)
    for name in (*layout.SUMMARIES, layout.STATISTICS):
        if name in names:
            urls.copy(urls.join(store, name), directory / name)
    if layout.read_summary(directory)["fingerprint"] != layout.fingerprint(markers.values()):
        raise UserError(
            f"{store} is damaged, or another run is writing it: run --stage=features again."
        )


def _numbers(names: Collection[str]) -> list[int]:
    """Return the shards whose markers are among the names of files."""
    return sorted(int(match[1]) for match in map(_MARKER.fullmatch, names) if match)
