"""The train stage: records in, checkpoints and the training log out."""

import contextlib
import hashlib

from absl import logging

from vae_jax.errors import UserError
from vae_jax.parallel import processes
from vae_jax.run import TRAIN_METRICS, Run
from vae_jax.storage import files


def update(run: Run) -> bool:
    """Train the models; each one's folder of checkpoints says whether that is finished."""
    if run.checkpoint:
        logging.info("train: skipped, since --checkpoint=%s is given", run.checkpoint)
        _copy_log(run)
        return False
    from vae_jax.parallel import devices

    devices.use_cores(run.config.num_seeds)
    processes.wait_for_all("features")
    changed = [train_one(run, model) for model in run.trained]
    _copy_log(run)
    return any(changed)


def _copy_log(run: Run) -> None:
    """Bring the training log of the run's model, and of no other, into the outdir."""
    from vae_jax.training.checkpoints import COMPLETE, has_ended

    metrics = run.checkpoint_dir() / TRAIN_METRICS
    if not metrics.exists():
        logging.warning("%s is missing: there will be no training curves", metrics)
        (run.outdir / TRAIN_METRICS).unlink(missing_ok=True)
        return
    content = metrics.read_bytes()
    if has_ended(run.checkpoint_dir()):
        ended = files.read_sealed_json(metrics.with_name(COMPLETE))
        if hashlib.sha256(content).hexdigest() != ended["metrics"]:
            logging.warning("%s is damaged: the training curves lack what it has lost", metrics)
    with files.atomic_write(run.outdir / TRAIN_METRICS) as file:
        file.write(content)


def train_one(run: Run, model: str) -> bool:
    """Train one model, with all processes of the job; the first holds the lock."""
    from vae_jax.training import checkpoints

    directory = run.checkpoint_dir(model)
    if directory.resolve() == run.outdir.resolve():  # its own lock would keep it waiting for ever
        raise UserError(
            f"--outdir={run.outdir} is where this config's checkpoints go: name another folder."
        )
    with files.lock(directory) if processes.is_first() else contextlib.nullcontext():
        is_complete = checkpoints.is_complete(directory)
        processes.wait_for_all(f"training of {model}")
        if is_complete:
            return False
        from vae_jax.training import input_pipeline, model_spec, train

        logging.info("train: the checkpoints of the %s go to %s", model.upper(), directory)
        described = model_spec.ModelSpec.of(run.model_config(model), run.records, run.conditions)
        start = run.starts.get(model)
        if start:
            logging.info("train: the %s trains on from %s", model.upper(), start.directory)
            described = start.continued(described)
        source = input_pipeline.Source(run.records, described.class_numbers(run.conditions))
        train.train(source, described, directory, start.params() if start else None)
    return True
