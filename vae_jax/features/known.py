"""Records that earlier runs have made, for tracks that are still what they were made from.

Rows that were added, removed or reordered move tracks to other shards; their records move along
instead of being extracted again. So do those of a manifest that was moved or copied.
"""

import itertools
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_jax.errors import UserError
from vae_jax.features.origins import Origin
from vae_jax.records import layout
from vae_jax.storage import files

PREVIOUS = ".previous"  # shards that are being replaced, inside the records directory


class Known(NamedTuple):
    """Where a finished record lies, and what it was made from.

    Attributes
    ----------
    path, begin, end
        The shard's file, and the framed record's place in it, in bytes.
    decoder, warnings
        What read the audio, and what is odd about it.
    descriptors
        What the marker says of it; None if nothing.
    """

    origin: Origin
    path: str
    begin: int
    end: int
    decoder: str
    warnings: Sequence[str]
    descriptors: Sequence[Any] | None = None


def keep(directory: Path, shards: Iterable[int]) -> None:
    """Keep finished shards that are about to be written anew, under names of their own."""
    folder = directory / PREVIOUS
    for shard in shards:
        marker = layout.intact_marker(directory, shard)
        if marker is not None:
            folder.mkdir(exist_ok=True)
            for path in (layout.shard_path(directory, shard), layout.marker_path(directory, shard)):
                suffix = ".json" if path.suffix == ".json" else ".records"
                _link(path, folder / f"{marker['sha256'][:16]}{suffix}")


def forget(directory: Path) -> None:
    """Remove what `keep` kept."""
    shutil.rmtree(directory / PREVIOUS, ignore_errors=True)


def find(directory: Path, made_by: str) -> dict[str, Known]:
    """Return the records by their tracks' ids that were made by the same features.

    They lie in `directory` or, if that is new, in the folders beside it.
    """
    folders = [directory]
    if not any(directory.glob("shard-*.json")) and not (directory / PREVIOUS).exists():
        folders = sorted(path for path in directory.parent.glob("*") if path != directory)
    found: dict[str, Known] = {}
    for folder in folders:
        markers = [(path, layout.shard_of(path)) for path in folder.glob("shard-*.json")]
        markers += [
            (path, path.with_suffix(".records")) for path in (folder / PREVIOUS).glob("*.json")
        ]
        for marker_path, shard_path in markers:
            marker = _read(marker_path)
            if marker.get("made_by") == made_by:
                found |= _records(marker, shard_path)
    return found


def _records(marker: Mapping[str, Any], path: Path) -> dict[str, Known]:
    """Return a shard's records, without those that lack a part."""
    failed = {failure["id"] for failure in marker["failed"]}
    origins = {origin[0]: Origin(*origin) for origin in marker["origins"]}
    warnings: dict[str, list[str]] = {}
    for oddity in marker["odd"]:
        warnings.setdefault(oddity["id"], []).append(oddity["warning"])
    places = itertools.pairwise([*marker["offsets"], marker["file"][0]])
    described = marker.get("descriptors") or [None] * len(marker["ids"])
    rows = zip(marker["ids"], places, marker["decoders"], described, strict=True)
    return {
        id_: Known(origins[id_], str(path), begin, end, decoder, warnings.get(id_, []), about)
        for id_, (begin, end), decoder, about in rows
        if id_ not in failed
    }


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return files.read_sealed_json(path)
    except (OSError, UserError):
        return {}


def _link(path: Path, kept: Path) -> None:
    """Keep a file under another name, at no cost if the file system knows hard links."""
    if not kept.exists():
        try:
            os.link(path, kept)
        except OSError:
            shutil.copy2(path, kept)
