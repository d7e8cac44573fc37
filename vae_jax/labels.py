"""Labels as they are meant: `Rock`, ` rock` and `Rock;Pop` are one, and so are `eng` and `English`.

Scores and legends take a label for what its cell says first, in the spelling that the collection
uses most. The cells themselves stay as they are.
"""

import difflib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vae_jax import languages
from vae_jax.entities import unescape

SEPARATORS = re.compile(r"[;|\0]")  # not / or commas: "Pop/Rock", "Folk, World & Country"
MISSING = ("nan", "none", "null", "n/a", "<na>", "#n/a", "undefined")
LANGUAGE = ("language", "lang")  # columns that hold languages, whatever their cells say
MOST_COMPARED = 200  # labels; more are names, such as artists
ALIKE = 0.9  # of 1: the likeness of labels that may be one


@dataclass(frozen=True)
class Folding:
    """What the cells of a column stand for.

    Attributes
    ----------
    labels
        The label of each cell that there is; empty if it has none.
    counts
        How many rows have each cell.
    """

    labels: Mapping[str, str]
    counts: Mapping[str, int]

    def changed(self) -> Iterator[tuple[str, str, str]]:
        """Yield (cell, label, kind) for cells that do not say just their label."""
        for cell, label in self.labels.items():
            if not cell or cell == label:
                continue
            values = values_of(cell)
            kind = "several values" if len(values) > 1 else "spelling" if values else "missing"
            yield cell, label, kind

    def told(self) -> str:
        """Say how many rows do not say just their label, by kind; empty if all do."""
        kinds = Counter[str]()
        for cell, _, kind in self.changed():
            kinds[kind] += self.counts[cell]
        return ", ".join(f"{kind} of {count} tracks" for kind, count in kinds.most_common())

    def alike(self) -> list[tuple[str, str]]:
        """Return pairs of labels that may be one; the caller should name them."""
        names = list(dict.fromkeys(filter(None, self.labels.values())))
        if len(names) > MOST_COMPARED:
            return []
        return [pair for pair in itertools.combinations(names, 2) if _are_alike(*pair)]


def fold(cells: Iterable[str], column: str = "") -> Folding:
    """Say what each cell of a column stands for.

    Parameters
    ----------
    cells
        All cells of the collection.
    column
        The column's name. Languages are told by it, or by all cells being languages.
    """
    counts = Counter(cells)
    firsts = {cell: next(iter(values_of(cell)), "") for cell in counts}
    rows = dict.fromkeys(filter(None, firsts.values()), 0)  # of each first value
    for cell, first in firsts.items():
        if first:
            rows[first] += counts[cell]
    are_languages = column.casefold() in LANGUAGE or all(map(languages.code, rows))
    keys = {value: (are_languages and languages.code(value)) or _key(value) for value in rows}
    shown: dict[str, str] = {}
    for value, key in keys.items():
        if key not in shown or rows[value] > rows[shown[key]]:
            shown[key] = value
    labels = {cell: shown[keys[first]] if first else "" for cell, first in firsts.items()}
    return Folding(labels, counts)


def values_of(cell: str) -> list[str]:
    """Return the values of a cell, without those that stand for none."""
    values = [" ".join(part.split()) for part in SEPARATORS.split(unescape(cell))]
    return [value for value in values if value and value.casefold() not in MISSING]


def _key(value: str) -> str:
    return unicodedata.normalize("NFKC", value).casefold()


def _are_alike(one: str, other: str) -> bool:
    """Say whether two labels differ in signs, a letter or two, or an ending alone."""
    one, other = (_key(name).replace("&", " and ") for name in (one, other))
    if re.sub(r"[\W_]+", "", one) == re.sub(r"[\W_]+", "", other) != "":
        return True
    if min(len(one), len(other)) < 5 or re.search(r"\d", one + other):
        return False  # "1980s" and "1990s" are two
    return difflib.SequenceMatcher(None, one, other).ratio() >= ALIKE
