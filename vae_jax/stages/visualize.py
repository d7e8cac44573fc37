"""Draws a run: latents and baselines on the plane, clusters against labels, and the training.

Reads what the other stages left under the output folder, writes `latent_visualization/*.png` and
the plotted coordinates as `latent_visualization/<method>_<projection>.csv`. Of the baselines, all
but their clusters on the map is in `latent_visualization/more/`. `main` calls `run`.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging
from matplotlib.figure import Figure

from vae_jax import config as config_lib
from vae_jax import history as history_lib
from vae_jax.console import Progress
from vae_jax.embedding import reconstructions
from vae_jax.embedding.latents import Latents
from vae_jax.errors import UserError
from vae_jax.manifest import Manifest
from vae_jax.plots import figures, palette, projections
from vae_jax.plots.reconstructions import FeatureAxis, reconstruction_figure, traversal_figure
from vae_jax.reasons import explain
from vae_jax.run import CLUSTER_NAMES, CLUSTERS, MAPS, MORE, REASONS, TRAIN_METRICS, Run
from vae_jax.stages.up_to_date import hashes, unless_up_to_date
from vae_jax.storage import files
from vae_jax.training import history

MIXTURE = "mixture"  # of the VAE's prior, whose clusters are drawn on the VAE's map
Plots = dict[str, Callable[[], Figure]]  # by file name, drawn when it is their turn


@dataclass(frozen=True)
class Method:
    """A way to embed tracks, as the plots show it.

    Attributes
    ----------
    name
        The name in file names, such as "vae".
    title
        The name in titles, such as "VAE latents".
    prefix
        What its columns in `clusters.csv` begin with: <prefix>cluster and <prefix>silhouette.
    marks
        What every title says of it: that it has seen labels, or who trained its features.
    """

    name: str
    title: str
    prefix: str = ""
    marks: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What follows titles."""
        return f" ({', '.join(self.marks)})" if self.marks else ""

    @classmethod
    def baseline(cls, name: str, title: str, marks: tuple[str, ...] = ()) -> "Method":
        """Describe a baseline by where `baselines` and `clustering` keep its results."""
        return cls(name, title, f"{name}_", marks)


def update(run: Run) -> bool:
    """Draw the latents, the clusters and the training curves."""
    config = config_lib.to_dict(run.config)
    inputs = [*run.embeddings(), run.outdir / CLUSTERS]
    optional = [run.outdir / name for name in (TRAIN_METRICS, reconstructions.FILE, REASONS)]
    made_from = [
        hashes(inputs, "cluster"),
        [files.sha256(path) if path.exists() else None for path in optional],
        [*(config[key] for key in ("visualize", "seed")), run.baselines],
        [
            run.manifest.ids,
            *(
                run.manifest.labels(name, run.manifest.ids)
                for name in config["visualize"]["color_by"]
            ),
        ],
    ]
    followed = [*sorted((run.previous / MAPS).glob("*.csv"))] if run.previous else []
    if also := [path for path in (run.outdir / CLUSTER_NAMES, *followed) if path.exists()]:
        made_from.append([files.sha256(path) for path in also])

    return unless_up_to_date(run, "visualize", made_from, lambda: visualize(run))


def visualize(run: Run) -> list[Path]:
    """Draw everything that there is data for, of a run whose embeddings are clustered.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If the results of an earlier stage are missing, damaged or of other tracks.
    """
    outdir, manifest, methods = run.outdir, run.manifest, _methods(run)
    shown, _, _ = _held(run, methods[0])
    clusters = _ClusterTable(outdir / "clusters.csv", shown)
    written: list[Path] = []
    todo: Plots = {}
    with Progress("projections", len(methods), "methods") as progress:
        for done, method in enumerate(methods, 1):
            table, method_plots = _method_plots(run, method, clusters, manifest)
            written.append(table)
            todo |= method_plots
            progress.update(done)
    todo |= _model_plots(run, methods[0])
    for column in sorted({*run.config.visualize.color_by} - {run.config.cluster.label}):
        if told := manifest.folding(column).told():  # the label's are listed with the scores
            logging.info("labels: folded in %r: %s", column, told)
    with Progress("plots", len(todo), "plots") as progress:
        for done, (name, draw) in enumerate(todo.items(), 1):
            path = outdir / MAPS / f"{name}.png"
            figures.save(draw(), path)
            written.append(path)
            progress.update(done)
    return written


def _methods(run: Run) -> list[Method]:
    """Return the model first, then the baselines."""
    titles = config_lib.BASELINE_TITLES
    return [
        Method("vae", "VAE latents", marks=_marks(run, "vae")),
        *(Method.baseline(name, titles[name], _marks(run, name)) for name in run.baselines),
    ]


def _marks(run: Run, method: str) -> tuple[str, ...]:
    elsewhere = config_lib.TRAINED_ELSEWHERE.get(run.config.feature.name)
    supervised = "supervised" if method in run.supervised else None
    return tuple(mark for mark in (supervised, elsewhere) if mark)


def _method_plots(
    run: Run, method: Method, clusters: "_ClusterTable", manifest: Manifest
) -> tuple[Path, Plots]:
    """Project a method's embedding; return the coordinates' file and the plots to draw."""
    ids, latents, total = _held(run, method)
    settings = run.config.visualize
    projection = projections.project(
        latents,
        settings.method,
        seed=run.config.seed,
        n_neighbors=settings.n_neighbors,
        min_dist=settings.min_dist,
        perplexity=settings.perplexity,
        before=_earlier(run, f"{method.name}_{settings.method}", ids),
    )
    view = f"{method.name}_{projection.method}"
    table = run.outdir / MAPS / f"{view}.csv"
    _write_coordinates(table, ids, projection.coordinates)

    space = f"{method.title} ({latents.shape[1]}-d){method.mark}"
    n = f"n = {len(ids):,}" + (f" of {total:,}" if total > len(ids) else "")
    todo: Plots = {}
    rarely = f"{MORE}/" if method.prefix else ""

    def add_scatter(
        suffix: str, groups: list[palette.Group], what: str, named: bool = False
    ) -> None:
        title = f"{space}, {projection.title}, coloured by {what}, {n}"
        folder = "" if suffix == "clusters" else rarely
        todo[f"{folder}{view}_{suffix}"] = functools.partial(
            figures.scatter, projection, groups, what, title, named=named
        )

    by_value = {
        column: palette.by_value(values)
        for column, values in _color_columns(manifest, settings.color_by, ids).items()
    }
    labels = clusters.clusters(f"{method.prefix}cluster", ids)
    if labels is not None:
        names = explain.names(run.outdir, method.name)
        by_cluster = palette.by_cluster(labels, names)
        add_scatter("clusters", by_cluster, "cluster", named=True)
        for column, groups in by_value.items():
            title = f"{space}, {column} by cluster, {n}"
            todo[f"{rarely}{method.name}_clusters_by_{_file_name(column)}"] = functools.partial(
                figures.heatmap, by_cluster, groups, column, title
            )
        silhouettes = clusters.numbers(f"{method.prefix}silhouette", ids)
        if silhouettes is not None:
            title = f"{space}, silhouettes, n = {np.isfinite(silhouettes).sum():,}"
            todo[f"{rarely}{method.name}_silhouette"] = functools.partial(
                figures.silhouette, silhouettes, by_cluster, title
            )
    for column, groups in by_value.items():
        add_scatter(f"by_{_file_name(column)}", groups, column)
    components = None if method.prefix else clusters.clusters(f"{MIXTURE}_cluster", ids)
    if components is not None:
        groups = palette.by_cluster(components, explain.names(run.outdir, MIXTURE))
        add_scatter(MIXTURE, groups, "cluster of its mixture", named=True)
    return table, todo


def _earlier(run: Run, view: str, ids: Sequence[str]) -> np.ndarray | None:
    """Return where tracks were on the map of the run that this one follows, [N, 2], or NaN."""
    if not run.previous:
        return None
    places = history_lib.coordinates(run.previous, view)
    return np.array([places.get(id_, (np.nan, np.nan)) for id_ in ids])


def _color_columns(
    manifest: Manifest, columns: Sequence[str], ids: Sequence[str]
) -> dict[str, list[str]]:
    """Return the columns that tell tracks apart, each once: label and genre are often equal."""
    chosen: dict[str, list[str]] = {}
    for column in columns:
        values = manifest.labels(column, ids)
        if len({*values} - {""}) >= 2 and values not in chosen.values():
            chosen[column] = values
    return chosen


def _model_plots(run: Run, model: Method) -> Plots:
    """Return the plots of the model's training and of what it reconstructs."""
    todo, outdir = Plots(), run.outdir
    curves = _curves(history.read(outdir / history.FILE))
    if curves:
        title = f"Training{model.mark}"
        todo["training_curves"] = functools.partial(figures.training_curves, curves, title)
    decoded = outdir / reconstructions.FILE
    if decoded.exists():
        data = reconstructions.read(decoded)
        axis = FeatureAxis.of(run.config.feature, data.inputs.shape[-1])
        title = f"Inputs and reconstructions{model.mark}, n = {len(data.ids)}"
        todo["reconstructions"] = functools.partial(reconstruction_figure, data, title, axis)
        if data.traversals is not None:
            title, names = f"Latent traversals{model.mark}", explain.dimensions(outdir)
            todo["traversals"] = functools.partial(traversal_figure, data, title, axis, names)
    return todo


class _ClusterTable:
    """The columns of `clusters.csv` for the tracks that are shown, in any order."""

    def __init__(self, path: Path, shown: Sequence[str]) -> None:
        self._path = path
        if not path.exists():
            raise UserError(f"{path} does not exist: run --stage=cluster first.")
        wanted, rows = {*shown}, files.iterate_csv(path)
        self._rows = {row["id"]: row for row in rows if row.get("id") in wanted}

    def clusters(self, name: str, ids: Sequence[str]) -> np.ndarray | None:
        """Return cluster ids [N], or None where the column is missing or empty."""
        values = self.numbers(name, ids)
        if values is None:
            return None
        if not np.isfinite(values).all():
            where = ids[int(np.flatnonzero(~np.isfinite(values))[0])]
            raise UserError(
                f"{self._path} has no {name} for the track {where!r}: run --stage=cluster again."
            )
        return values.astype(int)

    def numbers(self, name: str, ids: Sequence[str]) -> np.ndarray | None:
        """Return numbers [N], NaN in empty cells, or None where there are none at all."""
        try:
            cells = [self._rows[id_].get(name) for id_ in ids]
            values = np.array([float(cell) if cell else np.nan for cell in cells])
        except KeyError as error:
            raise UserError(
                f"{self._path} lacks the track {error}: run --stage=cluster again."
            ) from error
        except ValueError as error:
            raise UserError(
                f"{self._path} is damaged (column {name}: {error}): run --stage=cluster again."
            ) from error
        return values if np.isfinite(values).any() else None


def _held(run: Run, method: Method) -> tuple[list[str], np.ndarray, int]:
    """Return the ids and the latents [n, L] that are shown, and the number of all tracks."""
    latents = Latents(run.embedding(method.name))
    positions, points = latents.held(projections.FIT_SAMPLE, run.config.seed)
    return latents.ids[positions].tolist(), points, len(latents)


def _curves(lines: Sequence[Mapping[str, float]]) -> dict[str, figures.Curve]:
    """Return the finite values of every metric by step, without metrics that are always 0.

    Rates are left out: they are the machine's, and no two runs would draw the same picture.
    """
    names = dict.fromkeys(
        name for line in lines for name in line if name not in ("step", history.RATE)
    )
    points = {name: [line for line in lines if line.get(name) is not None] for name in names}
    return {
        name: (np.array([x["step"] for x in chosen]), np.array([x[name] for x in chosen]))
        for name, chosen in points.items()
        if any(x[name] for x in chosen)
    }


def _write_coordinates(path: Path, ids: Sequence[str], coordinates: np.ndarray) -> None:
    rows = (
        {"id": id_, "x": f"{x:.6g}", "y": f"{y:.6g}"}
        for id_, (x, y) in zip(ids, coordinates, strict=True)
    )
    files.write_csv(path, ("id", "x", "y"), rows)


def _file_name(column: str) -> str:
    return re.sub(r"[^\w.-]+", "_", column)
