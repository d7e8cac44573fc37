"""Times what is asked of a finished run: neighbours, filters, a way, placing, duplicates.

    python -m benchmarks.collection [--tracks=100000] [--dim=64]

The run is synthetic: 50 clouds of points of many sizes, with artists, genres and years. Each
question is asked three times; the first answer also computes what is kept for the next. Then the
nearest 20 by mutual proximity are compared with those of a search that compares all tracks so.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vae_jax
from vae_jax import config as config_lib
from vae_jax import run as run_lib
from vae_jax.api import Results
from vae_jax.clustering import clusterers
from vae_jax.collection import neighbours, similar
from vae_jax.storage import files

GROUPS = 50
TURNS = 3
QUERIES = 20  # whose neighbours are compared


def write(folder: Path, tracks: int, dim: int) -> Path:
    """Write the results of a run; return their folder."""
    rng, results = np.random.default_rng(0), folder / "results"
    groups = rng.integers(0, GROUPS, tracks)
    spread = rng.gamma(3, 0.3, (tracks, 1))
    points = rng.normal(size=(GROUPS, dim))[groups] + spread * rng.normal(size=(tracks, dim))
    latents = points.astype(np.float32)
    ids = np.char.add("track-", np.arange(tracks).astype(str))
    rows = (
        {
            "id": id_,
            "artist": f"artist-{i % 5000}",
            "genre": f"genre-{group}",
            "year": 1960 + i % 60,
        }
        for i, (id_, group) in enumerate(zip(ids, groups, strict=True))
    )
    files.write_csv(folder / "metadata.csv", ("id", "artist", "genre", "year"), rows)
    config = config_lib.get_config()
    found = clusterers.cluster(latents, config.cluster, 0)
    files.write_npz(results / run_lib.LATENTS, ids=ids, latents=latents)
    files.write_npz(results / run_lib.CENTERS, vae=found.centers)
    rows = ({"id": i, "cluster": int(c)} for i, c in zip(ids, found.labels, strict=True))
    files.write_csv(results / run_lib.CLUSTERS, ("id", "cluster"), rows)
    files.write_json(results / run_lib.CONFIG, config_lib.to_dict(config))
    about = {
        "config": run_lib.CONFIG,
        "manifest": os.path.relpath(folder / "metadata.csv", results),
        "embeddings": {"vae": run_lib.LATENTS},
    }
    files.write_json(results / run_lib.RUN, about)
    return results


def questions(run: Results) -> dict[str, Callable[[], Any]]:
    """Return what is asked, by its name."""
    ids, new = run.ids, run.latents[::100][:1000] + 0.1
    narrow = {"where": "genre!=genre-3,year>=1990", "per_artist": 1}
    return {
        "similar, by mutual proximity": lambda: run.similar(ids[5]),
        "similar, by distance": lambda: run.similar(ids[5], mutual=False),
        "similar to 3, unlike 1, filtered": lambda: run.similar(ids[:3], away=ids[9:10], **narrow),
        "path of 20": lambda: similar.walk(run, ids[7], similar.Wish([ids[5]])),
        f"place {len(new):,} tracks": lambda: run.place(new),
        "duplicates, without fingerprints": lambda: run.duplicates(False),
    }


def recall(run: Results) -> float:
    """Return the share of the nearest 20 by mutual proximity that a search finds."""
    rows = np.random.default_rng(0).choice(len(run.ids), QUERIES, replace=False)
    shares = []
    for row in rows:
        query = run.latents[row : row + 1]
        found, _ = neighbours.nearest(run.space, query)
        exact = np.argsort(run.space.dissimilarities(query)[0], kind="stable")
        shares.append(len({*found[:20].tolist()} & {*exact[:20].tolist()}) / 20)
    return float(np.mean(shares))


def main() -> None:
    """Print a line for each question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = write(Path(folder), arguments.tracks, arguments.dim)
        print(f"{arguments.tracks:,} tracks, {arguments.dim} dimensions\n")
        print("| question | first answer, s | then, s |\n|---|---|---|")
        started = time.monotonic()
        run = vae_jax.load(results)
        _ = run.latents, run.clusters, run.rows
        print(f"| load | {time.monotonic() - started:.2f} | |", flush=True)
        for name, ask in questions(run).items():
            seconds = []
            for _ in range(1 if name.startswith("duplicates") else TURNS):
                started = time.monotonic()
                ask()
                seconds.append(time.monotonic() - started)
            print(f"| {name} | {seconds[0]:.2f} | {min(seconds):.2f} |", flush=True)
        if arguments.tracks <= 100_000:
            print(f"\nA search finds {recall(run):.1%} of the nearest 20 by mutual proximity.")


if __name__ == "__main__":
    main()
