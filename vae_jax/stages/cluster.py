"""The cluster stage: embeddings in, `clustering_metrics.csv` and `clusters.csv` out.

The VAE and every baseline are clustered by the same clusterer, with the same number of clusters
and the same seeds, and scored in their own space and in a common one. If that number is not given,
it is chosen once, on the first method's embedding, which is the VAE's. Every model that was trained
is clustered from every start. The components of its own mixture are merged into as many clusters.
If the outdir's tracks have changed, clusters keep the numbers that they had (see `matching`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax import history
from vae_jax.clustering import clusterers, matching, metrics, metrics_file, num_clusters
from vae_jax.clustering.clusterers import NOISE, Clustering
from vae_jax.collection import neighbours
from vae_jax.config import AUTO
from vae_jax.console import Progress
from vae_jax.embedding.latents import Latents
from vae_jax.errors import UserError
from vae_jax.manifest import Manifest
from vae_jax.run import CENTERS, CLUSTERING_METRICS, CLUSTERS, LABELS, Run
from vae_jax.stages.up_to_date import hashes, unless_up_to_date
from vae_jax.storage import files

COMMON = "raw"  # the standardised input features are the space that all methods share
MOST_NAMED = 10  # pairs of labels that are named in the log; all are in the file
MIXTURE = "mixture"  # the method of a row about the components of the VAE's own prior
Row = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """An embedding of N tracks, and the M of them that are held in memory.

    Attributes
    ----------
    positions
        Where the M tracks stand among all, [M].
    points
        Their latents, [M, L].
    """

    latents: Latents
    positions: np.ndarray
    points: np.ndarray


def update(run: Run) -> bool:
    """Cluster and score the latents and the baselines alike."""
    config = config_lib.to_dict(run.config)
    columns = (config["cluster"]["label"], "artist")
    embeddings = hashes(run.embeddings(), "embed")
    if not run.is_sharded:  # with shards all methods but k-means are refused anyway
        count = len(files.read_npz(run.embedding("vae"), "ids")["ids"])
        clusterers.check_size(run.config.cluster, count)
    made_from = [
        embeddings,
        [*(config[key] for key in ("cluster", "seed")), run.baselines],
        config["model"]["condition"],
        [run.manifest.ids, *(run.manifest.labels(name, run.manifest.ids) for name in columns)],
    ]
    if run.previous:
        made_from.append(files.sha256(run.previous / CLUSTERS))

    def write() -> list[Path]:
        run_id = files.fingerprint(*made_from)
        cluster(run, run_id)
        return [run.outdir / name for name in (CLUSTERING_METRICS, CLUSTERS, CENTERS, LABELS)]

    return unless_up_to_date(run, "cluster", made_from, write)


def cluster(run: Run, run_id: str) -> list[Row]:
    """Cluster and score every method, and write both tables.

    Parameters
    ----------
    run
        Its embeddings are clustered: in `clusters.csv` the VAE's clusters are `cluster`, those of
        any other method `<name>_cluster`. All are from the first start and, where several models
        were trained together, from the best model. The components of a mixture prior are a method
        of their own. In shards, `config.cluster.silhouette_sample` random tracks are scored.
    run_id
        The rows' run id; earlier rows with the same run id are replaced.

    Returns
    -------
    list of dict
        The rows added to `clustering_metrics.csv`; scores that are undefined are None.

    Raises
    ------
    UserError
        If an embedding is missing, damaged or of other tracks, if the method cannot cluster so
        many or so few tracks, or if `clustering_metrics.csv` is damaged.
    """
    config, outdir, methods = run.config, run.outdir, run.methods
    manifest, supervised = run.manifest, run.supervised
    spaces = _open_spaces(run, methods)
    ids = spaces[methods[0]].latents.ids
    classes = np.array(_labels(manifest, config.cluster.label, ids))
    artists = np.array(manifest.labels("artist", ids.tolist()))
    _write_labels(outdir / LABELS, manifest, config.cluster.label)
    options = _with_num_clusters(config.cluster, methods[0], spaces[methods[0]].points, config.seed)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows: list[Row] = []
    shown: dict[str, Clustering] = {}
    if spaces[methods[0]].latents.has_assignments:
        methods, spaces[MIXTURE] = [*methods, MIXTURE], spaces[methods[0]]
    models = sum(spaces[name].latents.num_models for name in methods)
    with Progress("clustering", models, "models") as progress:
        for method in methods:
            about: Row = {
                **{"run_id": run_id, "time": now},
                **{"method": method, "supervised": method in supervised},
                **{"feature": config_lib.described(config.feature), "model": config.model.name},
                "latent_dim": spaces[method].latents.dim,
            }
            before = _before(run, method)
            scored, shown[method] = _cluster_method(
                run, method, spaces, options, classes, artists, before, progress
            )
            rows += [about | row for row in scored]
    rows = [{name: _rounded(value) for name, value in row.items()} for row in rows]
    metrics_file.append(outdir / metrics_file.NAME, rows)
    numbers = _numbers(run, ids, shown)
    _write_clusters(outdir / CLUSTERS, ids, shown, numbers, spaces, config)
    order = {name: np.argsort(found) for name, found in numbers.items()}
    centers = {name: one.centers[order[name]] for name, one in shown.items()}
    if run.previous:
        centers |= {f"{name}_ids": np.sort(found) for name, found in numbers.items()}
    if MIXTURE in shown:
        named = numbers[MIXTURE][shown[MIXTURE].labels]
        centers["mixture_columns"] = _columns(spaces[MIXTURE].latents, named)
    files.write_npz(outdir / CENTERS, **centers)
    return rows


def _columns(latents: Latents, clusters: np.ndarray) -> np.ndarray:
    """Return the cluster that each column of `assignments` is part of, [K]; NOISE if of none.

    `clusters` has each track's, [N].
    """
    columns = np.full(next(latents.assignments()).shape[1], NOISE)
    columns[np.concatenate([part.argmax(axis=1) for part in latents.assignments()])] = clusters
    return columns


def _before(run: Run, method: str) -> dict[str, int]:
    """Return the clusters of the run that this one follows, by track id."""
    return history.clusters(run.previous, _prefix(method)) if run.previous else {}


def _numbers(run: Run, ids: np.ndarray, shown: Mapping[str, Clustering]) -> dict[str, np.ndarray]:
    """Return the numbers [K] that clusters have in files: as before, where they had one."""
    if not run.previous:
        return {name: np.arange(one.num_clusters) for name, one in shown.items()}
    unused = history.next_ids(run.previous)
    return {
        name: matching.numbers(
            one.labels,
            ids.tolist(),
            _before(run, name),
            unused.get(f"{_prefix(name)}cluster", 0),
        )
        for name, one in shown.items()
    }


def _prefix(method: str) -> str:
    """Return what a method's columns in `clusters.csv` begin with; the VAE's have their names."""
    return "" if method == "vae" else f"{method}_"


def _cluster_method(
    run: Run,
    method: str,
    spaces: Mapping[str, Space],
    options: ConfigDict,
    classes: np.ndarray,
    artists: np.ndarray,
    before: Mapping[str, int],
    progress: Progress,
) -> tuple[list[Row], Clustering]:
    """Cluster each model's embedding from every start; return the scores, and what to show.

    What is shown is the first clustering of the best model. With clusters before, it starts from
    those.
    """
    config, best = run.config, spaces[method]
    starts = range(1 if method == MIXTURE else _repeats(options))
    is_trained = method in (*run.trained, MIXTURE)
    rows, labels, shown = [], [], None
    for model, space in enumerate(_models(run, best)):
        training = config.seed + model if is_trained else None
        searched = {}
        if method != MIXTURE:
            searched = _artist_search(space, artists, config.seed) | _hubs(space, config)
        for seed in (config.seed + start for start in starts):
            is_shown = space is best and shown is None
            found = _cluster(method, space, options, seed, before if is_shown else {})
            shown = found if is_shown else shown
            scores = _scores(method, found, {**spaces, method: space}, classes, config, seed)
            described = _description(method, found, config) | {"training": training, "seed": seed}
            rows.append(described | searched | scores)
            labels.append(found.labels)
        progress.update(progress.done + 1)
    agreement = metrics.stability(labels, [row["training"] for row in rows])
    for row, value in zip(rows, agreement, strict=True):
        row["stability"] = value
    if unscored := sum(not metrics.is_scorable(one) for one in labels):
        logging.warning(
            "%s: %d of %d clusterings have no two clusters to tell apart, and no scores.",
            *(method, unscored, len(labels)),
        )
    _log(method, rows)
    return rows, shown or _cluster(method, best, options, config.seed, before)


def _repeats(options: ConfigDict) -> int:
    """Return how often to cluster: once is enough where seeds make no difference."""
    clusterer = clusterers.CLUSTERERS[options.method]
    is_one_cluster = clusterer.takes_k and options.num_clusters == 1
    return options.num_seeds if clusterer.seeded and not is_one_cluster else 1


def _with_num_clusters(
    options: ConfigDict, method: str, points: np.ndarray, seed: int
) -> ConfigDict:
    """Return `config.cluster` with a number of clusters, chosen if it is to be."""
    if _k_chosen_by(options) != AUTO:
        return options
    chosen = num_clusters.choose_num_clusters(points, seed)
    if chosen.num_clusters == 1:
        logging.warning("no cluster structure found: %s (%s).", chosen.reason, method)
    else:
        logging.info("%d clusters, chosen from %s: %s", chosen.num_clusters, method, chosen.reason)
    return ConfigDict({**options, "num_clusters": chosen.num_clusters})


def _k_chosen_by(options: ConfigDict) -> str:
    """Say who chose the number of clusters: the config, "auto", or the clusterer itself."""
    if not clusterers.CLUSTERERS[options.method].takes_k:
        return "clusterer"
    return AUTO if options.num_clusters == AUTO else "config"


def _open_spaces(run: Run, methods: Sequence[str]) -> dict[str, Space]:
    """Open each method's space, and the common one if it is there."""
    names = dict.fromkeys(methods)
    if run.embedding(COMMON).exists():
        names[COMMON] = None
    spaces: dict[str, Space] = {}
    for name in names:
        latents = Latents(run.embedding(name))
        first = next(iter(spaces.values())).latents if spaces else latents
        if not np.array_equal(latents.ids, first.ids):
            raise UserError(
                f"{latents.path} lists other tracks than {first.path}: run --stage=embed again."
            )
        latents.ids = first.ids  # one copy is enough
        spaces[name] = _space(run, latents)
    return spaces


def _space(run: Run, latents: Latents) -> Space:
    held = latents.held(run.config.cluster.silhouette_sample, run.config.seed)
    return Space(latents, *held)


def _models(run: Run, best: Space) -> list[Space]:
    """Return the space of each of the models that were trained together; `best` alone for one."""
    if best.latents.num_models == 1:
        return [best]
    path, num_models = best.latents.path, best.latents.num_models
    return [_space(run, Latents(path, model)) for model in range(num_models)]


def _cluster(
    method: str, space: Space, options: ConfigDict, seed: int, before: Mapping[str, int]
) -> Clustering:
    if method == MIXTURE:
        takes_k = clusterers.CLUSTERERS[options.method].takes_k
        return clusterers.components(space.latents, options.num_clusters if takes_k else None)
    centers = None
    if before:
        ids = space.latents.ids[space.positions].tolist()
        centers = matching.centers(space.points, ids, before, options.num_clusters)
    if space.latents.is_sharded:
        return clusterers.cluster_shards(space.latents, options, seed, centers)
    return clusterers.cluster(space.points, options, seed, centers)


def _labels(manifest: Manifest, name: str, ids: np.ndarray) -> list[str]:
    if name not in manifest.columns:
        logging.info(
            "%s has no column %r (config.cluster.label): no scores against labels.",
            *(manifest.path, name),
        )
    return manifest.labels(name, ids.tolist())


def _write_labels(path: Path, manifest: Manifest, name: str) -> None:
    """Write, and log, which cells of a column count as another label than they say."""
    folding = manifest.folding(name)
    columns = ("column", "cell", "label", "tracks", "kind")
    changed = [(name, c, label, folding.counts[c], kind) for c, label, kind in folding.changed()]
    alike = [
        (name, other, one, folding.counts.get(other, 0), "perhaps the same: not joined")
        for one, other in folding.alike()
    ]
    files.write_csv(path, columns, (dict(zip(columns, r, strict=True)) for r in changed + alike))
    if told := folding.told():
        logging.info("labels: folded in %r: %s; %s lists them", name, told, path)
    for _, other, one, *_ in alike[:MOST_NAMED]:
        logging.warning(
            "labels: %r and %r in %r may be one, and count as two: make them equal if they are.",
            *(one, other, name),
        )


def _description(method: str, found: Clustering, config: ConfigDict) -> Row:
    return {
        "clusterer": MIXTURE if method == MIXTURE else config.cluster.method,
        "k": found.num_clusters,
        "k_chosen_by": _k_chosen_by(config.cluster),
        "n": len(found.labels),
        "coverage": found.coverage,
        "eps": found.eps,
    }


def _scores(
    method: str,
    found: Clustering,
    spaces: Mapping[str, Space],
    classes: np.ndarray,
    config: ConfigDict,
    seed: int,
) -> Row:
    """Score one clustering; leave all scores empty if there is nothing to tell apart."""
    own, common = metrics.Internal(), metrics.Internal()
    agreement = metrics.External(n_labelled=int(np.sum(classes != "")))
    held = found.labels[spaces[method].positions]
    if metrics.is_scorable(held):
        # One sample for all methods and seeds, so that their differences are not the sample's.
        sample = (config.cluster.silhouette_sample, config.seed)
        own = metrics.internal(spaces[method].points, held, *sample)
        if method == COMMON:
            common = own
        elif COMMON in spaces:
            common = metrics.internal(spaces[COMMON].points, held, *sample)
        agreement = metrics.external(found.labels, classes, config.seed)
    in_common = {f"common_{name}": value for name, value in asdict(common).items()}
    del in_common["common_silhouette_sample"]  # the same as in the method's own space
    return asdict(own) | in_common | asdict(agreement)


def _artist_search(space: Space, artists: np.ndarray, seed: int) -> Row:
    found = metrics.retrieval(space.points, artists[space.positions], seed)
    return {f"artist_{name}": value for name, value in asdict(found).items()}


def _hubs(space: Space, config: ConfigDict) -> Row:
    """Measure how unevenly tracks occur among the nearest ones of others, on a sample of many."""
    size, points = config.cluster.silhouette_sample, space.points
    if len(points) > size:
        points = points[np.random.default_rng(config.seed).choice(len(points), size, replace=False)]
    hubness = neighbours.Space(points, config.seed).hubness(mutual=False)
    return {"hub_skewness": hubness.skewness, "hub_unreachable": hubness.unreachable}


def _rounded(value: Any) -> Any:
    """Keep six digits of a float; NaN becomes None, an empty cell."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _log(method: str, rows: Sequence[Row]) -> None:
    means = {}
    for name in ("silhouette", "ami"):
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = f"{np.mean(values):.3f}" if values else "none"
    logging.info(
        "%s: %d clusters, silhouette %s, AMI %s (mean of %d clusterings)",
        *(method, rows[0]["k"], means["silhouette"], means["ami"], len(rows)),
    )


def _write_clusters(
    path: Path,
    ids: np.ndarray,
    found: Mapping[str, Clustering],
    numbers: Mapping[str, np.ndarray],
    spaces: Mapping[str, Space],
    config: ConfigDict,
) -> None:
    """Write each track's cluster, distance to its centre and silhouette, for every method.

    With shards, only the tracks that are held in memory have a silhouette.
    """
    silhouettes = {name: _silhouettes(one, spaces[name], config) for name, one in found.items()}
    columns = ["id"]
    for method, one in found.items():
        names = ["cluster", "distance", "silhouette"]
        names += [] if one.confidence is None else ["confidence"]
        columns += [f"{_prefix(method)}{name}" for name in names]

    def rows() -> Iterator[Row]:
        start = 0
        for chunks in zip(*(spaces[name].latents.chunks() for name in found), strict=True):
            here = slice(start, start + len(chunks[0]))
            cells: list[Sequence[Any]] = [ids[here].tolist()]
            for (name, one), points in zip(found.items(), chunks, strict=True):
                part = one.part(here)
                named = np.append(numbers[name], NOISE)[part.labels]  # noise indexes the last
                cells += [named.tolist(), _cells(part.distances(points))]
                cells += [_cells(silhouettes[name][here])]
                cells += [] if part.confidence is None else [_cells(part.confidence)]
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True))
            start = here.stop

    files.write_csv(path, columns, rows())


def _silhouettes(found: Clustering, space: Space, config: ConfigDict) -> np.ndarray:
    """Return each track's silhouette, [N]; NaN where it is unknown or undefined."""
    values, held = np.full(len(found.labels), np.nan), found.labels[space.positions]
    if metrics.is_scorable(held):
        sample = (config.cluster.silhouette_sample, config.seed)
        values[space.positions] = metrics.silhouettes(space.points, held, *sample)
    return values


def _cells(values: np.ndarray) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.6g}" for value in values.tolist()]
