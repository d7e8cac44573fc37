"""Draws `reconstructions.npz`: inputs beside outputs, and latent traversals.

Log-mel spectrograms are drawn in dB. Other features are drawn in standard deviations from their
mean in the collection, since the first few would dwarf the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.embedding.reconstructions import Reconstructions
from vae_jax.plots import figures

MAX_MARKERS = 64  # features; longer vectors are drawn as lines alone
INPUT_COLOR, OUTPUT_COLOR = "#0072B2", "#D55E00"
SPECTROGRAM_COLORS, CHANGE_COLORS = "magma", "RdBu_r"
TICK_FREQUENCIES = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
MIN_TICK_DISTANCE = 0.1  # of the axis


@dataclass(frozen=True)
class FeatureAxis:
    """What the features of a vector, or the bands of a spectrogram, are.

    Attributes
    ----------
    parts
        Names and sizes of what they consist of, in order.
    """

    parts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, feature: Mapping[str, Any], size: int) -> "FeatureAxis":
        """Describe what `config.feature` makes, if it is of that size."""
        name = feature["audio_feature"] if feature["name"] == "hybrid" else feature["name"]
        coefficients = f"MFCC 0 to {feature['n_mfcc'] - 1}"
        described = ["mean", "deviation", "mean change", "deviation of changes"]
        number = 4 if feature["deltas"] else 2
        known = {
            "mfcc": [(f"{what}, {coefficients}", feature["n_mfcc"]) for what in described[:number]],
            "mfcc_frames": [(coefficients, feature["n_mfcc"])],
            "lyrics_tfidf": [("component of the lyrics", size)],
            "embedding": [("dimension of the embedding", size)],
            "musicnn": [("dimension of MusiCNN", size)],
        }.get(name, [])
        if sum(length for _, length in known) != size:
            return UNKNOWN
        return cls(tuple(known))

    @property
    def name(self) -> str:
        """The name of all parts together."""
        return "; ".join(name for name, _ in self.parts)


UNKNOWN = FeatureAxis((("feature", 0),))


def reconstruction_figure(data: Reconstructions, title: str, axis: FeatureAxis = UNKNOWN) -> Figure:
    """Draw the tracks' inputs beside (spectrograms) or under (vectors) their outputs."""
    draw = _spectrogram_pairs if data.are_spectrograms else _vector_pairs
    figure = draw(data, axis)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def traversal_figure(
    data: Reconstructions,
    title: str,
    axis: FeatureAxis = UNKNOWN,
    names: Mapping[int, str] = MappingProxyType({}),
) -> Figure:
    """Draw what the decoder makes of a latent dimension's values, from low to high.

    `names` says what becomes more as a dimension grows, such as "faster", where that is known.
    """
    if data.traversals is None or data.dimensions is None or data.values is None:
        raise ValueError("there are no traversals")
    draw = _spectrogram_traversals if data.are_spectrograms else _vector_traversals
    figure = draw(data, _drawn(data, data.traversals), data.dimensions, data.values, axis, names)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _spectrogram_pairs(data: Reconstructions, axis: FeatureAxis) -> Figure:
    """Draw two tracks in a row; each track's input and output share their colours."""
    count = len(data.ids)
    rows, columns = -(-count // 2), min(2, count)
    figure = Figure(figsize=(6.0 * columns, 0.6 + 1.7 * rows), layout="constrained")
    grid = figure.subplots(rows, 2 * columns, squeeze=False, sharex=True, sharey=True)
    pairs = grid.reshape(-1, 2)
    inputs, outputs = _drawn(data, data.inputs), _drawn(data, data.outputs)
    for (left, right), id_, before, after in zip(
        pairs[:count], data.ids, inputs, outputs, strict=True
    ):
        limits = Normalize(*np.percentile(before, (1, 99.5)))
        _image(left, before, limits)
        _image(right, after, limits)
        left.set_title(_short(id_), fontsize=8, loc="left")
        right.set_title(f"output, {_error(data, before, after)}", fontsize=8, loc="left")
        _color_bar(figure, [left, right], limits, _unit(data))
    for axes in pairs[count:].flat:
        axes.remove()
    _label_grid(data, grid, axis)
    return figure


def _vector_pairs(data: Reconstructions, axis: FeatureAxis) -> Figure:
    figure, panels = _line_panels(len(data.ids), axis)
    inputs, outputs = _drawn(data, data.inputs), _drawn(data, data.outputs)
    markers = ("o", "s") if inputs.shape[1] <= MAX_MARKERS else ("", "")
    for axes, id_, before, after in zip(panels, data.ids, inputs, outputs, strict=True):
        axes.plot(before, color=INPUT_COLOR, marker=markers[0], ms=3, lw=1, label="input")
        axes.plot(after, color=OUTPUT_COLOR, marker=markers[1], ms=3, lw=1, label="output")
        error = _error(data, before, after)
        axes.set_title(f"{_short(id_)}: {error}", fontsize=8, loc="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    figure.supylabel(_unit(data), fontsize=9)
    return figure


def _spectrogram_traversals(
    data: Reconstructions,
    traversals: np.ndarray,
    dimensions: np.ndarray,
    values: np.ndarray,
    axis: FeatureAxis,
    names: Mapping[int, str],
) -> Figure:
    """Draw how the output changes from that of the middle value, which is left out."""
    middle = traversals.shape[1] // 2
    changes = np.delete(traversals - traversals[:, [middle]], middle, axis=1)
    values = np.delete(values, middle, axis=1)
    rows, columns = changes.shape[:2]
    figure = Figure(figsize=(1.2 + 1.6 * columns, 0.8 + 1.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    largest = np.percentile(np.abs(changes), 99.5) or 1.0
    limits = Normalize(-largest, largest)
    for i, j in np.ndindex(rows, columns):
        axes = grid.item(i, j)
        _image(axes, changes[i, j], limits, CHANGE_COLORS)
        title = f"{values[i, j]:.2f}"
        if j == 0:
            name = names.get(int(dimensions[i]))
            title = (f"{name}\n" if name else "") + f"latent {dimensions[i]} at {title}"
        axes.set_title(title, fontsize=8, loc="left")
    what = f"change from the mean latent's output ({_unit(data)})"
    _color_bar(figure, list(grid.flat), limits, what, CHANGE_COLORS)
    _label_grid(data, grid, axis)
    return figure


def _vector_traversals(
    data: Reconstructions,
    traversals: np.ndarray,
    dimensions: np.ndarray,
    values: np.ndarray,
    axis: FeatureAxis,
    names: Mapping[int, str],
) -> Figure:
    figure, panels = _line_panels(len(traversals), axis)
    colors = ScalarMappable(Normalize(0, values.shape[1] - 1), "viridis")
    palette = colors.to_rgba(np.arange(values.shape[1]))
    for axes, decoded, dimension, steps in zip(panels, traversals, dimensions, values, strict=True):
        for line, color in zip(decoded, palette, strict=True):
            axes.plot(line, color=color, linewidth=1)
        name = names.get(int(dimension))
        called = f"latent {dimension}" + (f" ({name})" if name else "")
        title = f"{called} from {steps[0]:.2f} to {steps[-1]:.2f}"
        axes.set_title(title, fontsize=8, loc="left")
    bar = figure.colorbar(colors, ax=panels, pad=0.01, aspect=30)
    bar.set_ticks([0, values.shape[1] - 1], labels=["low", "high"])
    bar.ax.tick_params(labelsize=8)
    bar.set_label("latent value", fontsize=9)
    bar.outline.set_visible(False)
    figure.supylabel(_unit(data), fontsize=9)
    return figure


def _drawn(data: Reconstructions, x: np.ndarray) -> np.ndarray:
    """Return features as they are drawn."""
    return x if data.mel_frequencies is not None else (x - data.center) / data.scale


def _unit(data: Reconstructions) -> str:
    return "dB" if data.mel_frequencies is not None else "standard deviations"


def _error(data: Reconstructions, before: np.ndarray, after: np.ndarray) -> str:
    unit = " dB" if data.mel_frequencies is not None else ""
    return f"RMS error {np.sqrt(np.mean((after - before) ** 2)):.2f}{unit}"


def _line_panels(count: int, axis: FeatureAxis) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels, two in a row, over the same features."""
    rows, columns = -(-count // 2), min(2, count)
    figure = Figure(figsize=(4.6 * columns, 0.6 + 1.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    panels, surplus = list(grid.flat)[:count], list(grid.flat)[count:]
    for axes in surplus:
        axes.remove()
    for axes in panels:
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        figures.plain(axes)
    for axes in panels[-columns:]:  # the last of each column, also above a removed one
        axes.tick_params(labelbottom=True)
    _label_parts(figure, panels, axis)
    return figure, panels


def _label_parts(figure: Figure, panels: list[Axes], axis: FeatureAxis) -> None:
    """Name the features below the panels, and part them by lines in each."""
    if len(axis.parts) == 1:
        figure.supxlabel(axis.name, fontsize=9)
        return
    ends = np.cumsum([size for _, size in axis.parts])
    for axes in panels:
        for end in ends[:-1]:
            axes.axvline(end - 0.5, color=figures.SPINE_COLOR, linewidth=0.8)
        axes.set_xticks(ends - np.diff(ends, prepend=0) / 2 - 0.5)
        axes.set_xticklabels([name.replace(", ", "\n") for name, _ in axis.parts], fontsize=7)


def _image(
    axes: Axes, spectrogram: np.ndarray, limits: Normalize, colors: str = SPECTROGRAM_COLORS
) -> None:
    axes.imshow(
        spectrogram.T,
        origin="lower",
        aspect="auto",
        cmap=colors,
        norm=limits,
        interpolation="nearest",
    )
    axes.tick_params(labelsize=7)


def _color_bar(
    figure: Figure,
    panels: list[Axes],
    limits: Normalize,
    label: str,
    colors: str = SPECTROGRAM_COLORS,
) -> None:
    aspect = 20 if len(panels) == 2 else 40  # beside a pair, or beside the whole grid
    bar = figure.colorbar(ScalarMappable(limits, colors), ax=panels, pad=0.01, aspect=aspect)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _label_grid(data: Reconstructions, grid: np.ndarray, axis: FeatureAxis) -> None:
    """Label the outer axes of a grid of spectrograms in seconds and Hz, where these are known."""
    num_frames = data.inputs.shape[1]
    bottom, left = grid[-1], grid[:, 0]
    if data.hop_seconds is not None:
        seconds = _round_ticks(num_frames * data.hop_seconds)
        bottom[0].set_xticks(seconds / data.hop_seconds - 0.5, [f"{s:g}" for s in seconds])
    if data.mel_frequencies is not None:
        ticks = _frequency_ticks(data.mel_frequencies)
        left[0].set_yticks(list(ticks), [f"{hertz:,}" for hertz in ticks.values()])
    for axes in bottom:
        axes.set_xlabel("frame" if data.hop_seconds is None else "time (s)", fontsize=8)
    for axes in left:
        name = axis.name if data.mel_frequencies is None else "frequency (Hz)"
        axes.set_ylabel(name, fontsize=8)


def _frequency_ticks(mel_frequencies: np.ndarray) -> dict[float, int]:
    """Return round frequencies by their band, without those too near to the one below."""
    bands = np.interp(
        TICK_FREQUENCIES, mel_frequencies, np.arange(len(mel_frequencies)), left=-1, right=-1
    )
    ticks: dict[float, int] = {}
    last = -np.inf
    for band, hertz in zip(bands, TICK_FREQUENCIES, strict=True):
        if band >= 0 and band - last >= MIN_TICK_DISTANCE * len(mel_frequencies):
            ticks[band] = hertz
            last = band
    return ticks


def _round_ticks(length: float) -> np.ndarray:
    ticks = np.asarray(MaxNLocator(5).tick_values(0, length))
    return ticks[(ticks >= 0) & (ticks <= length)]


def _short(id_: str) -> str:
    return id_ if len(id_) <= 40 else "…" + id_[-39:]
