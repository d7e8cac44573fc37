"""Groups tracks by cluster or by label and gives every group a colour and a marker.

The first eight colours are those of Okabe and Ito (2008). The other twelve were chosen to be as
far as possible from them and from each other in CIELAB, also as seen with protanopia and
deuteranopia; as twenty colours are more than anyone can tell apart, the marker changes too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

OKABE_ITO = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"),
)
STYLES = (
    *((color, "o") for color in OKABE_ITO),
    *((color, "^") for color in ("#555500", "#552277", "#CC9977", "#662233")),
    *((color, "^") for color in ("#AA99FF", "#779922", "#227777", "#BBAADD")),
    *((color, "s") for color in ("#EE6666", "#773300", "#990066", "#3355BB")),
)
OTHER, MISSING, NOISE = ("#777777", "D"), ("#A6A6A6", "X"), ("#CFCFCF", "o")
MAX_LABEL = 32  # characters


@dataclass(frozen=True)
class Group:
    """Tracks that are drawn alike.

    Attributes
    ----------
    name
        Such as "3", "rock", "not given".
    rows
        Which tracks: int [n], ascending.
    color, marker
        As matplotlib takes them.
    muted
        Whether these are no category of their own: noise, other or missing values.
    """

    name: str
    rows: np.ndarray
    color: str
    marker: str
    muted: bool = False

    @property
    def label(self) -> str:
        """The name, shortened, and the number of tracks."""
        return f"{self.short_name} ({len(self.rows):,})"

    @property
    def short_name(self) -> str:
        """The name on one line, shortened."""
        name = " ".join(self.name.split())
        return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"


def by_cluster(clusters: np.ndarray, names: Mapping[int, str] | None = None) -> list[Group]:
    """Group tracks by cluster id, ascending, with noise (-1) last; some ids may have names.

    An id has the same colour in every picture, as long as there are colours for all.
    """
    groups = _groups(clusters, -1, "noise", NOISE)
    if clusters.max(initial=-1) < len(STYLES):
        styles = {str(number): style for number, style in enumerate(STYLES)}
        groups = [group if group.muted else _styled(group, *styles[group.name]) for group in groups]
    called = {str(number): f"{number} {name}" for number, name in (names or {}).items()}
    return [replace(group, name=called.get(group.name, group.name)) for group in groups]


def by_value(values: Sequence[str]) -> list[Group]:
    """Group tracks by a manifest column's values, in order, with missing (empty) values last."""
    return _groups(np.asarray(values, dtype=str), "", "not given", MISSING)


def _styled(group: Group, color: str, marker: str) -> Group:
    return replace(group, color=color, marker=marker)


def _groups(
    values: np.ndarray, missing: int | str, missing_name: str, missing_style: tuple[str, str]
) -> list[Group]:
    """Group the rows of `values`; beyond the palette, the smallest groups share one."""
    distinct, codes = np.unique(values, return_inverse=True)
    counts = Counter({code: int(n) for code, n in enumerate(np.bincount(codes))})
    absent = {code for code in counts if distinct[code] == missing}
    for code in absent:
        del counts[code]
    shown = sorted(code for code, _ in counts.most_common(len(STYLES)))
    groups = [
        Group(str(distinct[code]), np.flatnonzero(codes == code), *style)
        for code, style in zip(shown, STYLES, strict=False)
    ]
    folded = sorted(counts.keys() - set(shown))
    if folded:
        rows = np.flatnonzero(np.isin(codes, folded))
        groups.append(Group(f"{len(folded)} others", rows, *OTHER, muted=True))
    for code in absent:
        rows = np.flatnonzero(codes == code)
        groups.append(Group(missing_name, rows, *missing_style, muted=True))
    return groups
