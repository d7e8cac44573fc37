"""Turns a manifest into feature records: one writer per shard, resumable, append-friendly.

`extract` prepares what all tracks share, plans the shards, lets a `pool` of processes or a `beam`
pipeline write those that are missing or out of date, and finishes the records directory.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from absl import logging

from vae_jax import extras
from vae_jax.errors import UserError
from vae_jax.features import descriptors, extractors, known, pool
from vae_jax.features.errors import kind_of
from vae_jax.features.known import Known
from vae_jax.features.shards import (
    Failure,
    Oddity,
    ShardJob,
    is_done,
    is_worth_a_try,
    write_shard,
)
from vae_jax.manifest import Manifest
from vae_jax.parallel.cores import num_cores
from vae_jax.records import layout, object_store
from vae_jax.records.statistics import Statistics, arrays_from_dict
from vae_jax.storage import files
from vae_jax.storage.urls import Location


class NothingRead(UserError):
    """No track could be read; `failures` says why, track by track."""

    def __init__(self, message: str, failures: list[Failure]) -> None:
        super().__init__(message)
        self.failures = failures


def extract(
    manifest: Manifest,
    feature: Mapping[str, Any],
    directory: Path,
    *,
    lyrics: Mapping[str, Any] | None = None,
    beam_options: str = "",
    store: str | None = None,
    here: bool = False,
) -> tuple[bool, list[Failure]]:
    """Bring a records directory up to date with a manifest.

    Finished shards whose tracks, files and settings are unchanged are kept, unless a track failed
    because of the machine and may succeed now. Returns whether anything was redone, and the tracks
    that failed; they have no record unless they are `kept`.

    Parameters
    ----------
    feature
        `config.feature` as a plain dict.
    lyrics
        A fitted embedding of lyrics, from `Records.lyrics` or a checkpoint. Without one, an
        embedding is learned from the manifest if the feature needs it.
    beam_options
        Command-line options of the Beam pipeline, where `feature` has runner="beam".
    store
        The URL of the folder that the records are kept in, of which `directory` is a copy.
    here
        Extract in this process, which suits few tracks: starting others takes seconds.

    Raises
    ------
    NothingRead
        If no track could be read.
    UserError
        If there are no lyrics to learn from, the file of another model's vectors cannot be used, or
        the directory cannot be written.
    """
    if beam_options and feature["runner"] != "beam":
        raise UserError("--beam_options needs --config.feature.runner=beam.")
    shared = extractors.prepare(manifest, feature, directory, lyrics)
    on_accelerator = _is_for_accelerator(feature)
    jobs, processes = _plan(manifest, feature, directory, shared, store, on_accelerator)
    if store:
        object_store.synchronise(store, directory)
    todo = [job for job in jobs if not is_done(job) or is_worth_a_try(job)]
    _check_writable(directory, todo)
    _announce(jobs, todo, store or directory)
    if todo and feature["runner"] == "local":
        known.keep(directory, (job.shard for job in todo))
        todo = _with_known(todo, known.find(directory, todo[0].made_by))
    if todo:
        _reopen(directory, todo, store)
        if here:
            for job in todo:
                write_shard(job)
        elif feature["runner"] == "beam":
            _beam().run(todo, processes, beam_options)
        elif on_accelerator:
            pool.run_here(todo, len(manifest))
        else:
            pool.run(todo, processes, len(manifest))
    markers = [files.read_sealed_json(layout.marker_path(directory, job.shard)) for job in jobs]
    failures = [Failure(**failure) for marker in markers for failure in marker["failed"]]
    if not any(marker["ids"] for marker in markers):
        raise NothingRead(
            f"none of the {len(failures)} tracks in {manifest.path} could be read; the first, "
            f"{failures[0].id!r}, failed: {failures[0].reason}.",
            failures,
        )
    _finish(directory, markers)
    known.forget(directory)
    if store:
        object_store.finish(store, directory)
    return bool(todo), failures


def write_warnings(path: Path, directory: Path) -> Counter[str]:
    """Write `warnings.csv`, which lists the tracks that something is odd about.

    Returns how many there are of each kind.
    """
    markers = [*_markers(directory)]
    rows = [oddity for marker in markers for oddity in marker["odd"]]
    files.write_csv(path, [field.name for field in fields(Oddity)], rows)
    decoders = Counter(name for marker in markers for name in marker["decoders"] if name)
    if len(decoders) > 1:
        counts = ", ".join(f"{name} read {count}" for name, count in decoders.most_common())
        logging.info("features: %s tracks", counts)
    return Counter(kind_of(row["warning"]) for row in rows)


def write_descriptors(path: Path, directory: Path) -> None:
    """Write `descriptors.csv`, of the tracks that were described; remove it if none was.

    Cells of what cannot be said of a track are empty.
    """
    rows = [
        {"id": id_, **dict(zip(descriptors.NAMES, values, strict=True))}
        for marker in _markers(directory)
        for id_, values in zip(marker["ids"], marker.get("descriptors", ()), strict=False)
        if values is not None
    ]
    if rows:
        files.write_csv(path, ("id", *descriptors.NAMES), rows)
    else:
        path.unlink(missing_ok=True)


def _markers(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield what the markers of a directory's shards say, in order."""
    return map(files.read_sealed_json, sorted(directory.glob("shard-*.json")))


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write `failed.csv`; it has no rows if nothing failed."""
    columns = [field.name for field in fields(Failure)]
    files.write_csv(path, columns, [failure.__dict__ for failure in failures])


def _plan(
    manifest: Manifest,
    feature: Mapping[str, Any],
    directory: Path,
    shared: str | None,
    store: str | None,
    in_one_process: bool,
) -> tuple[list[ShardJob], int]:
    """Return a job per shard, and the number of processes to share them."""
    size = feature["shard_size"]
    chunks = [manifest[i : i + size] for i in range(0, len(manifest), size)]
    workers = feature["num_workers"] or num_cores()
    processes = 1 if in_one_process else min(workers, len(chunks))
    num_threads = -(-workers // processes)
    jobs = [
        ShardJob(directory, k, tracks, feature, shared, num_threads, store)
        for k, tracks in enumerate(chunks)
    ]
    return jobs, processes


def _check_writable(directory: Path, todo: Sequence[ShardJob]) -> None:
    if todo and directory.exists() and not os.access(directory, os.W_OK):
        raise UserError(
            f"the records in {directory} are not up to date, and may not be written here: name "
            "another folder with --config.data_dir."
        )


def _reopen(directory: Path, todo: Sequence[ShardJob], store: str | None) -> None:
    """Mark records as unfinished: they are not whole until `_finish` says so again."""
    (directory / layout.INDEX).unlink(missing_ok=True)
    for job in todo:
        layout.marker_path(directory, job.shard).unlink(missing_ok=True)
    if store:
        object_store.reopen(store)


def _is_for_accelerator(feature: Mapping[str, Any]) -> bool:
    """Say whether this process should compute features: by a network, where JAX has a GPU or TPU.

    Decoding, in threads, is what takes the time then.
    """
    if feature["name"] != "musicnn" or feature["runner"] == "beam":
        return False
    import jax

    return jax.default_backend() != "cpu"


def _with_known(jobs: Sequence[ShardJob], records: Mapping[str, Known]) -> list[ShardJob]:
    """Give each job the records of its tracks that are known."""
    return [
        replace(job, known={id_: records[id_] for id_ in job.tracks.ids if id_ in records})
        for job in jobs
    ]


def _beam() -> ModuleType:
    try:
        from vae_jax.features import beam
    except ImportError as error:
        raise UserError(
            f"config.feature.runner=beam needs Apache Beam ({error}): {extras.command('beam')}, "
            "in an environment of its own if other packages object."
        ) from error
    return beam


def _announce(jobs: Sequence[ShardJob], todo: Sequence[ShardJob], into: Location) -> None:
    if not todo:
        return
    kept, tracks = len(jobs) - len(todo), sum(len(job.tracks) for job in todo)
    state = f"{kept} of {len(jobs)} shards are up to date, " if kept else ""
    logging.info("features: %sextracting %d tracks into %s", state, tracks, into)


def _finish(directory: Path, markers: Sequence[Mapping[str, Any]]) -> None:
    """Write the index, the statistics and the TFDS metadata; remove shards of dropped rows."""
    fingerprint = layout.fingerprint(markers)
    try:
        if layout.read_summary(directory)["fingerprint"] == fingerprint:
            return
    except UserError as error:
        if (directory / layout.INDEX).exists():
            logging.warning("%s", error)
    for stale in layout.shard_files(directory, from_shard=len(markers)):
        stale.unlink()
    filled = [marker for marker in markers if marker["ids"]]
    arrays = filled[0]["arrays"]
    statistics = {}
    for name in filled[0]["statistics"]:
        parts = [Statistics.from_dict(marker["statistics"][name]) for marker in filled]
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        statistics[name] = total.to_dict()
        if not total.count:
            logging.warning("features: no track has %s; all are described by the rest alone", name)
    lengths = [len(marker["ids"]) for marker in markers]
    layout.write_metadata(directory, arrays_from_dict(arrays), lengths)
    files.write_npz(
        directory / layout.INDEX,
        ids=np.array([id_ for marker in markers for id_ in marker["ids"]]),
        shards=np.repeat(np.arange(len(markers), dtype=np.int32), lengths),
        num_frames=np.array([t for marker in markers for t in marker["num_frames"]], np.int32),
        offsets=np.array([o for marker in markers for o in marker["offsets"]], np.int64),
    )
    layout.write_summary(
        directory,
        {
            "fingerprint": fingerprint,
            "content": layout.content(markers),
            "arrays": arrays,
            "statistics": statistics,
        },
    )
