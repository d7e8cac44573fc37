"""Collects from a run what its page shows: maps, columns, clusters, neighbours, paths of audio."""

import functools
import itertools
import math
import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from vae_jax import __version__, history
from vae_jax.collection import neighbours
from vae_jax.config import BASELINE_TITLES, TRAINED_ELSEWHERE
from vae_jax.errors import UserError
from vae_jax.explorer import findings, measures, packing
from vae_jax.plots import palette, projections
from vae_jax.run import MAPS
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results

NUM_NEIGHBORS = 25  # of each track
LARGEST_RATIO = (
    1000  # of a track's distances to neighbours; beyond it, near ones count as the first
)
LIMIT = 200_000  # tracks of a page; of more a file shows a sample, and a served one asks
FEW_VALUES = 50  # which make categories, however few tracks there are
MOST_VALUES = 5_000  # of a column that makes categories in a page that asks
MANY_NUMBERS = 12  # distinct numbers, above which a column is a scale
METHODS = {"vae": "VAE", **BASELINE_TITLES}
_NOT_SHOWN = ("lyrics", "audio_path")


@dataclass
class Page:
    """What a page shows, for `packing.pack`.

    Attributes
    ----------
    text
        JSON-like values.
    arrays
        Arrays of unsigned integers, by the names that `text` uses.
    rows
        Positions in the run of the tracks that are shown, [N].
    texts
        Cells of the columns that the page asks for, [N] each, by name.
    """

    text: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    texts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether it has no text of single tracks, and asks its server (see `asked`)."""
        return bool(self.text["asks"])

    def add(self, name: str, array: np.ndarray) -> str:
        """Keep an array; return its name, which is another one if that is taken."""
        name = unlike(name, self.arrays)
        self.arrays[name] = array
        return name


def unlike(name: str, others: Container[str]) -> str:
    """Return a name that is none of others': the same, or with a number."""
    numbered = (f"{name} ({i})" for i in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in others)


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
    drawn = maps(run)
    rows = drawn[0].rows
    if len(rows) > LIMIT and not asks:
        rng = np.random.default_rng(run.config.seed)
        rows = np.sort(rng.choice(rows, LIMIT, replace=False))
    ids, clusters = [run.ids[row] for row in rows], run.clusters[rows]
    page = Page({"count": len(ids), "total": len(run.ids), "asks": asks}, rows=rows)
    names = sorted({*clusters.tolist()}, key=lambda name: _in_order(str(name)))
    page.text |= {
        "title": run.outdir.resolve().name,
        "version": __version__,
        "key": files.fingerprint(ids, clusters.tolist()),
        "looked_at": measures.looked_at(len(rows)),
        "elsewhere": TRAINED_ELSEWHERE.get(run.config.feature.name, ""),
        "palette": [*map(list, palette.STYLES)],
    }
    placed = measures.between(run.latents[rows], clusters, names)
    columns = [
        *_columns(page, {"cluster": list(map(str, clusters))}, always=True),
        *_columns(page, _about(run, ids)),
        *_columns(page, findings.descriptors(run, ids)),
        *_columns(page, _other_clusters(run, rows), always=True),
        *_measures(page, run, placed.share),
    ]
    given = history.names(run.outdir)
    page.text["clusters"] = {
        "names": [given.get(number, "") for number in names],
        "typical": placed.typical,
        **findings.explained(run, names, ids),
        "second": page.add("second", packing.codes(placed.second + 1, len(names) + 1)),
    }
    add = _asked if asks else functools.partial(_whole, folder=folder, columns=columns)
    add(page, run, ids, drawn)
    page.text["columns"] = _named_apart(columns)
    if asks:
        page.texts = {
            column["name"]: column.pop("values")
            for column in page.text["columns"]
            if column["kind"] == "text"
        }
    return page


def _asked(page: Page, run: "Results", ids: Sequence[str], drawn: Sequence["Map"]) -> None:
    """Add to a page that asks what it needs of its maps, of duplicates and of audio."""
    cells = run.manifest.column("audio_path", ids)
    audible = np.array([bool(cell) for cell in cells], np.uint8)
    page.text |= {
        "maps": [*_shown_maps(page, drawn)],
        "same": findings.listed_same(run, ids),
        "audible": page.add("audible", audible) if audible.any() else None,
    }


def _whole(
    page: Page,
    run: "Results",
    ids: Sequence[str],
    drawn: Sequence["Map"],
    folder: Path,
    columns: list[dict[str, Any]],
) -> None:
    """Add to a page that has all: ids, neighbours and what follows from them, paths of audio."""
    nearest, distances = neighbours.nearest_others(run.latents[page.rows], NUM_NEIGHBORS)
    unusual = measures.unusual(distances)
    columns.append(_scale(page, "unusual", unusual, "share of tracks that lie in denser places"))
    page.text |= {
        "ids": ids,
        "maps": [*_shown_maps(page, drawn, nearest)],
        "neighbours": _neighbours(page, nearest, distances, run.clusters[page.rows], drawn[0]),
        "same": findings.same(run, ids, nearest, distances),
        "audio": _audio(run, ids, folder),
    }


@dataclass(frozen=True)
class Map:
    """A method's embedding on the plane.

    Attributes
    ----------
    name
        Such as "vae_umap".
    title
        Such as "VAE · UMAP".
    rows
        Positions in the run of the tracks on it, ascending, [n].
    coordinates
        [n, 2].
    """

    name: str
    title: str
    rows: np.ndarray
    coordinates: np.ndarray


def maps(run: "Results") -> list[Map]:
    """Return the maps that the run drew, the VAE's first; or its PCA, where it has drawn none."""
    found = []
    for path in sorted((run.outdir / MAPS).glob("*.csv")):
        method, _, projection = path.stem.rpartition("_")
        if method in METHODS and projection in projections.TITLES:
            title = f"{METHODS[method]} · {projections.TITLES[projection]}"
            found.append(Map(path.stem, title, *_coordinates(run, path)))
    found.sort(key=lambda one: [*METHODS].index(one.name.rpartition("_")[0]))
    if not found or not found[0].name.startswith("vae_"):
        flat = projections.project(run.latents, "pca", run.config.seed).coordinates
        found.insert(0, Map("vae_pca", "VAE · PCA", np.arange(len(run.ids)), flat))
    return found


def _coordinates(run: "Results", path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = files.read_csv(path)
    try:
        rows = np.array([run.positions[row["id"]] for row in table])
        places = np.array([(float(row["x"]), float(row["y"])) for row in table])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged or of other tracks ({error}): run again.") from error
    order = np.argsort(rows)
    return rows[order], places[order]


def _shown_maps(
    page: Page, drawn: Sequence[Map], nearest: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Yield what the page needs of each map that has all tracks shown.

    Where the tracks' true neighbours are given, it includes how faithful the map is at each.
    """
    for number, one in enumerate(drawn):
        if not np.isin(page.rows, one.rows).all():
            continue
        places = one.coordinates[np.searchsorted(one.rows, page.rows)]
        low, high = places.min(axis=0), places.max(axis=0)
        side = float((high - low).max()) or 1.0
        middle = (low + high) / 2
        square = np.stack(
            [
                packing.quantise(places[:, i], middle[i] - side / 2, middle[i] + side / 2)
                for i in (0, 1)
            ],
            axis=1,
        )
        about = {
            "name": one.name,
            "title": one.title,
            "places": page.add(f"map{number}", square),
        }
        if nearest is not None:
            faithful = np.rint(100 * measures.faithfulness(nearest, places)).astype(np.uint8)
            about["faithful"] = page.add(f"faithful{number}", faithful)
        yield about


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


def _columns(
    page: Page, columns: Mapping[str, list[str]], always: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield each column that says something: a scale, categories (`always`), or text."""
    for name, cells in columns.items():
        distinct = {*cells}
        if distinct == {""}:
            continue
        numbers = None if always else _numbers(cells, distinct)
        if numbers is not None:
            yield _scale(page, name, numbers)
        elif always or (name != "title" and _repeats(page, len(distinct), len(cells))):
            values = sorted(distinct, key=_in_order)
            code = {value: i for i, value in enumerate(values)}
            codes = packing.codes(np.array([code[cell] for cell in cells]), len(values))
            array = page.add(f"column {name}", codes)
            yield {"name": name, "kind": "category", "values": values, "codes": array}
        else:
            yield {"name": name, "kind": "text", "values": cells}


def _repeats(page: Page, distinct: int, total: int) -> bool:
    """Whether a column of so many distinct values makes categories."""
    if page.asks and distinct > MOST_VALUES:
        return False
    return distinct <= FEW_VALUES or 2 * distinct <= total


def _named_apart(columns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns, none of which is called like one before it: filters go by name."""
    named: dict[str, dict[str, Any]] = {}
    for column in columns:
        name = unlike(column["name"], named)
        named[name] = column | {"name": name}
    return [*named.values()]


def _in_order(value: str) -> tuple[int, float, str]:
    """Sort whole numbers by value, before words; what is missing (-1, empty) comes last."""
    if value in ("", "-1"):
        return 2, 0.0, value
    if re.fullmatch(r"\d{1,15}", value):
        return 0, float(value), value
    return 1, 0.0, value.casefold()


def _numbers(cells: Sequence[str], distinct: set[str]) -> np.ndarray | None:
    """Return a column's numbers, NaN in empty cells; None if it has words, or few values."""
    if len(distinct) <= MANY_NUMBERS:
        return None
    try:
        values = np.array([float(cell) if cell else math.nan for cell in cells])
    except ValueError:
        return None
    return values if np.isfinite(values[[bool(cell) for cell in cells]]).all() else None


def _scale(page: Page, name: str, values: np.ndarray, about: str = "") -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    return {
        "name": name,
        "kind": "number",
        "about": about,
        "low": low,
        "high": high,
        "whole": bool((finite == np.rint(finite)).all()),
        "steps": page.add(f"column {name}", packing.quantise(values, low, high)),
    }


def _measures(page: Page, run: "Results", share: np.ndarray) -> Iterator[dict[str, Any]]:
    yield _scale(page, "between", share, "0 is the cluster's centre, .5 the middle to the next")
    for name, about in (
        ("silhouette", "1 is well inside its cluster, below 0 nearer to another"),
        ("distance", "to the cluster's centre"),
    ):
        cells = [run.table[row].get(name, "") for row in page.rows]
        if any(cells):
            values = np.array([float(cell) if cell else math.nan for cell in cells])
            yield _scale(page, name, values, about)


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
