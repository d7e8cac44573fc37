"""The table `clustering_metrics.csv` of a run's folder: one row per run id, method and seed.

The cluster stage appends to it; `compare` reads it. Rows of earlier runs are kept.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_jax.errors import UserError
from vae_jax.storage import files

NAME = "clustering_metrics.csv"
KEYS = ("run_id", "time", "method", "seed")  # columns that every version has written


def read(path: str | os.PathLike) -> list[dict[str, str]]:
    """Read all rows.

    Raises
    ------
    UserError
        If the file does not exist or is damaged.
    """
    try:
        rows = files.read_csv(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run --stage=cluster first.") from error
    for number, row in enumerate(rows, 1):
        if not all(row.get(key) for key in KEYS):
            raise UserError(
                f"{path} is damaged: row {number} below the header lacks one of "
                f"{', '.join(KEYS)}; mend it or move it away."
            )
    return rows


def append(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows; those of earlier runs with the same run ids are replaced, all others kept.

    The columns are those of `rows`, then any others that the file had.
    """
    replaced = {row["run_id"] for row in rows}
    earlier = read(path) if Path(path).exists() else []
    kept = [row for row in earlier if row["run_id"] not in replaced]
    columns = list(dict.fromkeys(column for row in (*rows, *kept) for column in row))
    files.write_csv(path, columns, [*kept, *rows])
