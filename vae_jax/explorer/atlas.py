"""Writes a run for embedding-atlas, the viewer: a Parquet file with x, y and neighbors.

    embedding-atlas FILE.parquet --x x --y y --neighbors neighbors

`neighbors` holds the row numbers (`ids`) and `distances` of each track's true neighbours.
"""

import io
import os
from typing import TYPE_CHECKING

import numpy as np

from vae_jax.collection import neighbours
from vae_jax.explorer import maps
from vae_jax.explorer.data import NUM_NEIGHBORS
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results


def write(path: str | os.PathLike, run: "Results") -> int:
    """Write the tracks of the run's map with the manifest's columns; return their number."""
    import pyarrow
    from pyarrow import parquet

    shown = maps.drawn(run)[0]
    ids = [run.ids[row] for row in shown.rows]
    near, distances = neighbours.nearest_others(run.latents[shown.rows], NUM_NEIGHBORS)
    pairs = zip(near.tolist(), distances.tolist(), strict=True)
    about = {name: run.manifest.column(name, ids) for name in run.manifest.columns}
    columns = {
        **about,
        "id": ids,
        "cluster": run.clusters[shown.rows].tolist(),
        "x": shown.coordinates[:, 0].astype(np.float32),
        "y": shown.coordinates[:, 1].astype(np.float32),
        "neighbors": [{"ids": rows, "distances": apart} for rows, apart in pairs],
    }
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content)
    with files.atomic_write(path) as file:
        file.write(content.getvalue())
    return len(ids)
