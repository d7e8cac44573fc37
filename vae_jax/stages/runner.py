"""The stages of a run, in order, each redone only when what it depends on has changed.

features -> train -> embed -> cluster -> visualize. `Run` says where each finds and leaves its
files.
"""

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax import history, preflight
from vae_jax.parallel import processes
from vae_jax.records import layout
from vae_jax.run import CONFIG, RUN, SUBFOLDERS, Run
from vae_jax.storage import files

STAGES = ("features", "train", "embed", "cluster", "visualize")


def help_the_first(
    config: ConfigDict, outdir: Path, stages: Sequence[str], checkpoint: Path | None
) -> None:
    """Do the part of a process that is not the first of its job: train and embed with it."""
    run = Run(config, outdir, checkpoint)
    if "train" in stages and not checkpoint:
        processes.wait_for_all("features")
        for model in run.trained:
            _stage("train").train_one(run, model)
    if "embed" in stages:
        _stage("embed").share_shards(run, is_due=False)
    processes.wait_for_all("end")


def run_stages(
    config: ConfigDict,
    outdir: Path,
    stages: Sequence[str],
    checkpoint: Path | None,
    beam_options: str = "",
) -> Run:
    """Run the given stages in order; each skips what is up to date."""
    run = Run(config, outdir, checkpoint, beam_options)
    preflight.check(run, stages)
    with files.lock(outdir, *SUBFOLDERS):
        for name in stages:
            started = time.monotonic()
            if name != "features":
                history.follow(run)
            try:
                done = _stage(name).update(run)
            except layout.DamagedRecord as error:
                layout.invalidate(error)
                raise
            seconds = time.monotonic() - started
            logging.info("%s: %s (%.1f s)", name, "done" if done else "up to date", seconds)
            history.follow(run)
            described = run.describe(name)
            files.write_json(outdir / CONFIG, config_lib.to_dict(config))
            files.write_json(outdir / RUN, described)
    processes.wait_for_all("end")
    return run


def _stage(name: str) -> Any:
    """Import a stage when its turn comes: `--help` would wait for JAX and matplotlib."""
    return importlib.import_module(f"vae_jax.stages.{name}")
