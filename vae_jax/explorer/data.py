"""Collects from a run what its page shows: maps, columns, clusters, neighbours, paths of audio."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from vae_jax import __version__, history
from vae_jax.collection import neighbours
from vae_jax.config import TRAINED_ELSEWHERE
from vae_jax.explorer import columns, findings, maps, measures, packing
from vae_jax.explorer.maps import Map
from vae_jax.explorer.packing import Page
from vae_jax.plots import palette
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results

NUM_NEIGHBORS = 25  # of each track
LARGEST_RATIO = 1000  # of distances to neighbours; as if nearer ones were no nearer than that
LIMIT = 200_000  # tracks of a page; of more a file shows a sample, and a served one asks
_NOT_SHOWN = ("lyrics", "audio_path")


def collect(run: "Results", folder: Path, asks: bool = False) -> Page:
    """Collect what is shown of a run.

    Parameters
    ----------
    run
        A run that has clusters.
    folder
        The page's folder, from which paths of audio lead.
    asks
        Whether the page shall ask a server about single tracks. It then shows all, however many.

    Raises
    ------
    UserError
        If results are missing, damaged, or of other tracks.
    """
    drawn = maps.drawn(run)
    rows = drawn[0].rows
    if len(rows) > LIMIT and not asks:
        rng = np.random.default_rng(run.config.seed)
        rows = np.sort(rng.choice(rows, LIMIT, replace=False))
    ids, clusters = [run.ids[row] for row in rows], run.clusters[rows]
    page = Page({"count": len(ids), "total": len(run.ids), "asks": asks}, rows=rows)
    names = sorted({*clusters.tolist()}, key=lambda name: columns.in_order(str(name)))
    page.text |= {
        "title": run.outdir.resolve().name,
        "version": __version__,
        "key": files.fingerprint(ids, clusters.tolist()),
        "looked_at": measures.looked_at(len(rows)),
        "elsewhere": TRAINED_ELSEWHERE.get(run.config.feature.name, ""),
        "palette": [*map(list, palette.STYLES)],
    }
    placed = measures.between(run.latents[rows], clusters, names)
    found = [
        *columns.pack(page, {"cluster": list(map(str, clusters))}, always=True),
        *columns.pack(page, _about(run, ids)),
        *columns.pack(page, findings.descriptors(run, ids)),
        *columns.pack(page, _other_clusters(run, rows), always=True),
        *_measures(page, run, placed.share),
    ]
    given = history.names(run.outdir)
    page.text["clusters"] = {
        "names": [given.get(number, "") for number in names],
        "typical": placed.typical,
        **findings.explained(run, names, ids),
        "second": page.add("second", packing.codes(placed.second + 1, len(names) + 1)),
    }
    if asks:
        _part(page, run, ids, drawn)
    else:
        found += _whole(page, run, ids, drawn, folder)
    page.text["columns"] = columns.named_apart(found)
    if asks:
        page.texts = columns.take_texts(page)
    return page


def _part(page: Page, run: "Results", ids: Sequence[str], drawn: Sequence[Map]) -> None:
    """Add to a page that asks what it needs of its maps, of duplicates and of audio."""
    cells = run.manifest.column("audio_path", ids)
    audible = np.array([bool(cell) for cell in cells], np.uint8)
    page.text |= {
        "maps": [*maps.shown(page, drawn)],
        "same": findings.listed_same(run, ids),
        "audible": page.add("audible", audible) if audible.any() else None,
    }


def _whole(
    page: Page,
    run: "Results",
    ids: Sequence[str],
    drawn: Sequence[Map],
    folder: Path,
) -> list[dict[str, Any]]:
    """Add to a page that has all: ids, neighbours and what follows from them, paths of audio.

    Return the columns that say how unusual tracks are, and how faithful the first map is to them.
    """
    nearest, distances = neighbours.nearest_others(run.latents[page.rows], NUM_NEIGHBORS)
    page.text |= {
        "ids": ids,
        "maps": [*maps.shown(page, drawn, nearest)],
        "neighbours": _neighbours(page, nearest, distances, run.clusters[page.rows], drawn[0]),
        "same": findings.same(run, ids, nearest, distances),
        "audio": _audio(run, ids, folder),
    }
    unusual = measures.unusual(distances)
    faithful = page.arrays[page.text["maps"][0]["faithful"]] / 100
    near = f"share of its nearest that are near it on the map {drawn[0].title}"
    return [
        columns.scale(page, "unusual", unusual, "share of tracks that lie in denser places"),
        columns.scale(page, "faithful", faithful, near),
    ]


def _about(run: "Results", ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the manifest's columns that are shown; labels are those of scores and colours."""
    labels = {run.config.cluster.label, *run.config.visualize.color_by}
    rows = [run.rows.get(id_, -1) for id_ in ids]
    return {
        name: run.manifest.labels(name, ids)
        if name in labels
        else [cells[row] if row >= 0 else "" for row in rows]
        for name, cells in run.manifest.columns.items()
        if name not in _NOT_SHOWN
    }


def _other_clusters(run: "Results", rows: np.ndarray) -> dict[str, list[str]]:
    """Return the clusters of the baselines."""
    table = run.table
    return {
        name.replace("_", " "): [table[row][name] for row in rows]
        for name in table[0]
        if name.endswith("_cluster")
    }


def _measures(page: Page, run: "Results", share: np.ndarray) -> Iterator[dict[str, Any]]:
    yield columns.scale(
        page, "between", share, "0 is the cluster's centre, .5 the middle to the next"
    )
    for name, about in (
        ("silhouette", "1 is well inside its cluster, below 0 nearer to another"),
        ("distance", "to the cluster's centre"),
    ):
        cells = [run.table[row].get(name, "") for row in page.rows]
        if any(cells):
            values = np.array([float(cell) if cell else math.nan for cell in cells])
            yield columns.scale(page, name, values, about)


def _neighbours(
    page: Page, rows: np.ndarray, distances: np.ndarray, clusters: np.ndarray, shown: Map
) -> dict[str, Any]:
    """Return where the page finds the neighbours: in an order that takes little room.

    Along `order` tracks of a cluster follow each other, and in it those that are near on the map,
    so that neighbours are few `steps` away: 0, -1, 1, -2, ... are stored as 0, 1, 2, 3, ... Of
    distances there are the first and the last of each track (`ends`), and between them how much
    `farther` each one is than the one before, in 255 equal ratios.
    """
    places = shown.coordinates[np.searchsorted(shown.rows, page.rows)]
    order = np.lexsort((measures.along(places), clusters))
    position = np.argsort(order)
    steps = position[rows] - position[:, None]
    ends = distances[:, [0, -1]] if rows.shape[1] else np.zeros((len(rows), 2))
    least = np.maximum(ends[:, 0], ends[:, 1] / LARGEST_RATIO)[:, None] + 1e-30
    ratios = np.log(np.maximum(distances, least) / least)
    parts = np.rint(255 * ratios / np.maximum(ratios.max(axis=1, initial=0), 1e-12)[:, None])
    high = float(ends.max(initial=0))
    return {
        "order": page.add("order", order.astype(np.uint32)),
        "steps": page.add(
            "steps", np.where(steps < 0, -2 * steps - 1, 2 * steps).astype(np.uint32)
        ),
        "ends": page.add("ends", packing.quantise(ends, 0.0, high)),
        "farther": page.add(
            "farther", np.diff(parts.astype(np.uint8), axis=1, prepend=np.uint8(0)).T
        ),
        "high": high,
    }


def _audio(run: "Results", ids: Sequence[str], folder: Path) -> list[str] | None:
    """Return where each track's audio is, as relative URLs; "" where there is none to play."""
    if not any(run.manifest.columns.get("audio_path", ())):
        return None
    links = []
    for id_ in ids:
        row = run.rows.get(id_)
        place = None if row is None else run.manifest[row].audio_path
        links.append(_link(place, folder) if isinstance(place, Path) else "")
    return links


def _link(place: Path, folder: Path) -> str:
    path = os.path.relpath(os.path.abspath(place), os.path.abspath(folder))
    return f"./{quote(os.fsencode(path.replace(os.sep, '/')))}"
