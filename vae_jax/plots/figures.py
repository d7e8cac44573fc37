"""Draws figures from arrays: scatter plots, heatmaps, silhouettes and training curves.

Every function returns a matplotlib `Figure` that belongs to the caller; `save` writes it. Nothing
here touches pyplot or any other global state of matplotlib.
"""

import functools
import os
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from vae_jax.plots.palette import Group
from vae_jax.plots.projections import Projection
from vae_jax.storage import files

Curve = tuple[np.ndarray, np.ndarray]  # steps and values

DPI = 150
FONTS = (  # in the order in which they are asked for a character
    "DejaVu Sans",
    *("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "SimHei", "NanumGothic", "Noto Sans Arabic", "Noto Naskh Arabic"),
    *("Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS"),
)
SCATTER_LAYERS = 10  # turns that markers take in a scatter plot
NAME_WIDTH = 18  # characters in a line of a name on a map
MOST_BARS = 2000  # in a cluster: a figure has fewer pixels, and each bar takes time
PANEL_TITLES = {
    "loss": "loss: negative ELBO (nats)",
    "reconstruction": "reconstruction (nats)",
    "kl": "KL to the prior (nats)",
    "active_units": "active latent units",
    "beta": "beta, the weight of the KL",
}
TRAIN_COLOR, EVAL_COLOR = "#0072B2", "#D55E00"
SPINE_COLOR = "#999999"


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, its texts in the installed fonts that have their characters.

    Characters that no font has are written in Latin ones.
    """
    for text in figure.findobj(Text):
        if not text.get_text().isascii():  # the search through many fonts takes time
            text.set_fontfamily(_font_families())
            text.set_text(readable(text.get_text(), _characters()))
        text.set_parse_math(False)  # artists may be called $uicideboy$
    with files.atomic_write(path) as file, warnings.catch_warnings():
        # A box stands for a character that no installed font has, and that has no Latin form.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        # What has a layout engine fills its figure; the rest is measured, which draws it twice.
        box = None if figure.get_layout_engine() else "tight"
        fast = {"compress_level": 2}  # four times as fast as the default, for a tenth more bytes
        figure.savefig(file, format="png", dpi=DPI, bbox_inches=box, pil_kwargs=fast)


def readable(text: str, characters: Collection[int]) -> str:
    """Write in Latin letters what is not among the characters (code points) that can be drawn."""
    from anyascii import anyascii

    return "".join(
        c if c.isascii() or ord(c) in characters or c.isspace() else anyascii(c) or c for c in text
    )


def scatter(
    projection: Projection,
    groups: Sequence[Group],
    legend: str,
    title: str,
    *,
    named: bool = False,
) -> Figure:
    """Scatter tracks over the plane, coloured by group; `legend` says what the groups are.

    `named` also writes each group's name in its midst.
    """
    total = len(projection.coordinates)
    width, height = np.ptp(projection.coordinates, axis=0) + 1e-9
    figure = Figure(figsize=(6.4, 6.4 * np.clip(height / width, 0.5, 1.2)))
    axes = figure.add_subplot()
    area = float(np.clip(15000 / total, 3.0, 42.0))  # points squared
    alpha = float(np.clip((5000 / total) ** 0.5, 0.15, 0.9))
    for marker, rows, colors in _layers(groups):
        points = projection.coordinates[rows]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=area,
            c=colors,
            marker=marker,
            alpha=alpha,
            linewidths=0.4 if area > 10 else 0.0,
            edgecolors="white",
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(projection.axes[0])
    axes.set_ylabel(projection.axes[1])
    if projection.method != "pca":  # whose coordinates have no unit
        axes.set_xticks([])
        axes.set_yticks([])
    plain(axes)
    axes.set_title(title, fontsize=10, loc="left")
    _legend(axes, groups, legend)
    if named:
        for group in groups:
            _write_name(axes, group, projection.coordinates)
    return figure


def heatmap(rows: Sequence[Group], columns: Sequence[Group], column: str, title: str) -> Figure:
    """Count the tracks of every cluster (row) with every value (column).

    Colours are shares of the row. The columns are in the order of the clusters that hold most of
    them, so that agreement shows as a diagonal.
    """
    counts = _cross_table(rows, columns)
    shares = counts / counts.sum(axis=1, keepdims=True)
    order = np.argsort(
        [len(rows) if group.muted else shares[:, j].argmax() for j, group in enumerate(columns)],
        kind="stable",
    )
    counts, shares = counts[:, order], shares[:, order]
    figure = Figure(figsize=(2.4 + 0.5 * len(columns), 1.6 + 0.36 * len(rows)))
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[i, j] > 0.55 else "black"
            axes.text(j, i, f"{count:,}", color=color, ha="center", va="center", fontsize=8)
    labels = [columns[j].label for j in order]
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [group.label for group in rows])
    axes.tick_params(length=0, labelsize=8)
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(column)
    axes.set_ylabel("cluster")
    axes.set_title(title, fontsize=10, loc="left")
    bar = figure.colorbar(image, ax=axes, label="share of the cluster", fraction=0.05, pad=0.03)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def silhouette(values: np.ndarray, groups: Sequence[Group], title: str) -> Figure:
    """Draw every track's silhouette [N], sorted within its cluster (Rousseeuw 1987).

    A silhouette is NaN if it was not computed; noise has none.
    """
    figure = Figure(figsize=(6.4, min(2.0 + 0.35 * len(groups), 9.0)))
    axes = figure.add_subplot()
    gap = max(1.0, 0.02 * np.isfinite(values).sum())
    ticks, labels, bottom = [], [], 0.0
    for group in groups:
        bars = -np.sort(-values[group.rows])
        bars = bars[np.isfinite(bars)]
        if not len(bars):
            continue
        edges = np.linspace(0, len(bars), min(len(bars), MOST_BARS) + 1)
        drawn = bars[((edges[:-1] + edges[1:]) / 2).astype(int)]
        axes.stairs(drawn, bottom + edges, orientation="horizontal", fill=True, color=group.color)
        ticks.append(bottom + len(bars) / 2)
        labels.append(group.label)
        bottom += len(bars) + gap
    mean = float(np.nanmean(values))
    axes.axvline(mean, color="black", linestyle="--", linewidth=1)
    axes.text(mean, -0.5 * gap, f" mean {mean:.2f}", fontsize=8, va="bottom")
    axes.axvline(0, color=SPINE_COLOR, linewidth=0.8)
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(bottom, -2.5 * gap)  # the first cluster on top
    axes.set_xlabel("silhouette (1: deep within its cluster, below 0: nearer to another)")
    axes.set_ylabel("cluster")
    axes.tick_params(axis="y", length=0)
    plain(axes)
    axes.set_title(title, fontsize=10, loc="left")
    return figure


def training_curves(curves: Mapping[str, Curve], title: str) -> Figure:
    """Draw metrics over steps, a panel for each.

    Parameters
    ----------
    curves
        Steps and values by name, such as "train/loss" and "eval/loss", which share a panel.
    """
    found = {name.split("/", 1)[-1] for name in curves}
    names = [*(name for name in PANEL_TITLES if name in found), *sorted(found - {*PANEL_TITLES})]
    width = min(3, len(names))
    height = -(-len(names) // width)
    figure = Figure(figsize=(3.6 * width, 0.5 + 2.5 * height), layout="constrained")
    panels = figure.subplots(height, width, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        if f"train/{name}" in curves:
            axes.plot(*curves[f"train/{name}"], color=TRAIN_COLOR, lw=1.2)
        if f"eval/{name}" in curves:
            axes.plot(*curves[f"eval/{name}"], color=EVAL_COLOR, marker="o", ms=3, lw=1.2)
        axes.set_title(PANEL_TITLES.get(name, name.replace("_", " ")), fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        plain(axes)
    for axes in panels[len(names) :]:
        axes.remove()
    handles = [
        Line2D([], [], color=TRAIN_COLOR, label="training"),
        Line2D([], [], color=EVAL_COLOR, marker="o", markersize=3, label="held-out tracks"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def plain(axes: Axes) -> None:
    """Leave only the left and bottom spines, in grey."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SPINE_COLOR)


def _layers(groups: Sequence[Group]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield markers, rows [n] and colours [n] in drawing order, so that no group hides another.

    Tracks of one marker are in random order, several markers take turns, and muted groups come
    first.
    """
    shuffle = np.random.default_rng(0).permutation
    for muted in (True, False):
        shown = [group for group in groups if group.muted == muted]
        parts = []
        for marker in dict.fromkeys(group.marker for group in shown):
            alike = [group for group in shown if group.marker == marker]
            rows = np.concatenate([group.rows for group in alike])
            colors = np.repeat([group.color for group in alike], [len(x.rows) for x in alike])
            order = shuffle(len(rows))
            parts.append((marker, rows[order], colors[order]))
        num_turns = SCATTER_LAYERS if len(parts) > 1 else 1
        for turn in range(num_turns):
            for marker, rows, colors in parts:
                yield marker, rows[turn::num_turns], colors[turn::num_turns]


def _legend(axes: Axes, groups: Sequence[Group], title: str) -> None:
    handles = [
        Line2D([], [], color=group.color, marker=group.marker, linestyle="", markersize=6)
        for group in groups
    ]
    legend = axes.legend(
        handles,
        [str(i) for i in range(len(groups))],
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        alignment="left",
        borderaxespad=0.0,
    )
    # Set afterwards, as a legend drops labels that begin with an underscore.
    for text, group in zip(legend.get_texts(), groups, strict=True):
        text.set_text(group.label)


def _write_name(axes: Axes, group: Group, coordinates: np.ndarray) -> None:
    """Write a group's name where the middle of its tracks is."""
    if group.muted:
        return
    x, y = np.median(coordinates[group.rows], axis=0)
    text = axes.text(x, y, "", ha="center", va="center", fontsize=7, fontweight="bold")
    text.set_text(textwrap.fill(group.short_name, NAME_WIDTH))
    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _cross_table(rows: Sequence[Group], columns: Sequence[Group]) -> np.ndarray:
    """Count the tracks in each pair of groups: int [rows, columns]."""
    total = sum(len(group.rows) for group in rows)
    row_of, column_of = np.zeros(total, int), np.zeros(total, int)
    for i, group in enumerate(rows):
        row_of[group.rows] = i
    for j, group in enumerate(columns):
        column_of[group.rows] = j
    counts = np.zeros((len(rows), len(columns)), int)
    np.add.at(counts, (row_of, column_of), 1)
    return counts


@functools.cache
def _characters() -> frozenset[int]:
    """Return the code points that the fonts have, without those that draw boxes for all others."""
    paths = (font_manager.findfont(name) for name in _font_families())
    return frozenset(code for path in paths for code in get_font(path).get_charmap())


@functools.cache
def _font_families() -> tuple[str, ...]:
    installed = set(font_manager.fontManager.get_font_names())
    return tuple(name for name in FONTS if name in installed)
