"""Measures whether probabilities of placed tracks say how often a clustering of all agrees.

    python -m benchmarks.place RESULTS [RESULTS ...] [--splits=20]
    python -m benchmarks.place PART --placed=PLACED.csv --whole=WHOLE

Half of each run's tracks are clustered, the others are placed among them, and all tracks are
clustered, from the clusters of the half on, as a run that follows another does. Clusters are
matched by the half that both have seen. This is repeated with other halves. The encoder has seen
all tracks. In the second form it has not: PART is a run on some of the tracks of the run WHOLE, and
`vae-jax place PART` has written PLACED.csv about the others.
"""

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

import vae_jax
from vae_jax.api import Results
from vae_jax.clustering import clusterers, matching
from vae_jax.clustering.clusterers import NOISE, Clustering
from vae_jax.collection.place import Known
from vae_jax.embedding.latents import Latents
from vae_jax.storage import files

EDGES = (0, 0.3, 0.5, 0.7, 0.9, 1)


def halves(run: Results, points: np.ndarray, splits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of placed tracks and whether the clustering of all agrees, [n]."""
    number = len({*run.clusters.tolist()} - {NOISE})
    options, seed = ConfigDict({**run.config.cluster, "num_clusters": number}), run.config.seed

    def recluster(some: np.ndarray, start: np.ndarray | None) -> Clustering:
        return clusterers.cluster(some, options, seed, start)

    said, agreed = [], []
    for split in range(splits):
        rows = np.random.default_rng(split).permutation(len(points))
        part, rest = np.array_split(rows, 2)
        found = recluster(points[part], None)
        everything = recluster(points, found.centers).labels
        centers = found.centers if options.method == "kmeans" else None
        placed = Known(points[part], found.labels, recluster, centers, split).place(points[rest])
        before = dict(zip(map(str, part), found.labels.tolist(), strict=True))
        numbers = _numbers(everything[part], part, before)
        said.append(placed.probabilities[:, 0])
        agreed.append(placed.clusters[:, 0] == numbers[everything[rest]])
    return np.concatenate(said), np.concatenate(agreed)


def _numbers(labels: np.ndarray, ids: np.ndarray, before: Mapping[str, int]) -> np.ndarray:
    """Return the number that each cluster has among those before, or another; noise stays noise."""
    unused = max(before.values()) + 1
    found = matching.numbers(labels, [str(id_) for id_ in ids], before, unused)
    return np.append(found, NOISE)


def of_placed(part: Results, path: Path, whole: Results) -> dict[str, tuple]:
    """Return the same by method, of tracks that a run's model has not seen, and the outliers."""
    rows, found = files.read_csv(path), {}
    ids = [row["id"] for row in rows]
    for method in part.methods:
        prefix = "" if method == "vae" else f"{method}_"
        if f"{prefix}cluster" not in rows[0]:
            continue
        before = {row["id"]: int(row[f"{prefix}cluster"]) for row in part.table}
        now = {row["id"]: int(row[f"{prefix}cluster"]) for row in whole.table}
        shared = [id_ for id_ in before if id_ in now]
        names, labels = np.unique([now[id_] for id_ in shared], return_inverse=True)
        unused = max(before.values()) + 1
        numbers = matching.numbers(labels, shared, before, unused)
        meaning = dict(zip(names.tolist(), numbers.tolist(), strict=True))
        agreed = [int(row[f"{prefix}cluster"]) == meaning.get(now[row["id"]]) for row in rows]
        said = [float(row[f"{prefix}probability"]) for row in rows]
        found[method] = np.array(said), np.array(agreed)
    strange = sum(row["outlier"] == "yes" for row in rows)
    print(f"{strange} of {len(ids)} are flagged as outliers.\n")
    return found


def show(name: str, method: str, said: np.ndarray, agreed: np.ndarray) -> None:
    """Print a line for each interval of probabilities, and one for all."""
    for low, high in [*itertools.pairwise(EDGES), (0, 1)]:
        inside = (said >= low) & ((said < high) | (high == 1))
        if count := int(inside.sum()):
            numbers = f"{count} | {said[inside].mean():.2f} | {agreed[inside].mean():.2f}"
            what = "all" if (low, high) == (0, 1) else f"{low:g} to {high:g}"
            print(f"| {name} | {method} | {what} | {numbers} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--placed", type=Path)
    parser.add_argument("--whole")
    arguments = parser.parse_args()
    header = (
        "| run | method | probability | tracks | mean said | agreed |\n|---|---|---|---|---|---|"
    )
    if arguments.placed:
        part, whole = vae_jax.load(arguments.results[0]), vae_jax.load(arguments.whole)
        found = of_placed(part, arguments.placed, whole)
        print(header)
        for method, (said, agreed) in found.items():
            show(part.outdir.name, method, said, agreed)
        return
    print(header)
    for run in map(vae_jax.load, arguments.results):
        for method, name in run.made_with["embeddings"].items():
            points = np.concatenate([*Latents(run.outdir / name).chunks()])
            show(run.outdir.name, method, *halves(run, points, arguments.splits))


if __name__ == "__main__":
    main()
