"""MTG-Jamendo: 55,000 full songs with tags and no lyrics (Bogdanov et al., ICML 2019 workshop).

Layout of https://huggingface.co/datasets/rkstgr/mtg-jamendo, as public users of it read it:
`train.tsv` and `valid.tsv` (id, genres, instruments, moods, ...; the tags as Python lists of
strings), and the songs as `ID.opus` in `data/train/0.tar` to `199.tar` and `data/val/0.tar` to
`21.tar`, some 250 songs and half a gigabyte each.

Archives are verified, unpacked whole and deleted, so that a larger `max_tracks` continues without
fetching them again. A song's genre (and label) is its first genre tag; `genres` has them all.
"""

import ast
import csv
import math
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from absl import logging

from vae_jax.download import hub, local
from vae_jax.errors import UserError
from vae_jax.storage import files

SPLITS = {"train": ("train.tsv", "data/train/"), "validation": ("valid.tsv", "data/val/")}
TAGS = ("genres", "instruments", "moods")
SEPARATOR = ";"  # between the tags in a cell
Unpacked = dict[str, dict[str, str]]  # track id -> file name and sha256


def download(
    repo_id: str, split: str, max_tracks: int, data_dir: Path, revision: str | None
) -> Path:
    """Fetch the first `max_tracks` songs of a split (0: all) and write their manifest.

    Returns
    -------
    Path
        The manifest `metadata_mtg_jamendo_SPLIT.csv`; audio is in `audio/` beside it.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    manifest = data_dir / f"metadata_mtg_jamendo_{split}.csv"
    local.check_manifest(manifest)
    source = hub.snapshot(repo_id, revision)
    with local.work_folder(data_dir) as work:
        tags = _tags(source, SPLITS[split][0], work)
        tracks = _collect(source, split, tags, max_tracks or len(tags), data_dir, work)
    others = tuple(name for name in next(iter(tags.values())) if name not in ("id", *TAGS))
    extra = (*TAGS, *(name for name in others if name not in local.COLUMNS))
    rows = [_row(tags[track], name) for track, name in tracks.items()]
    record = {"source": "mtg_jamendo", **source.record(), "split": split, "tracks": len(rows)}
    local.write_manifest(manifest, extra, rows, record)
    return manifest


def _tags(source: hub.Snapshot, name: str, work: Path) -> dict[str, dict[str, str]]:
    """Read the tags of a split, by track id."""
    if name not in source.files:
        raise UserError(f"{source.repo_id} has no {name}: it is not laid out as MTG-Jamendo.")
    hub.fetch(source, {work / name: source.files[name]}, work)
    with open(work / name, encoding="utf-8", newline="") as file:
        rows = [
            {key: value or "" for key, value in row.items() if key is not None}
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
        ]
    if not rows or not {"id", *TAGS} <= rows[0].keys():
        raise UserError(f"{name} of {source.repo_id} lacks the columns id, {', '.join(TAGS)}.")
    return {row["id"]: row for row in rows}


def _collect(
    source: hub.Snapshot,
    split: str,
    tags: Mapping[str, object],
    count: int,
    data_dir: Path,
    work: Path,
) -> dict[str, str]:
    """Fetch archives in order until there are `count` tracks; return track id -> file name."""
    archives = _archives(source, SPLITS[split][1])
    each = max(1, len(tags) / len(archives))  # songs expected per archive
    tracks: dict[str, str] = {}
    while archives and len(tracks) < count:
        size = min(hub.WORKERS, math.ceil((count - len(tracks)) / each))
        wave, archives = archives[:size], archives[size:]
        markers = {file: work / f"{split}-{PurePosixPath(file.path).stem}.json" for file in wave}
        unpacked = {file: _finished(markers[file], file, data_dir) for file in wave}
        tars = {file: markers[file].with_suffix(".tar") for file in wave if unpacked[file] is None}
        hub.fetch(source, {tar: file for file, tar in tars.items()}, work)
        for file in wave:
            there = unpacked[file]
            if there is None:
                there = _unpack(tars[file], tags, data_dir / "audio")
                files.write_json(markers[file], {"archive": file.digest, "tracks": there})
                tars[file].unlink()
            tracks.update({track: entry["file"] for track, entry in there.items()})
    if len(tracks) < count:
        logging.info("%s has only %d songs in this split", source.repo_id, len(tracks))
    return dict(list(tracks.items())[:count])


def _archives(source: hub.Snapshot, folder: str) -> list[hub.RemoteFile]:
    found = [
        file
        for path, file in source.files.items()
        if path.startswith(folder) and path.endswith(".tar")
    ]
    if not found:
        raise UserError(f"{source.repo_id} has no archives {folder}*.tar.")
    return sorted(found, key=lambda file: [int(n) for n in re.findall(r"\d+", file.path)])


def _finished(marker: Path, archive: hub.RemoteFile, data_dir: Path) -> Unpacked | None:
    """Return what an earlier run unpacked from this archive, if every file is still right."""
    if not marker.exists():
        return None
    content = files.read_json(marker)
    if content["archive"] != archive.digest:
        return None
    for entry in content["tracks"].values():
        path = data_dir / "audio" / entry["file"]
        if not path.is_file() or files.sha256(path) != entry["sha256"]:
            logging.info("%s is missing or damaged: fetching %s again", path, archive.path)
            return None
    return content["tracks"]


def _unpack(archive: Path, tags: Mapping[str, object], folder: Path) -> Unpacked:
    """Write the songs of an archive into one folder, each atomically, under their own names."""
    unpacked: Unpacked = {}
    limit = archive.stat().st_size
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            name = local.check_name(member.name)
            if member.isdir():
                continue
            if not member.isfile() or member.size > limit:  # links, devices, sparse giants
                raise UserError(
                    f"refused {member.name!r} in {archive.name}: it is not a plain file; do not "
                    "trust this source."
                )
            if name.suffix != ".opus" or name.stem not in tags:
                logging.info("%s: skipped %s, which has no tags", archive.name, name)
                continue
            unpacked[name.stem] = _write_member(tar, member, local.confined(folder, name.name))
    return unpacked


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> dict[str, str]:
    content = tar.extractfile(member)
    assert content is not None  # a plain file has content
    with files.atomic_write(target) as out:
        shutil.copyfileobj(content, out, 1 << 20)
    return {"file": target.name, "sha256": files.sha256(target)}


def _row(tags: Mapping[str, str], file: str) -> dict[str, str]:
    lists = {name: _parse(tags[name]) for name in TAGS}
    genre = lists["genres"][0] if lists["genres"] else ""
    return {
        **{name: value for name, value in tags.items() if name not in local.COLUMNS},
        **{name: SEPARATOR.join(values) for name, values in lists.items()},
        "id": tags["id"],
        "audio_path": f"audio/{file}",
        "genre": genre,
        "label": genre,
    }


def _parse(cell: str) -> list[str]:
    """Read a tag list such as `['pop', 'rock']`."""
    try:
        values = ast.literal_eval(cell) if cell.startswith("[") else cell.split(",")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(value).strip() for value in values if str(value).strip()]
