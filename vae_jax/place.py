"""Places new tracks among the clusters of a run.

vae-jax place RUN --config.manifest=NEW.csv --outdir=DIR

RUN is the results folder of a run. Its model encodes the new tracks, which join the run's own
clusters; nothing is trained or clustered anew. DIR/placed.csv has a row for each track: its cluster
and the second choice with their probabilities, how far it is from anything known, the nearest known
tracks, and its place on the run's map.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vae_jax import api, process
from vae_jax import config as config_lib
from vae_jax.collection.place import FALSE_RATE, Placed
from vae_jax.errors import UserError
from vae_jax.run import FAILED, LATENTS, MAPS
from vae_jax.storage import files

PLACED = "placed.csv"
NUM_NEAREST = 3
NUM_EXAMPLES = 3
DUE = 0.1  # of tracks unlike anything known, from which on another training is advised


def main(argv: Sequence[str]) -> None:
    """Encode the new tracks, place them, and say what was found."""
    if len(argv) != 2:
        raise UserError("name one results folder: vae-jax place results/track.")
    manifest, outdir = flags.FLAGS["config.manifest"].value, flags.FLAGS.outdir
    if not manifest or not outdir:
        raise UserError("--config.manifest and --outdir are needed: the new tracks, and a folder.")
    run, outdir = api.load(argv[1]), Path(outdir)
    if outdir.resolve() == run.outdir.resolve():
        raise UserError(f"--outdir={outdir} holds the run itself: name another folder.")
    ids, latents = _encode(run, manifest, outdir)
    placed = run.place(latents)
    _write(outdir / PLACED, run, ids, placed, _positions(run, latents))
    print("\n".join([*_report(ids, placed), f"written: {outdir / PLACED}, {outdir / FAILED}"]))


def _encode(run: api.Results, manifest: str, outdir: Path) -> tuple[list[str], np.ndarray]:
    """Return ids [M] and latents [M, L] of the tracks that can be read."""
    from vae_jax.run import checkpoints_in
    from vae_jax.stages import runner

    config = config_lib.from_elsewhere(config_lib.to_dict(run.config))
    config.update(manifest=manifest, baselines=())
    runner.run_stages(config, outdir, ("features", "embed"), checkpoints_in(run.outdir))
    arrays = files.read_npz(outdir / LATENTS, "ids", "latents")
    return arrays["ids"].tolist(), arrays["latents"]


def _positions(run: api.Results, latents: np.ndarray) -> np.ndarray:
    """Return coordinates [M, 2] on the run's map: between the nearest tracks; NaN without a map."""
    from vae_jax.plots import projections

    for path in sorted((run.outdir / MAPS).glob("vae_*.csv")):
        rows = files.read_csv(path)
        mapped = [run.positions[row["id"]] for row in rows]
        coordinates = np.array([(float(row["x"]), float(row["y"])) for row in rows], np.float32)
        if len(mapped) >= projections.NUM_ANCHORS:
            return projections.place(latents, run.latents[mapped], coordinates)
    return np.full((len(latents), 2), np.nan, np.float32)


def _write(
    path: Path, run: api.Results, ids: Sequence[str], placed: Placed, positions: np.ndarray
) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for i, id_ in enumerate(ids):
            first, second = placed.clusters[i].tolist()
            likely, unlikely = placed.probabilities[i].tolist()
            nearest = [run.ids[row] for row in placed.nearest[i, :NUM_NEAREST]]
            yield {
                "id": id_,
                "cluster": first,
                "probability": f"{likely:.4f}",
                "second_cluster": second,
                "second_probability": f"{unlikely:.4f}",
                "outlier": "yes" if placed.is_outlier[i] else "no",
                "outlier_score": f"{placed.outlier_scores[i]:.4f}",
                **{f"nearest_{n}": name for n, name in enumerate(nearest, 1)},
                **dict(zip("xy", _cells(positions[i]), strict=True)),
            }

    names = ["id", "cluster", "probability", "second_cluster", "second_probability"]
    names += ["outlier", "outlier_score", *(f"nearest_{n + 1}" for n in range(NUM_NEAREST))]
    files.write_csv(path, [*names, "x", "y"], rows())


def _cells(position: np.ndarray) -> list[str]:
    return [f"{value:.6g}" if np.isfinite(value) else "" for value in position.tolist()]


def _report(ids: Sequence[str], placed: Placed) -> list[str]:
    """Say how many tracks are in each cluster, and which are unlike anything known."""
    sizes = Counter(placed.clusters[:, 0].tolist())
    lines = [f"{len(ids)} tracks placed:"]
    for cluster, size in sizes.most_common():
        rows = np.flatnonzero(placed.clusters[:, 0] == cluster)
        sure = rows[np.argsort(-placed.probabilities[rows, 0], kind="stable")[:NUM_EXAMPLES]]
        name = "noise" if cluster < 0 else f"cluster {cluster}"
        lines.append(f"  {name}: {size} ({', '.join(ids[row] for row in sure)})")
    strange = np.flatnonzero(placed.is_outlier)
    if len(strange):
        examples = strange[np.argsort(-placed.distances[strange, 0])[:NUM_EXAMPLES]]
        lines.append(
            f"{len(strange)} are unlike anything known, as {FALSE_RATE:.0%} of the known tracks "
            f"would seem: {', '.join(ids[row] for row in examples)}"
        )
    if len(strange) >= DUE * len(ids) and len(ids) > 1:
        lines.append("A tenth or more are unlike anything known: it is time to train again.")
    return lines


if __name__ == "__main__":
    flags.DEFINE_string("config.manifest", None, "The CSV file that lists the new tracks.")
    flags.DEFINE_string("outdir", None, "The folder for placed.csv and what it is made from.")
    process.run_command(main)
