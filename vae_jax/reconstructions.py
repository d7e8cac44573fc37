"""Reads `reconstructions.npz` and draws it: inputs beside outputs, and latent traversals."""

import os
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax import files, plots
from vae_jax.errors import UserError

MAX_EXAMPLES = 6  # tracks in a figure
MAX_DIMENSIONS = 8  # latent dimensions in a figure
MAX_MARKERS = 64  # features; longer vectors are drawn as lines alone
INPUT_COLOR, OUTPUT_COLOR = "#0072B2", "#D55E00"
SPECTROGRAM_COLORS = "magma"
TICK_FREQUENCIES = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
MIN_TICK_DISTANCE = 0.1  # of the axis


@dataclass(frozen=True)
class Reconstructions:
    """What a model makes of some tracks.

    Attributes
    ----------
    ids
        Names of the tracks [n].
    inputs, outputs
        Vectors [n, D] or spectrograms in dB [n, T, F].
    traversals
        Decoded values [L, V, ...] of latent dimensions, or None.
    hop_seconds
        Time from a frame to the next, or None where unknown.
    mel_frequencies
        Centres of the mel bands in Hz [F], or None where unknown.
    """

    ids: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    traversals: np.ndarray | None = None
    hop_seconds: float | None = None
    mel_frequencies: np.ndarray | None = None

    @property
    def are_spectrograms(self) -> bool:
        """Whether a track is a spectrogram [T, F], not a vector [D]."""
        return self.inputs.ndim == 3


def read(path: str | os.PathLike) -> Reconstructions:
    """Read the arrays of `reconstructions.npz`, named like the attributes."""
    arrays = files.read_npz(path)
    try:
        ids, inputs, outputs = arrays["ids"], arrays["inputs"], arrays["outputs"]
    except KeyError as error:
        raise UserError(f"{path} has no array {error}: run --stage=embed again.") from error
    hop_seconds = arrays.get("hop_seconds")
    return Reconstructions(
        ids=ids,
        inputs=inputs,
        outputs=outputs,
        traversals=arrays.get("traversals"),
        hop_seconds=None if hop_seconds is None else float(hop_seconds),
        mel_frequencies=arrays.get("mel_frequencies"),
    )


def reconstruction_figure(data: Reconstructions, title: str) -> Figure:
    """Draw the first tracks' inputs beside (spectrograms) or under (vectors) their outputs."""
    draw = _spectrogram_pairs if data.are_spectrograms else _vector_pairs
    figure = draw(data, min(len(data.ids), MAX_EXAMPLES))
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def traversal_figure(data: Reconstructions, title: str) -> Figure:
    """Draw what the decoder makes of a latent dimension's values, from low to high."""
    if data.traversals is None:
        raise ValueError("there are no traversals")
    traversals = data.traversals[:MAX_DIMENSIONS]
    draw = _spectrogram_traversals if data.are_spectrograms else _vector_traversals
    figure = draw(data, traversals)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _spectrogram_pairs(data: Reconstructions, count: int) -> Figure:
    figure = Figure(figsize=(8.0, 0.6 + 1.7 * count), layout="constrained")
    grid = figure.subplots(count, 2, squeeze=False, sharex=True, sharey=True)
    for (left, right), id_, before, after in zip(
        grid, data.ids, data.inputs, data.outputs, strict=False
    ):
        limits = Normalize(*np.percentile(before, (1, 99.5)))
        _image(left, before, limits)
        _image(right, after, limits)
        error = np.sqrt(np.mean((after - before) ** 2))
        left.set_title(f"{_short(id_)}: input", fontsize=8, loc="left")
        right.set_title(f"output, RMS error {error:.1f} dB", fontsize=8, loc="left")
        _color_bar(data, figure, [left, right], limits)
    _label_grid(data, grid)
    return figure


def _vector_pairs(data: Reconstructions, count: int) -> Figure:
    figure, panels = _line_panels(count)
    features = data.inputs.shape[1]
    markers = ("o", "s") if features <= MAX_MARKERS else ("", "")
    for axes, id_, before, after in zip(panels, data.ids, data.inputs, data.outputs, strict=False):
        axes.plot(before, color=INPUT_COLOR, marker=markers[0], ms=3, lw=1, label="input")
        axes.plot(after, color=OUTPUT_COLOR, marker=markers[1], ms=3, lw=1, label="output")
        error = np.sqrt(np.mean((after - before) ** 2))
        axes.set_title(f"{_short(id_)}: RMS error {error:.2f}", fontsize=8, loc="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    figure.supylabel("value", fontsize=9)
    return figure


def _spectrogram_traversals(data: Reconstructions, traversals: np.ndarray) -> Figure:
    rows, columns = traversals.shape[:2]
    figure = Figure(figsize=(1.2 + 1.4 * columns, 0.8 + 1.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    limits = Normalize(*np.percentile(traversals, (1, 99.5)))
    for i, j in np.ndindex(rows, columns):
        _image(grid.item(i, j), traversals[i, j], limits)
    for i in range(rows):
        grid[i, 0].set_title(f"dimension {i + 1}, from low to high", fontsize=8, loc="left")
    _color_bar(data, figure, list(grid.flat), limits)
    _label_grid(data, grid)
    return figure


def _vector_traversals(data: Reconstructions, traversals: np.ndarray) -> Figure:
    count, values = traversals.shape[:2]
    figure, panels = _line_panels(count)
    colors = ScalarMappable(Normalize(0, values - 1), "viridis")
    palette = colors.to_rgba(np.arange(values))
    for i, (axes, decoded) in enumerate(zip(panels, traversals, strict=True), 1):
        for line, color in zip(decoded, palette, strict=True):
            axes.plot(line, color=color, linewidth=1)
        axes.set_title(f"dimension {i}", fontsize=8, loc="left")
    bar = figure.colorbar(colors, ax=panels, pad=0.01, aspect=30)
    bar.set_ticks([0, values - 1], labels=["low", "high"])
    bar.ax.tick_params(labelsize=8)
    bar.set_label("latent value", fontsize=9)
    bar.outline.set_visible(False)
    figure.supylabel("decoded value", fontsize=9)
    return figure


def _line_panels(count: int) -> tuple[Figure, list[Axes]]:
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
        plots.plain(axes)
    for axes in panels[-columns:]:  # the last of each column, also above a removed one
        axes.tick_params(labelbottom=True)
    figure.supxlabel("feature", fontsize=9)
    return figure, panels


def _image(axes: Axes, spectrogram: np.ndarray, limits: Normalize) -> None:
    axes.imshow(
        spectrogram.T,
        origin="lower",
        aspect="auto",
        cmap=SPECTROGRAM_COLORS,
        norm=limits,
        interpolation="nearest",
    )
    axes.tick_params(labelsize=7)


def _color_bar(
    data: Reconstructions, figure: Figure, panels: list[Axes], limits: Normalize
) -> None:
    bar = figure.colorbar(ScalarMappable(limits, SPECTROGRAM_COLORS), ax=panels, pad=0.01)
    bar.set_label("value" if data.mel_frequencies is None else "dB", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _label_grid(data: Reconstructions, grid: np.ndarray) -> None:
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
        name = "feature" if data.mel_frequencies is None else "frequency (Hz)"
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
