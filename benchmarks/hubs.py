"""Hubs: whether mutual proximity has fewer of them, and still finds the same artist.

    python -m benchmarks.hubs RESULTS [RESULTS ...] [--splits=10]

For the latents and every baseline of each run, distance stands beside mutual proximity: the
skewness of how often tracks occur among the ten nearest of others, the share that occurs among
those of none, and how often the nearest track is by the same artist, or of the same label where
there are no artists. All tracks come first, then random halves of them, of which the means are
given.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import vae_jax
from vae_jax.collection.neighbours import Space
from vae_jax.embedding.latents import Latents


def main() -> None:
    """Print a line for each run, part, method and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+")
    parser.add_argument("--splits", type=int, default=10, help="into halves")
    arguments = parser.parse_args()
    print("| run | tracks | method | measure | skewness | found by none | P@1 |")
    print("|---|---|---|---|---|---|---|")
    for folder in arguments.results:
        run = vae_jax.load(folder)
        column = "artist" if "artist" in run.manifest.columns else run.config.cluster.label
        kinds = np.array(run.manifest.labels(column, run.ids))
        halves = [
            np.random.default_rng(seed).permutation(len(run.ids))[: len(run.ids) // 2]
            for seed in range(arguments.splits)
        ]
        for method, name in run.made_with["embeddings"].items():
            points = np.concatenate([*Latents(run.outdir / name).chunks()])
            for part, chosen in (("all", [np.arange(len(points))]), ("halves", halves)):
                for measure in ("distance", "mutual"):
                    cells = [Path(folder).name, part, method, measure]
                    cells += _measured(points, kinds, chosen, measure == "mutual")
                    print(f"| {' | '.join(cells)} |", flush=True)


def _measured(
    points: np.ndarray, kinds: np.ndarray, chosen: Sequence[np.ndarray], mutual: bool
) -> list[str]:
    """Return the means of the three figures over some choices of tracks."""
    rows = []
    for part in chosen:
        space = Space(points[part])
        hubs = space.hubness(mutual)
        precision = _precision(space, kinds[part], mutual)
        rows.append((hubs.skewness, hubs.unreachable, precision))
    skewness, unreachable, precision = np.mean(rows, axis=0)
    return [f"{skewness:.2f}", f"{unreachable:.1%}", f"{precision:.3f}"]


def _precision(space: Space, kinds: np.ndarray, mutual: bool) -> float:
    """Return how often the nearest track is of the same kind, for kinds with several tracks."""
    names, counts = np.unique(kinds[kinds != ""], return_counts=True)
    queries = np.flatnonzero(np.isin(kinds, names[counts > 1]))
    found = space.measure(space.points[queries], mutual)
    found[np.arange(len(queries)), queries] = np.inf
    return float(np.mean(kinds[found.argmin(axis=1)] == kinds[queries]))


if __name__ == "__main__":
    main()
