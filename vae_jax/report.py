"""What a run prints at its end: the comparison with the baselines, and where everything is."""

import re
from collections.abc import Sequence
from pathlib import Path

from vae_jax import compare
from vae_jax.clustering import metrics_file
from vae_jax.run import CONFIG, FAILED, RUN, TRAIN_METRICS
from vae_jax.stages import up_to_date
from vae_jax.storage.urls import Location

SHARD = re.compile(r"-\d+-of-\d+\.npz$")


def report(outdir: Path, folders: Sequence[Location]) -> str:
    """Return the table of the outdir's latest clustering, and a list of all that there is.

    Parameters
    ----------
    outdir
        The run's results; what this run wrote is listed, shards by their folder.
    folders
        Further folders that the run used: features and checkpoints.
    """
    parts = []
    metrics = outdir / metrics_file.NAME
    if metrics.exists():
        rows = metrics_file.read(metrics)
        parts.append(compare.table([row for row in rows if row["run_id"] == rows[-1]["run_id"]]))
    own = [name for name in (RUN, CONFIG, FAILED, TRAIN_METRICS) if (outdir / name).exists()]
    paths = sorted(outdir / name for name in {*own, *up_to_date.outputs(outdir)})
    names = [f"{path.parent}/" if SHARD.search(path.name) else path for path in paths]
    lines = [f"  {name}" for name in dict.fromkeys([*names, *(f"{one}/" for one in folders)])]
    parts.append("\n".join(["Written or up to date:", *lines]))
    return "\n\n".join(parts)
