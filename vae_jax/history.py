"""What an outdir keeps of its results when its tracks change, so that the next run can follow them.

Before anything is written over, the clusters, the maps and what they were made with move to
`history/001`, then `history/002`, ... The next run takes the numbers of its clusters, its map and
the start of its training from there. Once kept, a folder does not change, so that a run that is
killed and started again follows the same one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from vae_jax import manifest
from vae_jax.errors import UserError
from vae_jax.records import layout
from vae_jax.run import CLUSTER_NAMES, CLUSTERS, HISTORY, KEPT, MAPS, RUN, Run, read_run
from vae_jax.storage import files

SHARED = 0.5  # of the tracks before must still be there, or it is another collection


def follow(run: Run) -> None:
    """Keep the outdir's results if they are of other tracks or features than the run's.

    Called before any stage but the extraction writes.
    """
    path = run.outdir / RUN
    if not path.exists() or not (run.records_dir / layout.INDEX).exists():
        return
    before = read_run(run.outdir)
    if "content" not in before or before["content"] == run.records.content:
        return
    previous = before.get("previous")
    if before["clustered"] and (run.outdir / CLUSTERS).exists():
        previous = _keep(run, before) if _is_same_collection(run) else None
    if previous:
        logging.info("the results before are kept in %s, and followed", run.outdir / previous)
    followed = {"content": run.records.content, "previous": previous, "clustered": False}
    files.write_json(path, {**before, **followed})


def names(outdir: Path) -> dict[int, str]:
    """Return the names that a person gave clusters, by number; empty if there are none.

    Raises
    ------
    UserError
        If `cluster_names.csv` lacks a column, or has an id that is no number.
    """
    path = outdir / CLUSTER_NAMES
    if not path.exists():
        return {}
    listed = manifest.read(path, ["name"])
    try:
        pairs = zip(map(int, listed.ids), listed.columns["name"], strict=True)
        return {number: name for number, name in pairs if name}
    except ValueError as error:
        raise UserError(f"{path}: an id must be the number of a cluster ({error}).") from error


def clusters(folder: Path, prefix: str) -> dict[str, int]:
    """Return each track's cluster under a method; empty if the results kept have none."""
    rows = files.iterate_csv(folder / CLUSTERS)
    name = f"{prefix}cluster"
    return {row["id"]: int(row[name]) for row in rows if row.get(name)}


def next_ids(folder: Path) -> dict[str, int]:
    """Return the lowest number that no cluster ever had, by the column of `clusters.csv`."""
    return files.read_sealed_json(folder / KEPT)["next_ids"]


def coordinates(folder: Path, view: str) -> dict[str, tuple[float, float]]:
    """Return each track's place on a map such as "vae_umap"; empty if there is none."""
    path = folder / MAPS / f"{view}.csv"
    rows = files.iterate_csv(path) if path.exists() else ()
    return {row["id"]: (float(row["x"]), float(row["y"])) for row in rows}


def _is_same_collection(run: Run) -> bool:
    before = [row["id"] for row in files.iterate_csv(run.outdir / CLUSTERS)]
    return bool(np.isin(before, run.records.ids).mean() >= SHARED)


def _keep(run: Run, before: Mapping[str, Any]) -> str:
    """Copy what is worth following into the next folder; return its name in the outdir."""
    earlier = before.get("previous")
    used = next_ids(run.outdir / earlier) if earlier else {}
    kept = {**before, "next_ids": _next_ids(run.outdir / CLUSTERS, used)}
    folder = _folder(run.outdir / HISTORY, kept)
    for path in [run.outdir / CLUSTERS, *sorted((run.outdir / MAPS).glob("*.csv"))]:
        with files.atomic_write(folder / path.relative_to(run.outdir)) as file:
            file.write(path.read_bytes())
    files.write_sealed_json(folder / KEPT, kept)
    return str(folder.relative_to(run.outdir))


def _folder(root: Path, kept: Mapping[str, Any]) -> Path:
    """Return the next free folder, or the last one if a run was killed after it had kept this."""
    last = max((int(path.parent.name) for path in root.glob(f"[0-9]*/{KEPT}")), default=0)
    is_kept = last and files.read_sealed_json(root / f"{last:03d}" / KEPT) == kept
    return root / f"{last if is_kept else last + 1:03d}"


def _next_ids(path: Path, used: Mapping[str, int]) -> dict[str, int]:
    following = dict(used)
    for row in files.iterate_csv(path):
        for name, cell in row.items():
            if name.endswith("cluster") and cell:
                following[name] = max(following.get(name, 0), int(cell) + 1)
    return following
