"""Clustering: k-means, all metrics and all plots of a million latents, by the main job's stages."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Line, run_command
from benchmarks.startup import MAIN, clustering_job


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tracks: int = 1_000_000
    latent_dim: int = 16
    raw_dim: int = 40
    projection: str = "umap"


TINY = Sizes(tracks=100, latent_dim=2, raw_dim=4, projection="pca")


def measure(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of this topic."""
    shape = f"{sizes.tracks:,} x {sizes.latent_dim}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = clustering_job(folder, sizes.tracks, sizes.latent_dim, sizes.raw_dim)
        arguments.append(f"--config.visualize.method={sizes.projection}")
        total, peak = 0.0, 0.0
        for stage, what in (("cluster", "k-means, all metrics"), ("visualize", "all plots")):
            seconds, memory = _run(folder, [*arguments, f"--stage={stage}"])
            total, peak = total + seconds, max(peak, memory)
            yield Line(f"{what}: {shape}", seconds, "s", memory=memory)
        goals = {"ours": 90.0, "memory": 4096.0}
        yield Line(f"both: {shape}", total, "s", memory=peak, goals=goals)
        for method in ("agglomerative", "dbscan"):
            refused = [*arguments, "--stage=cluster", f"--config.cluster.method={method}"]
            if sizes.tracks > 100_000:
                seconds, memory = _run(folder, refused, status=1)
                yield Line(f"{method} of as many: refused", seconds, "s", memory=memory)


def _run(folder: Path, arguments: list[str], status: int = 0) -> tuple[float, float]:
    seconds, memory, returned, output = run_command([*MAIN, *arguments], folder)
    if returned != status or "Traceback" in output:
        raise RuntimeError(output[-2000:])
    return seconds, memory
