"""Answers what a page asks that is served of too many tracks to hold all that is known of them.

Such a page has every track's places, clusters and columns of few values. It asks for the texts of
the tracks that it lists, for one track's neighbours, and for which tracks contain some words.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_jax.collection import neighbours
from vae_jax.explorer import data, measures, packing

if TYPE_CHECKING:
    from vae_jax.api import Results


class Answers:
    """Answers questions about the tracks of a page, by their rows on it.

    Parameters
    ----------
    run
        The run.
    page
        Its page, which leaves out what is asked.
    """

    def __init__(self, run: "Results", page: packing.Page):
        self.ids = [run.ids[row] for row in page.rows]
        self._texts = page.texts
        self._space = neighbours.Space(run.latents[page.rows].astype(np.float64))
        self._maps = [page.arrays[one["places"]].astype(float) for one in page.text["maps"]]
        self._searched = [folded("\n".join(cells)) for cells in self._cells(page)]

    def about(self, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Return the id and the texts of some tracks, by row."""
        return {
            row: {
                "id": self.ids[row],
                "cells": {name: cells[row] for name, cells in self._texts.items()},
            }
            for row in rows
            if 0 <= row < len(self.ids)
        }

    def near(self, row: int) -> dict[str, Any]:
        """Return a track's true neighbours, and how faithful each map is there, in percent."""
        distances = self._space.distances(self._space.points[row : row + 1])[0]
        distances[row] = np.inf
        count = min(data.NUM_NEIGHBORS, len(distances) - 1)
        rows = measures.least(distances, count)
        return {
            "rows": rows.tolist(),
            "distances": distances[rows].tolist(),
            "faithful": [
                round(100 * measures.faithfulness_at(row, rows, places)) for places in self._maps
            ],
        }

    def find(self, words: str) -> bytes:
        """Return a bit for each track, the first the highest: whether it contains all words."""
        hits = np.ones(len(self.ids), bool)
        for word in folded(words).split():
            hits &= np.array([word in text for text in self._searched])
        return np.packbits(hits).tobytes()

    def _cells(self, page: packing.Page) -> Iterator[tuple[str, ...]]:
        """Yield what is searched of each track: all that the page searches itself if it can."""
        columns = [self.ids, *self._texts.values()]
        for column in page.text["columns"]:
            if column["kind"] == "category":
                columns.append(np.array(column["values"])[page.arrays[column["codes"]]].tolist())
        return zip(*columns, strict=True)


def folded(text: str) -> str:
    """Return a text without case and accents, as `folded` in filters.js does."""
    lower = text.lower()
    if lower.isascii():
        return lower
    parts = unicodedata.normalize("NFKD", lower)
    return "".join(one for one in parts if not unicodedata.category(one).startswith("M"))
