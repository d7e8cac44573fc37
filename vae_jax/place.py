"""Places new tracks among the clusters of a run.

vae-jax place RUN --config.manifest=NEW.csv --outdir=DIR

RUN is the results folder of a run. Its model encodes the new tracks, which join the run's own
clusters; nothing is trained or clustered anew. DIR/placed.csv has a row for each track: its cluster
and the second choice with their probabilities, how far it is from anything known, the nearest known
tracks, and its place on the run's map. Columns such as pca_cluster say the same by the baselines,
and mixture_cluster by the model's own mixture.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import flags

from vae_jax import api, process
from vae_jax import config as config_lib
from vae_jax.collection.place import FALSE_RATE, Placed
from vae_jax.errors import UserError
from vae_jax.run import FAILED, MAPS
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
    _ = run.clusters  # before anything is encoded: a run that has none is refused
    new = _encode(run, manifest, outdir)
    placed = {name: run.place(latents, name) for name, latents in new.latents.items()}
    columns = {"id": new.ids, **_columns(run, "", placed["vae"])}
    positions = _positions(run, new.latents["vae"])
    columns |= {name: [*map(_cell, positions[:, axis])] for axis, name in enumerate("xy")}
    columns["feature"] = [config_lib.described(run.config.feature)] * len(new.ids)
    if new.assignments is not None:
        columns |= _choices("mixture_", *run.place_in_mixture(new.assignments))
    for name in [name for name in placed if name != "vae"]:
        columns |= _columns(run, f"{name}_", placed[name])
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    files.write_csv(outdir / PLACED, [*columns], rows)
    lines = _report(run, new.ids, placed["vae"])
    print("\n".join([*lines, f"written: {outdir / PLACED}, {outdir / FAILED}"]))


@dataclass(frozen=True)
class New:
    """The tracks that can be read, encoded.

    Attributes
    ----------
    ids
        [M].
    latents
        [M, L], by the method: "vae", and the baselines of the run that have clusters.
    assignments
        The probabilities of the mixture's components, [M, K], where the run has clusters of it.
    """

    ids: list[str]
    latents: dict[str, np.ndarray]
    assignments: np.ndarray | None


def _encode(run: api.Results, manifest: str, outdir: Path) -> New:
    """Encode the new tracks as the run did its own."""
    from vae_jax.embedding import projected
    from vae_jax.run import checkpoints_in
    from vae_jax.stages import runner

    config = config_lib.from_elsewhere(config_lib.to_dict(run.config))
    config.update(manifest=manifest, baselines=(), duplicates="keep", embed={"format": "npz"})
    stages = ("features", "embed")
    done = runner.run_stages(config, outdir, stages, checkpoints_in(run.outdir))
    arrays, latents = files.read_npz(done.embedding("vae")), {}
    if (run.outdir / "baselines" / "raw_projection.npz").exists():
        latents = projected.project(
            run.outdir, run.made_with, run.config, done.records, done.conditions
        )
    latents = {name: points for name, points in latents.items() if name in run.methods}
    mixture = arrays.get("assignments") if "mixture" in run.methods else None
    return New(arrays["ids"].tolist(), {"vae": arrays["latents"], **latents}, mixture)


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


def _choices(prefix: str, clusters: np.ndarray, probabilities: np.ndarray) -> dict[str, list]:
    """Return the columns of the two likeliest clusters, [M, 2]."""
    said = [[f"{value:.4f}" for value in choice] for choice in probabilities.T.tolist()]
    return {
        f"{prefix}cluster": clusters[:, 0].tolist(),
        f"{prefix}probability": said[0],
        f"{prefix}second_cluster": clusters[:, 1].tolist(),
        f"{prefix}second_probability": said[1],
    }


def _columns(run: api.Results, prefix: str, placed: Placed) -> dict[str, list]:
    """Return a method's columns."""
    nearest = [[run.ids[row] for row in rows] for rows in placed.nearest.T[:NUM_NEAREST]]
    return {
        **_choices(prefix, placed.clusters, placed.probabilities),
        f"{prefix}outlier": ["yes" if one else "no" for one in placed.is_outlier],
        f"{prefix}outlier_score": [f"{score:.4f}" for score in placed.outlier_scores],
        **{f"{prefix}nearest_{n}": names for n, names in enumerate(nearest, 1)},
    }


def _cell(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""


def _report(run: api.Results, ids: Sequence[str], placed: Placed) -> list[str]:
    """Say how many tracks are in each cluster, and which are unlike anything known."""
    sizes, names = Counter(placed.clusters[:, 0].tolist()), run.cluster_names
    mark = f" by {run.mark}" if run.mark else ""
    lines = [f"{len(ids)} track{'s' * (len(ids) > 1)} placed{mark}:"]
    for cluster, size in sizes.most_common():
        rows = np.flatnonzero(placed.clusters[:, 0] == cluster)
        sure = rows[np.argsort(-placed.probabilities[rows, 0], kind="stable")[:NUM_EXAMPLES]]
        name = "noise" if cluster < 0 else f"cluster {cluster} {names.get(cluster, '')}".rstrip()
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
