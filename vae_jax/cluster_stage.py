"""The cluster stage: embeddings in, `clustering_metrics.csv` and `clusters.csv` out.

The VAE and every baseline are clustered by the same clusterer, with the same number of clusters
and the same seeds, and scored in their own space and in a common one. Where that number is not
given, it is chosen once, on the first method's embedding, which is the VAE's.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vae_jax import clustering, files, metrics, metrics_file, selection
from vae_jax.clustering import Clustering
from vae_jax.config import AUTO
from vae_jax.console import Progress
from vae_jax.errors import UserError
from vae_jax.manifest import Manifest

COMMON = "raw"  # the standardised input features are the space that all methods share
Row = dict[str, Any]


def run(
    outdir: Path,
    methods: Sequence[str],
    manifest: Manifest,
    config: ConfigDict,
    run_id: str,
    supervised: Collection[str] = (),
) -> list[Row]:
    """Cluster and score every method, and write both tables.

    Parameters
    ----------
    outdir
        Holds `latents.npz` (the VAE's) and `baselines/<name>.npz`.
    methods
        What to cluster: "vae" or names of baselines. `clusters.csv` has the first one's clusters
        as `cluster`, those of any other as `<name>_cluster`, all of the first seed.
    manifest
        Has the label and, perhaps, artist columns.
    config
        The whole config.
    run_id
        Of the rows; rows with the same run id are replaced.
    supervised
        The methods that have seen the labels.

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
    ids, spaces = _read_embeddings(outdir, methods)
    classes = np.array(_labels(manifest, config.cluster.label, ids))
    artists = np.array(manifest.column("artist", ids.tolist()))
    options = _with_num_clusters(config.cluster, methods[0], spaces[methods[0]], config.seed)
    seeds = _seeds(options, config.seed)
    run_columns = {"run_id": run_id, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    rows: list[Row] = []
    first: dict[str, Clustering] = {}
    with Progress("clustering", len(methods) * len(seeds), "clusterings") as progress:
        for method in methods:
            described = run_columns | {
                "method": method,
                "supervised": method in supervised,
                "feature": config.feature.name,
                "model": config.model.name,
                "latent_dim": spaces[method].shape[1],
            }
            searched = _artist_search(spaces[method], artists, config.seed)
            for seed in seeds:
                found = clustering.cluster(spaces[method], options, seed)
                first.setdefault(method, found)
                scores = _scores(method, found, spaces, classes, config, seed)
                row = described | _description(found, config, seed) | scores | searched
                rows.append({name: _rounded(value) for name, value in row.items()})
                progress.update(len(rows))
            _log(method, rows[-len(seeds) :])
    metrics_file.append(outdir / metrics_file.NAME, rows)
    _write_clusters(outdir / "clusters.csv", ids, first, spaces, config)
    return rows


def _seeds(options: ConfigDict, first: int) -> list[int]:
    """Return the seeds to repeat with: one is enough where they make no difference."""
    clusterer = clustering.CLUSTERERS[options.method]
    is_one_cluster = clusterer.takes_k and options.num_clusters == 1
    repeats = options.num_seeds if clusterer.seeded and not is_one_cluster else 1
    return [first + i for i in range(repeats)]


def _with_num_clusters(
    options: ConfigDict, method: str, points: np.ndarray, seed: int
) -> ConfigDict:
    """Return `config.cluster` with a number of clusters, chosen if it is to be."""
    if _k_chosen_by(options) != AUTO:
        return options
    chosen = selection.choose_num_clusters(points, seed)
    if chosen.num_clusters == 1:
        logging.warning("no cluster structure found: %s (%s).", chosen.reason, method)
    else:
        logging.info("%d clusters, chosen from %s: %s", chosen.num_clusters, method, chosen.reason)
    return ConfigDict({**options, "num_clusters": chosen.num_clusters})


def _k_chosen_by(options: ConfigDict) -> str:
    """Say who chose the number of clusters: the config, "auto", or the clusterer itself."""
    if not clustering.CLUSTERERS[options.method].takes_k:
        return "clusterer"
    return AUTO if options.num_clusters == AUTO else "config"


def _read_embeddings(
    outdir: Path, methods: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the ids [N] and each method's points [N, L], the common space's if it is there."""
    paths = {name: outdir / "baselines" / f"{name}.npz" for name in (*methods, COMMON)}
    if "vae" in paths:
        paths["vae"] = outdir / "latents.npz"
    if COMMON not in methods and not paths[COMMON].exists():
        del paths[COMMON]
    ids, spaces = np.array([]), dict[str, np.ndarray]()
    for name, path in paths.items():
        arrays = files.read_npz(path)
        if not {"ids", "latents"} <= arrays.keys() or len(arrays["ids"]) != len(arrays["latents"]):
            raise UserError(f"{path} is damaged: it lacks ids or latents; delete it and run again.")
        if not np.isfinite(arrays["latents"]).all():
            raise UserError(f"{path} holds values that are not finite: train with other settings.")
        if spaces and not np.array_equal(arrays["ids"], ids):
            raise UserError(
                f"{path} lists other tracks than {next(iter(paths.values()))}: "
                "run --stage=embed again."
            )
        ids, spaces[name] = arrays["ids"], arrays["latents"]
    return ids, spaces


def _labels(manifest: Manifest, name: str, ids: np.ndarray) -> list[str]:
    if name not in manifest.columns:
        logging.info(
            "%s has no column %r (config.cluster.label): no scores against labels.",
            *(manifest.path, name),
        )
    return manifest.column(name, ids.tolist())


def _description(found: Clustering, config: ConfigDict, seed: int) -> Row:
    return {
        "clusterer": config.cluster.method,
        "k": found.num_clusters,
        "k_chosen_by": _k_chosen_by(config.cluster),
        "seed": seed,
        "n": len(found.labels),
        "coverage": found.coverage,
        "eps": found.eps,
    }


def _scores(
    method: str,
    found: Clustering,
    spaces: Mapping[str, np.ndarray],
    classes: np.ndarray,
    config: ConfigDict,
    seed: int,
) -> Row:
    """Score one clustering; all is empty where there is nothing to tell apart."""
    own, common = metrics.Internal(), metrics.Internal()
    agreement = metrics.External(n_labelled=int(np.sum(classes != "")))
    if metrics.is_scorable(found.labels):
        # One sample for all methods and seeds, so that their differences are not the sample's.
        sample = (config.cluster.silhouette_sample, config.seed)
        own = metrics.internal(spaces[method], found.labels, *sample)
        if method == COMMON:
            common = own
        elif COMMON in spaces:
            common = metrics.internal(spaces[COMMON], found.labels, *sample)
        agreement = metrics.external(found.labels, classes, config.seed)
    else:
        logging.warning(
            "%s, seed %d: %d clusters of %d tracks cannot be scored; the metrics stay empty.",
            *(method, seed, found.num_clusters, len(found.labels)),
        )
    in_common = {f"common_{name}": value for name, value in asdict(common).items()}
    del in_common["common_silhouette_sample"]  # the same as in the method's own space
    return asdict(own) | in_common | asdict(agreement)


def _artist_search(points: np.ndarray, artists: np.ndarray, seed: int) -> Row:
    found = metrics.retrieval(points, artists, seed)
    return {f"artist_{name}": value for name, value in asdict(found).items()}


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
        "%s: %d clusters, silhouette %s, AMI %s (mean of %d seeds)",
        *(method, rows[0]["k"], means["silhouette"], means["ami"], len(rows)),
    )


def _write_clusters(
    path: Path,
    ids: np.ndarray,
    found: Mapping[str, Clustering],
    spaces: Mapping[str, np.ndarray],
    config: ConfigDict,
) -> None:
    """Write each track's cluster, distance to its centre and silhouette, for every method."""
    table: dict[str, Sequence[Any]] = {"id": ids.tolist()}
    for i, (method, one) in enumerate(found.items()):
        prefix = f"{method}_" if i else ""
        table[f"{prefix}cluster"] = one.labels.tolist()
        table[f"{prefix}distance"] = _cells(one.distances(spaces[method]))
        values = np.full(len(ids), np.nan)
        if metrics.is_scorable(one.labels):
            values = metrics.silhouettes(
                spaces[method], one.labels, config.cluster.silhouette_sample, config.seed
            )
        table[f"{prefix}silhouette"] = _cells(values)
        if one.confidence is not None:
            table[f"{prefix}confidence"] = _cells(one.confidence)
    rows = (dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True))
    files.write_csv(path, list(table), rows)


def _cells(values: np.ndarray) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.6g}" for value in values.tolist()]
