"""Measures whether VAEs find structure in a collection that linear methods do not.

python -m benchmarks.quality --manifest=PATH/metadata.csv [--manifest=...] --label=genre
    --outdir=DIR [--seeds=10] [--with=musicnn]

Every method is clustered by k-means into as many clusters as there are labels, once per seed. A
model is trained anew with each seed, all of them side by side. The reference alone is chosen by
label: it is the best of raw features, PCA and PLDA, which makes the comparison harder. If there are
artists, each track's neighbours are searched for tracks by the same artist.

Writes `quality.csv` (a row per method and seed), `quality.md` and `quality.png`. Trained models
stay in the folder: a run that was stopped continues, and a second one only scores. With several
collections, each has a folder in it, named like its own.

With --with=musicnn, raw features, PCA, PLDA and the track VAE are also measured on features that a
network has learned elsewhere from tags (`vae-jax download musicnn`). They are never the reference.
"""

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import hybrid, mlp, track
from vae_jax import manifest
from vae_jax.config import TRAINED_ELSEWHERE
from vae_jax.embedding import baselines
from vae_jax.embedding.latents import Latents
from vae_jax.errors import UserError
from vae_jax.run import Run
from vae_jax.stages import runner
from vae_jax.storage import files

LINEAR = (  # of MFCC frames: mean, std and mean |change|; without the last; what `track` sees
    *("raw", "PCA", "PCA whitened", "raw, no change", "PCA, no change"),
    *("raw, modulation", "PCA, modulation", "PLDA"),
)
RAW_OF = {"track VAE": "raw", "VAE": "raw, no change"}  # whose raw features they are
ELSEWHERE = f"on MusiCNN ({TRAINED_ELSEWHERE['musicnn']})"  # in the names of methods
PCA_SIZE = 16  # the best of 8 to 60 on gtzan_mini, and what the MLPs have
DRAWS = 500  # of the bootstrap
Embedded = dict[str, tuple[np.ndarray, list[np.ndarray]]]  # method -> ids [N], points by seed
# Column -> title.
METRICS = {
    **{"ami": "AMI", "nmi": "NMI", "ari": "ARI", "accuracy": "accuracy", "purity": "purity"},
    **{"silhouette": "silhouette", "common_silhouette": "common silhouette"},
    **{"artist_precision_at_1": "artist P@1", "artist_mean_average_precision": "artist MAP"},
}
COMPARED = ("ami", "accuracy")  # with an interval of the difference to the reference
CHANCE = {
    **{"ami": "ami_null", "nmi": "nmi_null", "accuracy": "accuracy_null", "purity": "majority"},
    "artist_precision_at_1": "artist_precision_at_1_chance",
    "artist_mean_average_precision": "artist_mean_average_precision_chance",
}


@dataclass(frozen=True)
class Method:
    """One representation of the tracks, clustered with every seed.

    Attributes
    ----------
    spaces
        The tracks' points for each seed, [N, L] each.
    labels
        Their clusters for each seed, [R, N].
    rows
        Their scores for each seed.
    """

    spaces: list[np.ndarray]
    labels: np.ndarray
    rows: list[dict[str, Any]]

    def mean(self, column: str) -> float:
        """Return a score's mean over the seeds; NaN where it is undefined."""
        return float(np.mean([row[column] for row in self.rows]))


def main(path: str, label: str, outdir: Path, num_seeds: int, with_musicnn: bool = False) -> str:
    """Run the benchmark, write its three files, and return the table."""
    if num_seeds < 1:
        raise UserError(f"--seeds is {num_seeds}, but must be 1 or more.")
    tracks = manifest.read(path, requires=[label])
    with_lyrics = any(tracks.columns.get("lyrics", ()))
    k = len({*tracks.columns[label]} - {""})
    if k < 2:
        raise UserError(f"{path}: column {label!r} has {k} labels, but comparing needs 2 or more.")
    found = _embed(path, outdir, num_seeds, with_lyrics)
    if with_musicnn:
        found |= _embed_elsewhere(path, outdir, num_seeds)
    ids, spaces = _shared(found)
    classes = np.array(tracks.labels(label, ids.tolist()))
    artists = np.array(tracks.labels("artist", ids.tolist()))
    methods = {
        name: score(name, points, spaces["raw"][0], classes, artists, k)
        for name, points in spaces.items()
    }
    reference = max(
        (name for name in methods if name in LINEAR),
        key=lambda name: methods[name].mean("ami"),
    )
    intervals = bootstrap(
        {name: method.labels for name, method in methods.items()}, reference, classes
    )
    rows = [row for method in methods.values() for row in method.rows]
    files.write_csv(outdir / "quality.csv", list(rows[0]), rows)
    heading = (
        f"{Path(path).absolute().parent.name}: {len(ids)} tracks, "
        f"{int((classes != '').sum())} of them with a {label}; k-means, k={k}, {num_seeds} seeds"
    )
    text = table(methods, reference, intervals, heading)
    with files.atomic_write(outdir / "quality.md") as file:
        file.write(text.encode())
    _draw(methods, reference, heading, outdir / "quality.png")
    return text


def bootstrap(
    labels: Mapping[str, np.ndarray], reference: str, classes: np.ndarray
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the 95% interval of each method's difference to the reference, by metric.

    Each of `DRAWS` draws takes tracks with replacement, the same for all methods, and averages
    the difference over the seeds (Efron and Tibshirani 1993, section 13.3). The interval says how
    much other tracks from the same source would change the difference.

    Parameters
    ----------
    labels
        Clusters of the tracks with each seed, [R, N], by method.
    reference
        The method to compare with.
    classes
        [N]; tracks with an empty string are left out.
    """
    rng, (labelled,) = np.random.default_rng(0), np.nonzero(classes != "")
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in labels}
    for _ in range(DRAWS):
        drawn = rng.choice(labelled, len(labelled))
        for name, found in labels.items():
            scores = [_agreement(classes[drawn], one[drawn]) for one in found]
            values[name].append(tuple(np.mean(scores, axis=0)))
    intervals = {}
    for name, own in values.items():
        difference = np.array(own) - np.array(values[reference])
        low, high = np.quantile(difference, (0.025, 0.975), axis=0)
        intervals[name] = dict(zip(COMPARED, zip(low, high, strict=True), strict=True))
    return intervals


def table(
    methods: Mapping[str, Method],
    reference: str,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]],
    heading: str,
) -> str:
    """Lay the results out as Markdown."""
    columns = [name for name in METRICS if not math.isnan(methods[reference].mean(name))]
    titles = [METRICS[name] for name in columns]
    titles += [f"{METRICS[name]} - {reference}" for name in COMPARED]
    lines = [["method", "size", *titles], ["---"] * (len(titles) + 2)]
    for name, method in methods.items():
        cells = [name, str(method.spaces[0].shape[1])]
        for column in columns:
            std = np.std([row[column] for row in method.rows], ddof=min(1, len(method.rows) - 1))
            cells.append(f"{method.mean(column):.3f} ± {std:.3f}")
        for column in COMPARED:
            low, high = intervals[name][column]
            difference = method.mean(column) - methods[reference].mean(column)
            same = name == reference
            cells.append("" if same else f"{difference:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(cells)
    chance = {name: methods[reference].mean(column) for name, column in CHANCE.items()}
    cells = [f"{chance[name]:.3f}" if name in chance else "" for name in columns]
    lines.append(["chance", "", *cells, *[""] * len(COMPARED)])
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"{heading}.\n\n{body}\n\n"
        "Mean ± standard deviation over seeds, each a training and a start of k-means. "
        f"Differences to {reference}, which has the highest AMI of raw features, PCA and PLDA, "
        "with 95% intervals of a paired bootstrap over tracks. Chance: permuted labels; for "
        "purity, the commonest label. Common silhouette: in the raw features.\n"
    )


def _embed(path: str, outdir: Path, num_seeds: int, with_lyrics: bool) -> Embedded:
    """Train every model with every seed; return the ids [N] and each method's points by seed."""
    configs = models(with_lyrics)
    found: Embedded = {}
    for name, config in configs.items():
        peers = ("raw", "plda") if name == "track VAE" else ("raw",)
        run = _train(name, config, path, outdir, num_seeds, peers)
        found[name] = read(run.embedding("vae"), num_seeds)
        if "plda" in peers:
            found["PLDA"] = read(run.embedding("plda"), num_seeds)
        if name in RAW_OF:
            found[RAW_OF[name]] = read(run.embedding("raw"), num_seeds)
    ids, points = _descriptions(configs["track VAE"])
    found["raw, modulation"] = ids, [points] * num_seeds
    for suffix in ("", ", no change", ", modulation"):
        found[f"PCA{suffix}"] = _reduced(found[f"raw{suffix}"])
    ids, spaces = found["PCA"]
    found["PCA whitened"] = ids, [_whiten(points) for points in spaces]
    return {name: found[name] for name in (*LINEAR, *configs)}


def _embed_elsewhere(path: str, outdir: Path, num_seeds: int) -> Embedded:
    """Do the like on MusiCNN's features of 3-s patches; raw and PCA are of their means."""
    name, config = "track VAE on MusiCNN", model_on_musicnn()
    run = _train(name, config, path, outdir, num_seeds, ("raw", "plda"))
    raw = read(run.embedding("raw"), num_seeds)
    found = {"raw": raw, "PCA": _reduced(raw), "PLDA": read(run.embedding("plda"), num_seeds)}
    found["track VAE"] = read(run.embedding("vae"), num_seeds)
    return {f"{name} {ELSEWHERE}": one for name, one in found.items()}


def _train(
    name: str, config: ConfigDict, path: str, outdir: Path, num_seeds: int, peers: Sequence[str]
) -> Run:
    """Train a model with every seed, and embed all tracks with it and with its peers."""
    config.update(manifest=path, num_seeds=num_seeds, baselines=tuple(peers))
    config.update(data_dir=str(outdir / "data"), checkpoint_dir=str(outdir / "checkpoints"))
    run = Run(config, outdir / "runs" / re.sub(r"\W+", "-", name))
    print(name, file=sys.stderr, flush=True)
    runner.run_stages(config, run.outdir, ("features", "train", "embed"), None)
    return run


def _reduced(raw: tuple[np.ndarray, list[np.ndarray]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the PCA of each seed's points."""
    ids, spaces = raw
    return ids, [
        baselines.pca(points, PCA_SIZE, seed)(points) for seed, points in enumerate(spaces)
    ]


def _shared(found: Embedded) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Return the ids that all methods have, and their points; features may fail for some tracks."""
    shared = next(iter(found.values()))[0]
    for ids, _ in found.values():
        shared = shared[np.isin(shared, ids)]
    return shared, {
        name: [_rows(ids, points, shared) for points in spaces]
        for name, (ids, spaces) in found.items()
    }


def read(path: Path, num_seeds: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the ids [N] and each seed's points [N, L]; all are the same where none was trained."""
    opened = [Latents(path, seed) for seed in range(num_seeds)]
    return opened[0].ids, [np.concatenate([*latents.chunks()]) for latents in opened]


def _descriptions(config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids, and each track's mean description of its segments, standardised, [N, D]."""
    import jax

    from vae_jax import config as config_lib
    from vae_jax.training.input_pipeline import Source
    from vae_jax.training.model_spec import ModelSpec

    records = Run(config, Path()).records
    _, view = ModelSpec.of(config_lib.to_dict(config), records, []).build()
    whole, means = jax.jit(view.whole), []
    for position in range(len(records)):
        inputs = whole(Source(records).load(np.array([position])))
        weight = np.asarray(inputs.mask[0])[:, None]
        means.append((weight * inputs.x["description"][0]).sum(axis=0) / weight.sum())
    points = np.array(means)
    return records.ids, (points - points.mean(axis=0)) / points.std(axis=0)


def models(with_lyrics: bool) -> dict[str, ConfigDict]:
    """Return the models to train, by name."""
    configs = {
        **{"autoencoder": _autoencoder(), "VAE": mlp.get_config()},
        **{"track VAE, untrained": _untrained(), "track VAE": _normal_prior()},
        "track VAE + mixture": track.get_config(),
    }
    return configs | ({"hybrid VAE": hybrid.get_config()} if with_lyrics else {})


def model_on_musicnn() -> ConfigDict:
    """Return the track VAE on features that were trained elsewhere."""
    config = track.get_config("musicnn")
    config.model.prior = "normal"
    return config


def _autoencoder() -> ConfigDict:
    config = mlp.get_config()
    config.model.deterministic = True
    return config


def _untrained() -> ConfigDict:
    """Return the track VAE's config with one step that changes nothing: random features."""
    config = _normal_prior()
    config.train.update(num_steps=1, learning_rate=1e-12)
    return config


def _normal_prior() -> ConfigDict:
    config = track.get_config()
    config.model.prior = "normal"
    return config


def _whiten(points: np.ndarray) -> np.ndarray:
    return points / np.maximum(points.std(axis=0), 1e-12)


def _rows(ids: np.ndarray, points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the points of the wanted tracks, in their order."""
    position = {id_: i for i, id_ in enumerate(ids.tolist())}
    return points[[position[id_] for id_ in wanted.tolist()]]


def score(
    name: str,
    spaces: list[np.ndarray],
    common: np.ndarray,
    classes: np.ndarray,
    artists: np.ndarray,
    k: int,
) -> Method:
    """Cluster one method's points with every seed, and score points and clusters."""
    from vae_jax import config
    from vae_jax.clustering import clusterers, metrics

    options = config.get_config().cluster
    options.num_clusters = k
    labels, rows = [], []
    for seed, points in enumerate(spaces):
        found = clusterers.cluster(points, options, seed).labels
        own = metrics.internal(points, found, options.silhouette_sample, 0)
        shared = metrics.internal(common, found, options.silhouette_sample, 0)
        searched = asdict(metrics.retrieval(points, artists, 0))
        rows.append(
            {"method": name, "size": points.shape[1], "seed": seed, "k": k, "n": len(points)}
            | asdict(own)
            | {"common_silhouette": shared.silhouette}
            | asdict(metrics.external(found, classes, 0))
            | {f"artist_{key}": value for key, value in searched.items()}
        )
        labels.append(found)
    return Method(spaces, np.array(labels), rows)


def _agreement(classes: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return AMI and accuracy."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(classes, labels)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return float(adjusted_mutual_info_score(classes, labels)), float(matched / counts.sum())


def _draw(methods: Mapping[str, Method], reference: str, heading: str, path: Path) -> None:
    """Draw every seed's scores as dots, one row per method, with the reference and chance."""
    from matplotlib.figure import Figure

    from vae_jax.plots import figures

    shown = ["ami", "accuracy", "artist_precision_at_1"]
    shown = [name for name in shown if not math.isnan(methods[reference].mean(name))]
    figure = Figure(figsize=(2.2 + 3.2 * len(shown), 1.2 + 0.34 * len(methods)))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    names = list(methods)
    for axes, column in zip(panels, shown, strict=True):
        for row, name in enumerate(names):
            is_trained = "VAE" in name or name == "autoencoder"
            color = "#0072B2" if is_trained and "untrained" not in name else "#777777"
            values = [one[column] for one in methods[name].rows]
            axes.scatter(values, [row] * len(values), s=12, alpha=0.5, color=color, linewidths=0)
            axes.scatter(methods[name].mean(column), row, marker="|", s=260, color=color)
        axes.axvline(methods[reference].mean(column), color="#777777", lw=0.8, ls="--")
        axes.axvline(methods[reference].mean(CHANCE[column]), color="#777777", lw=0.8, ls=":")
        axes.set_xlabel(METRICS[column])
        figures.plain(axes)
    panels[0].set_yticks(range(len(names)), [name.replace(" (", "\n(") for name in names])
    panels[0].invert_yaxis()
    title = f"{heading}\nbar: mean; dashed: {reference}, the best linear one; dotted: chance"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    figure.tight_layout()
    figures.save(figure, path)


def run(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, action="append")
    parser.add_argument("--label", default="label", help="the column to compare clusters with")
    parser.add_argument("--outdir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--with", choices=["musicnn"], help="features that others have trained")
    args = parser.parse_args(argv)
    try:
        for path in args.manifest:
            name = Path(path).absolute().parent.name if len(args.manifest) > 1 else ""
            with_musicnn = getattr(args, "with") == "musicnn"
            print(main(path, args.label, args.outdir / name, args.seeds, with_musicnn))
    except UserError as error:
        sys.exit(f"benchmarks.quality: {error}")


if __name__ == "__main__":
    run()
