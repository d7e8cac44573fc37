"""The stages of a run, in order, each redone only when what it depends on has changed.

features -> train -> embed -> cluster -> visualize. `Run` says where each finds and leaves its
files.
"""

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax.embedding import reconstructions
from vae_jax.errors import UserError
from vae_jax.parallel import processes
from vae_jax.records import reader
from vae_jax.run import (
    CLUSTERING_METRICS,
    CLUSTERS,
    FAILED,
    MARKERS,
    SUBFOLDERS,
    TRAIN_METRICS,
    Run,
)
from vae_jax.storage import files


def help_the_first(
    config: ConfigDict, outdir: Path, stages: Sequence[str], checkpoint: Path | None
) -> None:
    """Do the part of a process that is not the first of its job: train and embed with it."""
    this = Run(config, outdir, checkpoint)
    if "train" in stages and not checkpoint:
        processes.wait_for_all("features")
        for model in this.trained:
            _train_one(this, model)
    if "embed" in stages:
        _write_shards(this, is_due=False)
    processes.wait_for_all("end")


def run(
    config: ConfigDict,
    outdir: Path,
    stages: Sequence[str],
    checkpoint: Path | None,
    beam_options: str = "",
) -> Run:
    """Run the given stages in order; each skips what is up to date."""
    this = Run(config, outdir, checkpoint, beam_options)
    with files.lock(outdir, *SUBFOLDERS):
        files.write_json(outdir / "config.json", config_lib.to_dict(config))
        for name in stages:
            started = time.monotonic()
            try:
                done = STAGES[name](this)
            except reader.DamagedRecord as error:
                reader.invalidate(error)
                raise
            seconds = time.monotonic() - started
            logging.info("%s: %s (%.1f s)", name, "done" if done else "up to date", seconds)
    processes.wait_for_all("end")
    return this


def features(this: Run) -> bool:
    """Extract features into records; write `failed.csv`."""
    from vae_jax.features import extract

    with files.lock(this.records_dir):
        changed, failures = extract.extract(
            this.manifest,
            this.config.feature.to_dict(),
            this.records_dir,
            lyrics=this.lyrics,
            beam_options=this.beam_options,
            store=this.records_store,
        )
    extract.write_failures(this.outdir / FAILED, failures)
    kept = sum(failure.kept for failure in failures)
    for count, fate in (
        (len(failures) - kept, "failed and are left out"),
        (kept, "are kept without their audio or lyrics, which failed"),
    ):
        if count:
            logging.warning(
                "features: %d of %d tracks %s; %s says why",
                *(count, len(this.manifest), fate, this.outdir / FAILED),
            )
    return changed


def train(this: Run) -> bool:
    """Train the models; each one's folder of checkpoints says whether that is finished."""
    if this.checkpoint:
        logging.info("train: skipped, since --checkpoint=%s is given", this.checkpoint)
        return False
    from vae_jax.parallel import devices
    from vae_jax.training.checkpoints import COMPLETE

    devices.use_cores(this.config.num_seeds)
    processes.wait_for_all("features")
    changed = [_train_one(this, model) for model in this.trained]
    metrics = this.checkpoint_dir() / TRAIN_METRICS
    if metrics.exists():
        content, ended = metrics.read_bytes(), files.read_sealed_json(metrics.with_name(COMPLETE))
        if hashlib.sha256(content).hexdigest() != ended["metrics"]:
            logging.warning("%s is damaged: the training curves lack what it has lost", metrics)
        with files.atomic_write(this.outdir / TRAIN_METRICS) as file:
            file.write(content)
    else:
        logging.warning("%s is missing: there will be no training curves", metrics)
    return any(changed)


def _train_one(this: Run, model: str) -> bool:
    """Train one model, with all processes of the job; the first holds the lock."""
    from vae_jax.training import checkpoints

    directory = this.checkpoint_dir(model)
    with files.lock(directory) if processes.is_first() else contextlib.nullcontext():
        is_complete = checkpoints.is_complete(directory)
        processes.wait_for_all(f"training of {model}")
        if is_complete:
            return False
        from vae_jax.training import input_pipeline, model_spec, train

        logging.info("train: the checkpoints of the %s go to %s", model.upper(), directory)
        described = model_spec.Description.of(
            this.model_config(model), this.records, this.conditions
        )
        source = input_pipeline.Source(this.records, described.class_numbers(this.conditions))
        train.train(source, described, directory)
    return True


def embed(this: Run) -> bool:
    """Write the latents of all tracks, and the baselines' embeddings."""
    from vae_jax.parallel import devices
    from vae_jax.training import checkpoints

    devices.use_cores(this.config.num_seeds)
    seals = [checkpoints.seal(this.checkpoint_dir(name), step) for name, step in this.steps.items()]
    feature, seed = this.config.feature, this.config.seed
    made_from = [this.records.fingerprint, this.conditions, seals, feature.lyrics_weight, seed]
    made_from.append(this.is_sharded and this.config.embed.shard_size)

    def write() -> None:
        from vae_jax.stages import embed as embed_stage

        _write_shards(this, is_due=True)
        embed_stage.finish(this)

    outputs = [*this.embeddings(), this.outdir / reconstructions.FILE]
    is_done = _unless_up_to_date(this, "embed", made_from, write, outputs)
    if not is_done:
        _write_shards(this, is_due=False)
    return is_done


def _write_shards(this: Run, is_due: bool) -> None:
    """Embed with all processes of the job, where the first one finds that it is due."""
    if processes.first_says("embed", is_due):
        from vae_jax.stages import embed as embed_stage

        embed_stage.write_shards(this)
        processes.wait_for_all("shards")


def cluster(this: Run) -> bool:
    """Cluster and score the latents and the baselines alike."""
    config = config_lib.to_dict(this.config)
    columns = (config["cluster"]["label"], "artist")
    hashes = _hashes(this, this.embeddings(), "embed")
    if not this.is_sharded:  # of shards, all methods but k-means are refused anyway
        from vae_jax.clustering import clusterers

        count = len(files.read_npz(this.embedding("vae"), "ids")["ids"])
        clusterers.check_size(config["cluster"]["method"], count)
    made_from = [
        hashes,
        [*(config[key] for key in ("cluster", "seed")), this.baselines],
        config["model"]["condition"],
        [this.manifest.ids, *map(this.manifest.columns.get, columns)],
    ]

    def write() -> None:
        from vae_jax.stages import cluster as cluster_stage

        run_id = files.fingerprint(*made_from)
        cluster_stage.run(
            this.outdir, this.methods, this.manifest, this.config, run_id, this.supervised
        )

    outputs = [this.outdir / CLUSTERING_METRICS, this.outdir / CLUSTERS]
    return _unless_up_to_date(this, "cluster", made_from, write, outputs)


def visualize(this: Run) -> bool:
    """Draw the latents, the clusters and the training curves."""
    config = config_lib.to_dict(this.config)
    inputs = [*this.embeddings(), this.outdir / CLUSTERS]
    optional = [this.outdir / name for name in (TRAIN_METRICS, reconstructions.FILE)]
    made_from = [
        _hashes(this, inputs, "cluster"),
        [files.sha256(path) if path.exists() else None for path in optional],
        [*(config[key] for key in ("visualize", "seed")), this.baselines],
        [this.manifest.ids, *map(this.manifest.columns.get, config["visualize"]["color_by"])],
    ]

    def write() -> None:
        from vae_jax.stages import visualize

        titles = {"pca": "PCA", "raw": "raw features", "ae": "autoencoder"}
        methods = [visualize.Method("vae", "VAE latents", supervised=bool(this.supervised))]
        methods += [
            visualize.Method.baseline(name, titles[name], supervised=name in this.supervised)
            for name in this.baselines
        ]
        visualize.run(this.outdir, methods, this.manifest, this.config)

    folder = this.outdir / "latent_visualization"
    return _unless_up_to_date(this, "visualize", made_from, write, [folder])


STAGES: dict[str, Callable[[Run], bool]] = {
    "features": features,
    "train": train,
    "embed": embed,
    "cluster": cluster,
    "visualize": visualize,
}


def _unless_up_to_date(
    this: Run, stage: str, made_from: Any, write: Callable[[], None], outputs: Sequence[Path]
) -> bool:
    """Call `write` unless its outputs exist unharmed, made from the same; say whether it did.

    `outputs` are files, or folders whose files count.
    """
    marker = this.outdir / MARKERS / f"{stage}.json"
    digest = files.fingerprint(made_from)
    before = _read_marker(marker)
    changed = before["outputs"].items() - _contents(before["outputs"], this.outdir).items()
    for name, _ in sorted(changed):
        logging.warning("%s is damaged, changed or missing: redoing it", this.outdir / name)
    if before["made_from"] == digest and not changed:
        return False
    write()
    names = [str(path.relative_to(this.outdir)) for path in _files_in(outputs) if path.is_file()]
    contents = _contents(names, this.outdir)
    files.write_sealed_json(marker, {"made_from": digest, "outputs": contents})
    return True


def _read_marker(path: Path) -> dict[str, Any]:
    """Return what a stage was made from, and the hashes of what it wrote; none if unknown."""
    try:
        return files.read_sealed_json(path)
    except FileNotFoundError:
        pass
    except UserError as error:
        logging.warning("%s", error)
    return {"made_from": None, "outputs": {}}


def _files_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths, and those in the folders among them."""
    found = (sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths)
    return list(itertools.chain.from_iterable(found))


def _contents(names: Iterable[str], folder: Path) -> dict[str, str | None]:
    paths = {name: folder / name for name in names}
    return {name: files.sha256(path) if path.exists() else None for name, path in paths.items()}


def _hashes(this: Run, paths: Sequence[Path], stage: str) -> list[str]:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: run --stage={stage} first.")
    return [files.sha256(path) for path in _files_in(paths)]
