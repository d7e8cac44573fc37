"""The maps of a run that its page shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_jax.config import BASELINE_TITLES
from vae_jax.errors import UserError
from vae_jax.explorer import measures, packing
from vae_jax.explorer.packing import Page
from vae_jax.plots import projections
from vae_jax.run import MAPS
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results

METHODS = {"vae": "VAE", **BASELINE_TITLES}


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


def drawn(run: "Results") -> list[Map]:
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


def shown(
    page: Page, maps: Sequence[Map], nearest: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Yield what the page needs of each map that has all tracks shown.

    Where the tracks' true neighbours are given, it includes how faithful the map is at each.
    """
    for number, one in enumerate(maps):
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
