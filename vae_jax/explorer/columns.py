"""The columns of a page: what colours its points, and what is known of each track."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vae_jax.explorer import packing
from vae_jax.explorer.packing import Page, unlike

FEW_VALUES = 50  # which make categories, however few tracks there are
MOST_VALUES = 5_000  # of a column that makes categories in a page that asks
MANY_NUMBERS = 12  # distinct numbers, above which a column is a scale


def pack(
    page: Page, cells_of: Mapping[str, list[str]], always: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield each column that says something: a scale, categories (`always`), or text."""
    for name, cells in cells_of.items():
        distinct = {*cells}
        if distinct == {""}:
            continue
        numbers = None if always else _numbers(cells, distinct)
        if numbers is not None:
            yield scale(page, name, numbers)
        elif always or (name != "title" and _repeats(page, len(distinct), len(cells))):
            values = sorted(distinct, key=in_order)
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


def named_apart(columns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns, none of which is called like one before it: filters go by name."""
    named: dict[str, dict[str, Any]] = {}
    for column in columns:
        name = unlike(column["name"], named)
        named[name] = column | {"name": name}
    return [*named.values()]


def take_texts(page: Page) -> dict[str, list[str]]:
    """Take the cells of all texts out of a page, and return them by column."""
    texts = (column for column in page.text["columns"] if column["kind"] == "text")
    return {column["name"]: column.pop("values") for column in texts}


def in_order(value: str) -> tuple[int, float, str]:
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


def scale(page: Page, name: str, values: np.ndarray, about: str = "") -> dict[str, Any]:
    """Return a column of numbers, [N]; NaN where there is none. `about` says what they mean."""
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
