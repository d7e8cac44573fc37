"""A table that some other program has exported: a manifest of its rows, with columns renamed."""

from collections.abc import Mapping
from pathlib import Path

from absl import logging

from vae_jax import manifest as manifest_lib
from vae_jax.download import local


def manifest(path: Path, output: Path, named: Mapping[str, str]) -> int:
    """Write the manifest of a table in CSV; return how many tracks it has.

    Paths are made relative to the manifest. Without a column `label`, the label is the genre. All
    other columns are kept.

    Parameters
    ----------
    path
        The table, with commas, semicolons or tabs.
    output
        The CSV to write.
    named
        What the table calls the columns of a manifest, such as {"id": "TrackId"}.

    Raises
    ------
    UserError
        If the table cannot be read, lacks a column, or has an id twice.
    """
    local.check_manifest(output)
    table = manifest_lib.read(path, renamed={theirs: ours for ours, theirs in named.items()})
    rows, missing = [], 0
    for track in table:
        place, there = track.audio_path, track.audio_path
        if isinstance(place, Path):
            missing += not place.exists()
            there = local.relative(place, output.parent)
        label = track.columns.get("label", track.columns.get("genre", ""))
        known = {"id": track.id, "audio_path": str(there or ""), "lyrics": track.lyrics}
        rows.append({**track.columns, **known, "label": label})
    extra = [name for name in table.columns if name not in local.COLUMNS]
    record = {"source": "csv", "path": str(path), "columns": dict(named), "tracks": len(rows)}
    local.write_manifest(output, extra, rows, record)
    logging.info("%d tracks, of which %d name a file that is missing", len(rows), missing)
    return len(rows)
