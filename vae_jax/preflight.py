"""What can be known before work starts: everything that would end a run later is refused here.

`runner.run` calls `check` before it makes a folder or reads a sound.
"""

import difflib
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax.errors import UserError
from vae_jax.parallel import processes, programs
from vae_jax.records import layout
from vae_jax.run import RUN, Run, read_run
from vae_jax.training import literal_paths

# Where one of these is wrong, JAX would say so only when features are extracted.
SETTINGS_OF_JAX = ("JAX_DISABLE_JIT", "JAX_PLATFORMS", "XLA_FLAGS")
MIN_FREE = 4096  # bytes; with less, not even the config can be written


def check(run: Run, stages: Collection[str]) -> None:
    """Refuse a run that is bound to fail.

    Parameters
    ----------
    run
        A run whose config is valid.
    stages
        The stages that are to run.

    Raises
    ------
    UserError
        If the manifest is not given, cannot be read or lacks a column; if there are fewer tracks
        than clusters, or more than a clusterer takes; if an output folder cannot be written,
        is full, holds records or checkpoints, or results of another model to cluster; if a network
        of features is missing; if a checkpoint was made with another config; or if JAX finds no
        device.
    """
    if run.config.manifest is None:
        raise UserError(
            "config.manifest is not set: name the CSV file that lists your tracks with "
            "--config.manifest=PATH/metadata.csv, or try --config=demo."
        )
    given = config_lib.get_config()
    if run.checkpoint:
        given = config_lib.from_dict(run.checkpoint_metadata["config"])
        _check_checkpoint(run, given)
        if "embed" in stages:
            _check_model(run.checkpoint)
    _check_outdir(run)
    _check_results(run, stages)
    _check_folders(run, stages)
    if {"features", "cluster", "visualize"} & {*stages} or run.config.model.condition:
        _check_columns(run, stages, given)
    if "features" in stages:
        _check_space(run)
        if run.config.duplicates == "drop":
            from vae_jax.features import fingerprint

            fingerprint.check_installed("keep duplicates, with --config.duplicates=keep")
        if run.config.feature.name == "musicnn":
            from vae_jax.features import musicnn

            musicnn.load(run.config.feature)
    if "cluster" in stages:
        from vae_jax.clustering import clusterers

        clusterers.check_size(run.config.cluster, len(run.manifest))
    if {"train", "embed"} & {*stages} and _is_jax_told():
        from vae_jax.parallel import devices

        devices.use_cores(run.config.num_seeds)


def _is_jax_told() -> bool:
    """Say whether the environment has settings of JAX that are not our own."""
    own = {"XLA_FLAGS": programs.EXACT}
    return any(os.environ.get(name, own.get(name)) != own.get(name) for name in SETTINGS_OF_JAX)


def _check_checkpoint(run: Run, trained: ConfigDict) -> None:
    """Check that the config is the one that a checkpoint's model was trained with."""
    differing = []
    for section, settings in (("feature", config_lib.shared_settings), ("model", dict)):
        ours, theirs = settings(run.config[section]), settings(trained[section])
        differing += [
            f"config.{section}.{name} is {value!r} here and {theirs[name]!r} there"
            for name, value in ours.items()
            if value != theirs[name]
        ]
    if differing:
        raise UserError(
            f"the model in {run.checkpoint} was trained with another config "
            f"({'; '.join(differing)}): leave --config out, which takes the checkpoint's own."
        )


def _check_model(directory: Path) -> None:
    """Check that this version knows the model, which an earlier one may have written."""
    from vae_jax.embedding.encoder import Encoder
    from vae_jax.training import checkpoints

    Encoder(directory, checkpoints.best_step(directory))


def _check_outdir(run: Run) -> None:
    """Check that the results do not go where records or checkpoints are kept."""
    outdir = run.outdir.resolve()
    records = outdir == run.records_dir.resolve() or (outdir / layout.INDEX).exists()
    checkpoints = run.checkpoint is not None and outdir == run.checkpoint.resolve()
    for is_taken, what in (
        (records, "feature records"),
        (checkpoints or any(outdir.glob("sha256-*.json")), "checkpoints"),
    ):
        if is_taken:
            raise UserError(
                f"--outdir={run.outdir} is a folder of {what}: name another one for the results."
            )


def _check_results(run: Run, stages: Collection[str]) -> None:
    """Check that what is to be clustered or drawn was made with this config."""
    if {"features", "train", "embed"} & {*stages} or not (run.outdir / RUN).exists():
        return
    if not run.is_described(read_run(run.outdir)):
        raise UserError(
            f"the results in {run.outdir} were made with other features or another model than this "
            "config's: run --stage=embed first, or name another --outdir."
        )


def _check_folders(run: Run, stages: Collection[str]) -> None:
    """Check that the folders of all outputs can be made, and written on a disk with some room."""
    folders = {"--outdir": run.outdir}
    if "features" in stages:
        folders["config.data_dir"] = run.records_dir
    if "train" in stages and not run.checkpoint:
        folders["config.checkpoint_dir"] = Path(run.config.checkpoint_dir)
        literal_paths.check(Path(run.config.checkpoint_dir), processes.is_alone())
    for name, folder in folders.items():
        existing = _nearest(folder)
        if existing.is_symlink() and not existing.exists():
            raise UserError(
                f"{name}: {existing} is a link to {os.readlink(existing)}, which is not there; "
                "name another folder."
            )
        if not existing.is_dir():
            raise UserError(f"{name}: {existing} is a file, not a folder; name another folder.")
        is_read = folder == run.records_dir and (folder / layout.INDEX).exists()
        if not is_read and not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(
                f"{name}: cannot write into {existing} (permission denied, or a read-only disk); "
                "name another folder."
            )
        free = shutil.disk_usage(existing).free
        if free < MIN_FREE:
            raise UserError(
                f"{name}: the disk of {existing} is full; make room, or name another folder."
            )


def _check_space(run: Run) -> None:
    """Warn if the features of tracks as long as `config.feature.duration` would not fit."""
    folder = run.records_dir
    if (folder / layout.INDEX).exists():
        return
    most = len(run.manifest) * _bytes_per_track(run.config.feature)
    free = shutil.disk_usage(_nearest(folder)).free
    if most > free:
        logging.warning(
            "features of %d tracks may take up to %.1f GiB, but %.1f GiB are free in %s",
            *(len(run.manifest), most / 2**30, free / 2**30, folder.parent),
        )


def _bytes_per_track(feature: ConfigDict) -> float:
    """Return about how many bytes the features of a track of the full duration take, at most."""
    name = feature.audio_feature if feature.name == "hybrid" else feature.name
    if name == "musicnn":
        return 4 * 200 * feature.duration / 3  # a description of every 3 s
    bands = {"logmelspec": feature.n_mels, "mfcc_frames": feature.n_mfcc}.get(name)
    if bands is None:
        return 4 * (feature.n_mels + feature.lyrics_embed_dim)
    return 2 * bands * feature.duration * feature.sample_rate / feature.hop_length


def _nearest(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _check_columns(run: Run, stages: Collection[str], given: ConfigDict) -> None:
    """Check that the manifest has the columns that the config names.

    `given` has the values that keys have by default; columns that these name may be missing.
    """
    config, columns = run.config, run.manifest.columns
    if "features" in stages:
        _check_sources(run)
    if name := config.model.condition:
        _require(run, name, "config.model.condition")
        if "train" in stages and not run.checkpoint and not any(columns[name]):
            raise UserError(
                f"the column {name!r} of {run.manifest.path} is empty in every row, so "
                "config.model.condition would tell the model nothing: fill it, or name another."
            )
    label = config.cluster.label
    if "cluster" in stages and label and label != given.cluster.label:
        _require(run, label, "config.cluster.label")
    shown = config.visualize.color_by
    if "visualize" in stages and shown != given.visualize.color_by:
        for name in shown:
            _require(run, name, "config.visualize.color_by")
    _hint(columns, ["artist", label])


def _check_sources(run: Run) -> None:
    """Check that the manifest has a column that the features are made from."""
    name = run.config.feature.name
    sources = {
        "lyrics_tfidf": ["lyrics"],
        "hybrid": ["audio_path", "lyrics"],
        "embedding": ["id"],
    }
    needed = sources.get(name, ["audio_path"])
    if not any(column in ("id", *run.manifest.columns) for column in needed):
        raise UserError(
            f"{run.manifest.path} has no column {needed[0]!r}, which config.feature.name={name} "
            f"needs (it has {_listed(run.manifest.columns)}): add one."
        )


def _require(run: Run, name: str, key: str) -> None:
    columns = run.manifest.columns
    if name in columns:
        return
    close = difflib.get_close_matches(name, columns, 1)
    hint = f"did you mean {close[0]!r}?" if close else "name one of them."
    raise UserError(
        f"{key} names the column {name!r}, but {run.manifest.path} has {_listed(columns)}: {hint}"
    )


def _hint(columns: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Say which columns would be used if they were written in lower case."""
    for name in columns:
        if name not in wanted and name.lower() in wanted and name.lower() not in columns:
            logging.warning("the column %r is not used: rename it to %r", name, name.lower())


def _listed(columns: Mapping[str, Any]) -> str:
    return ", ".join(repr(name[:50]) for name in ["id", *columns][:20])
