"""Hubs: whether mutual proximity has fewer of them, and still finds the same artist.

    python -m benchmarks.hubs RESULTS [RESULTS ...]

For the latents and every baseline of each run, whose tracks should name artists, distance stands
beside mutual proximity: the skewness of how often tracks occur among the ten nearest of others, the
share that occurs among those of none, and how often the nearest track is by the same artist.
"""

import sys
from pathlib import Path

import numpy as np

import vae_jax
from vae_jax.collection.neighbours import Space
from vae_jax.embedding.latents import Latents


def main(folders: list[str]) -> None:
    """Print a line for each run, method and measure."""
    print("| run | method | measure | skewness | found by none | P@1, artist |")
    print("|---|---|---|---|---|---|")
    for folder in folders:
        run = vae_jax.load(folder)
        artists = np.array(run.manifest.labels("artist", run.ids))
        for method, name in run.made_with["embeddings"].items():
            points = np.concatenate([*Latents(run.outdir / name).chunks()])
            for measure in ("distance", "mutual"):
                space, mutual = Space(points, run.config.seed), measure == "mutual"
                hubs, precision = space.hubness(mutual), _precision(space, artists, mutual)
                numbers = f"{hubs.skewness:.2f} | {hubs.unreachable:.1%} | {precision:.3f}"
                print(f"| {Path(folder).name} | {method} | {measure} | {numbers} |")


def _precision(space: Space, artists: np.ndarray, mutual: bool) -> float:
    """Return how often the nearest track is by the same artist, for artists with several."""
    names, counts = np.unique(artists[artists != ""], return_counts=True)
    queries = np.flatnonzero(np.isin(artists, names[counts > 1]))
    found = space.measure(space.points[queries], mutual)
    found[np.arange(len(queries)), queries] = np.inf
    return float(np.mean(artists[found.argmin(axis=1)] == artists[queries]))


if __name__ == "__main__":
    main(sys.argv[1:])
