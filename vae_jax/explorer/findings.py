"""Reads what else is known of a run's tracks and clusters, for its page: whichever files there are.

`descriptors.csv` describes tracks in numbers, `clusters.json` says what sets clusters apart, and
`duplicates.csv` lists tracks that are the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_jax.collection import duplicates
from vae_jax.features import descriptors as descriptors_file
from vae_jax.reasons import explain
from vae_jax.run import DESCRIPTORS, DUPLICATES
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results

UNITS = {"db": "dB", "hz": "Hz", "bpm": "bpm", "seconds": "s"}
ALIKE = "very much alike"
SAID = duplicates.SAID | {duplicates.ALIKE: ALIKE}
MOST_ALIKE = 500  # pairs that are shown


def descriptors(run: "Results", ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the tracks' descriptors by name and unit, "" where there is none."""
    described = descriptors_file.read(run.outdir / DESCRIPTORS, ids)
    return {_titled(name): cells for name, cells in described.items()}


def _titled(name: str) -> str:
    """Return "loudness (dB)" of `loudness_db`."""
    *words, last = name.split("_")
    if words and last in UNITS:
        return f"{' '.join(words)} ({UNITS[last]})"
    return name.replace("_", " ")


def explained(run: "Results", names: Sequence[int], ids: Sequence[str]) -> dict[str, list[Any]]:
    """Return of each cluster a suggested name, `reasons` in words, and rows at its `edge`.

    They are "" and empty where nothing is known.
    """
    known = explain.read(run.outdir)
    of_each = [known.get(name, {}) for name in names]
    edges = {id_ for one in of_each for id_ in one.get("edge", ())}
    rows = {id_: row for row, id_ in enumerate(ids) if id_ in edges}
    return {
        "suggested": [one.get("name", "") for one in of_each],
        "reasons": [[*one.get("reasons", ())] for one in of_each],
        "edge": [[rows[id_] for id_ in one.get("edge", ()) if id_ in rows] for one in of_each],
    }


def same(
    run: "Results", ids: Sequence[str], nearest: np.ndarray, distances: np.ndarray
) -> list[dict[str, Any]]:
    """Return groups of tracks that may be the same: what they share, and their positions in `ids`.

    Where nobody has listed them, they are pairs that are unusually near to each other.
    """
    if (run.outdir / DUPLICATES).exists():
        return listed_same(run, ids)
    if not nearest.shape[1]:
        return []
    pairs = [*duplicates.alike(nearest, distances, set())][:MOST_ALIKE]
    return [{"kind": ALIKE, "rows": [int(row) for row in pair]} for pair in pairs]


def listed_same(run: "Results", ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the groups of `duplicates.csv`, if there is one."""
    path = run.outdir / DUPLICATES
    if not path.exists():
        return []
    position = {id_: i for i, id_ in enumerate(ids)}
    groups: dict[str, list[int]] = defaultdict(list)
    kinds = {}
    for row in files.iterate_csv(path):
        kinds[row["group"]] = row["kind"]
        if row["id"] in position:
            groups[row["group"]].append(position[row["id"]])
    return [
        {"kind": SAID.get(kinds[group], ALIKE), "rows": rows}
        for group, rows in groups.items()
        if len(rows) > 1
    ]
