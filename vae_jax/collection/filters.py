"""Chooses tracks by the manifest's columns: `genre=jazz,year>=1990`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vae_jax.errors import UserError
from vae_jax.labels import values_of

ORDERED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"\s*([^=!<>]+?)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*")


def fitting(columns: Mapping[str, Sequence[str]], conditions: str) -> np.ndarray:
    """Return which tracks meet all conditions, [N] bool.

    Parameters
    ----------
    columns
        The cells of each column.
    conditions
        Conditions separated by commas. `=` and `!=` compare texts, without regard to case, with
        the cell and with each of its values ("Rock;Pop"); `<`,
        `<=`, `>` and `>=` compare numbers, and a cell that holds none does not meet them.

    Raises
    ------
    UserError
        If a condition cannot be read, or names a column that does not exist.
    """
    count = len(next(iter(columns.values()), ()))
    chosen = np.ones(count, bool)
    for condition in filter(str.strip, conditions.split(",")):
        read = CONDITION.fullmatch(condition)
        if read is None:
            raise UserError(
                f"--where: cannot read {condition.strip()!r}; write COLUMN=VALUE, COLUMN!=VALUE, "
                "or COLUMN>=NUMBER (also >, <=, <), separated by commas."
            )
        name, sign, value = read.groups()
        if name not in columns:
            raise UserError(
                f"--where: the manifest has no column {name!r}; it has {', '.join(columns)}."
            )
        chosen &= _compared(columns[name], sign, value)
    return chosen


def _compared(cells: Sequence[str], sign: str, value: str) -> np.ndarray:
    if sign in ("=", "!="):
        wanted = value.casefold()
        equal = np.array(
            [
                wanted in (cell.casefold(), *(one.casefold() for one in values_of(cell)))
                for cell in cells
            ],
            bool,
        )
        return equal if sign == "=" else ~equal
    limit = _number(value)
    if limit is None:
        raise UserError(f"--where: {sign} compares numbers, and {value!r} is none.")
    numbers = map(_number, cells)
    return np.array([x is not None and ORDERED[sign](x, limit) for x in numbers], bool)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def at_most_each(
    values: Sequence[str] | Mapping[int, str], rows: Sequence[int], most: int
) -> list[int]:
    """Keep the first `most` rows of each value, such as an artist; all of those without one."""
    kept, counts = [], dict[str, int]()
    for row in rows:
        value = values[row].casefold()
        counts[value] = counts.get(value, 0) + 1
        if not value or counts[value] <= most:
            kept.append(row)
    return kept
