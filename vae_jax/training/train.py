"""Trains a VAE on feature records: many steps per dispatch, data-parallel, exact resume.

`train` reads records, writes checkpoints and metrics into one directory, and continues from the
latest sound checkpoint when it is called again. Everything random is a pure function of the seed
and the step number. `config.num_seeds` models, S, train side by side in one program, each as it
would alone, since a small model does not fill a machine.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from vae_jax.config import AUTO
from vae_jax.console import Progress
from vae_jax.errors import Preempted, UserError
from vae_jax.parallel import devices, processes
from vae_jax.parallel.seeds import over_seeds
from vae_jax.process import StopRequest, stop_signals
from vae_jax.storage import files
from vae_jax.training import input_pipeline, mixture
from vae_jax.training.checkpoints import BEST_METRIC, COMPLETE, Checkpoints, steps_in
from vae_jax.training.history import FILE, RATE, History
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec
from vae_jax.training.objective import (
    OBJECTIVE_KEYS,
    Objective,
    TrainState,
    average,
    init_state,
    make_cut,
    make_keys,
    make_optimizer,
    run_evaluation,
    run_steps,
)

ONWARD = 0.1  # of the learning rate, where a trained model is trained on
MAX_SKIPPED = 0.05  # of a run's batches, under `skip_nonfinite`


@dataclass(frozen=True)
class Program:
    """A training run: its first state, and its compiled functions with their data bound.

    `start_mixture` is called when `mixture_start` steps are done, if that is not 0.
    """

    state: TrainState
    train_steps: Callable[[TrainState, int, int], tuple[TrainState, Mapping[str, Any]]]
    evaluate: Callable[[Any], dict[str, jax.Array]]
    start_mixture: Callable[[TrainState], TrainState]
    mixture_start: int


def train(source: Source, model_spec: ModelSpec, directory: Path, start: Any | None = None) -> None:
    """Train to the end, from the latest checkpoint in `directory` if there is one.

    Parameters
    ----------
    source
        The features of all tracks.
    model_spec
        The model; it is saved inside every checkpoint.
    directory
        Receives the checkpoints, the metrics and, at the very end, `complete.json`.
    start
        The parameters to start from, [S, ...]; random ones if None.

    Raises
    ------
    UserError
        If the loss is not finite.
    Preempted
        After SIGTERM or SIGINT, once the state is saved.
    """
    with stop_signals() as stop_asked:  # also while a job's processes prepare: they end together
        _train(source, model_spec, directory, start, stop_asked)


def _train(
    source: Source, model_spec: ModelSpec, directory: Path, start: Any, stop_asked: StopRequest
) -> None:
    settings = model_spec.resolved["train"]
    program = prepare(source, model_spec, start)
    metadata = model_spec.to_dict()
    checkpoints = Checkpoints(directory)
    step, state = checkpoints.restore_latest(program.state) or (0, program.state)
    history = History(directory, step, program.mixture_start, processes.is_first())
    if step:
        logging.info("train: resuming at step %d in %s", step, directory)
    patience = settings["patience"] or math.inf
    finished, skipped = step >= settings["num_steps"] or history.stale >= patience, 0.0
    stopping = processes.any_says(bool(stop_asked))
    with (
        Progress("train", settings["num_steps"], "steps", step) as progress,
        jax.transfer_guard("disallow"),
    ):
        while not (finished or stopping):
            begin, started = step, time.monotonic()
            step = next_stop(begin, settings, program.mixture_start)
            if begin and begin == program.mixture_start:
                state = program.start_mixture(state)
            state, step_metrics = program.train_steps(state, begin, step)
            metrics = to_host("train", step_metrics)  # waits for the steps
            metrics[RATE] = (step - begin) / (time.monotonic() - started)
            history.log(step, metrics)
            progress.update(step, f"loss {metrics['train/loss']:.4g}")
            check_finite((metrics["train/loss"], metrics["train/grad_norm"]), step, checkpoints)
            skipped += metrics["train/skipped"]
            check_skipped(skipped, settings["num_steps"], checkpoints)
            finished = step == settings["num_steps"]
            stopping = processes.any_says(bool(stop_asked))
            metrics = {BEST_METRIC: math.inf}  # a stop is in a hurry: it does not evaluate
            save = finished or step % settings["checkpoint_every"] == 0
            if save or step % settings["eval_every"] == 0:
                metrics = to_host("eval", program.evaluate(state.params))
                history.log(step, metrics)
                check_finite((metrics[BEST_METRIC],), step, checkpoints)
                finished |= history.stale >= patience
                if step <= program.mixture_start:  # with another prior, it is never the best
                    metrics[BEST_METRIC] = math.inf
            if save or finished or stopping:
                checkpoints.save(step, state, metadata, metrics)
    checkpoints.close()
    history.close()
    if finished and processes.is_first():
        ended = {"step": step, "metrics": files.sha256(directory / FILE)}
        files.write_sealed_json(directory / COMPLETE, ended)
    if processes.any_says(bool(stop_asked)):
        raise Preempted(f"training stopped at step {step}; the same command continues from there.")


def prepare(source: Source, model_spec: ModelSpec, start: Any | None = None) -> Program:
    """Place the data on the devices, initialise the state there, and bind the jitted functions.

    Parameters that are given to start from have a mixture already, which then learns from step 0.
    They are near to where training leads, and the full learning rate would lose them.
    """
    config = model_spec.resolved
    settings, mesh = config["train"], devices.make_mesh(num_seeds=config["num_seeds"])
    split = devices.seeds(mesh)
    training, validation = input_pipeline.split(source.records.ids, settings["validation_fraction"])
    if not len(validation):
        logging.warning("train: no track is held out, so eval/* is of the training tracks")
        validation = training
    gib = settings["resident_gib"]
    resident_bytes = devices.memory_bytes() // 4 if gib == AUTO else int(gib * 2**30)
    if jax.default_backend() == "cpu":  # whose devices share one memory
        resident_bytes //= mesh.local_mesh.size
    model, view = model_spec.build()
    seeds = [config["seed"] + i for i in range(config["num_seeds"])]
    feed = input_pipeline.Feed(
        *(source, mesh, settings["batch_size"], resident_bytes, view.precompute),
        cut=make_cut(view, seeds),
    )
    starts_mixture = config["model"]["prior"] == "mixture" and start is None
    mixture_start = settings["num_steps"] // 2 if starts_mixture else 0
    weights = {name: config["model"][name] for name in OBJECTIVE_KEYS}
    objective = Objective(model, view, **weights, mixture_start=mixture_start)
    rate = settings["learning_rate"] * (1 if start is None else ONWARD)
    optimizer = make_optimizer({**settings, "learning_rate": rate})
    shuffles = [input_pipeline.Shuffle(training, settings["batch_size"], seed) for seed in seeds]
    init_keys, train_keys = jax.jit(partial(make_keys, seeds), out_shardings=split)()
    state = jax.jit(
        over_seeds(partial(init_state, objective, optimizer), (0, None), len(seeds)),
        out_shardings=split,
    )(init_keys, source.load(training[:1]) | {"position": training[:1]})
    if start is not None:
        state = state.replace(params=devices.place_seeds(mesh, start))
    run = partial(run_steps, objective, optimizer, skips=settings["skip_nonfinite"])
    step_fn = jax.jit(
        over_seeds(run, (0, 0, None, 1, None), len(seeds)),
        donate_argnums=0,
        out_shardings=split,
    )
    evaluate = jax.jit(
        over_seeds(partial(run_evaluation, objective), (None, None, 0), len(seeds)),
        out_shardings=split,
    )
    held_out = feed.validation(validation)

    def train_steps(state: TrainState, begin: int, end: int) -> tuple[TrainState, Any]:
        parts, limits = [], (settings["log_every"], settings["num_steps"])
        for batches, count in feed.dispatches(shuffles, begin, end, *limits):
            on_device = devices.place_whole(mesh, np.int32(count))
            state, metrics = step_fn(state, train_keys, feed.resident, batches, on_device)
            parts.append(metrics)
        return state, average(jax.device_get(parts), begin, end)

    def start_mixture(state: TrainState) -> TrainState:
        with jax.transfer_guard("allow"):
            params = jax.device_get(state.params)
            params = mixture.initialise(objective.infer, params, source, training, seeds)
        return state.replace(params=devices.place_seeds(mesh, params))

    return Program(
        state,
        train_steps,
        partial(evaluate, feed.resident, held_out),
        start_mixture,
        mixture_start,
    )


def next_stop(step: int, settings: Mapping[str, Any], mixture_start: int = 0) -> int:
    """Return the next step at which something is due: a log line, evaluation, checkpoint, end.

    Stops lie at multiples, so a resumed run stops where an undisturbed one does.
    """
    every = (settings["log_every"], settings["eval_every"], settings["checkpoint_every"])
    stops = (mixture_start, settings["num_steps"], *((step // n + 1) * n for n in every))
    return min(stop for stop in stops if stop > step)


def check_finite(values: Sequence[float], step: int, checkpoints: Checkpoints) -> None:
    """Stop a run whose loss, or the norm of its gradient after it, is NaN or infinite."""
    if all(map(math.isfinite, values)):
        return
    checkpoints.close()
    saved = steps_in(checkpoints.directory)
    last = f"the last good checkpoint is {checkpoints.directory / str(saved[-1])}" if saved else ""
    said = ", the norm of its gradient ".join(map(str, values))
    raise UserError(
        f"the loss is {said} at step {step}: lower config.train.learning_rate, or skip such "
        f"batches by config.train.skip_nonfinite ({last or 'there is no checkpoint yet'})."
    )


def check_skipped(skipped: float, num_steps: int, checkpoints: Checkpoints) -> None:
    """Stop a run that skipped more than `MAX_SKIPPED` of all its batches.

    It would learn from the rest alone. `skipped` is how many it skipped so far, averaged over the
    seeds.
    """
    if skipped <= MAX_SKIPPED * num_steps:
        return
    checkpoints.close()
    raise UserError(
        f"train: {skipped:.0f} batches of {num_steps} were skipped as not finite, and at most "
        f"{MAX_SKIPPED:.0%} may be: lower config.train.learning_rate, and look for tracks whose "
        "features are huge or not finite."
    )


def to_host(prefix: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Fetch metrics [S] from the device: their means over the seeds, and each seed's loss."""
    fetched = jax.device_get(metrics)
    named = {f"{prefix}/{name}": float(np.mean(values)) for name, values in fetched.items()}
    losses = fetched["loss"] if len(fetched["loss"]) > 1 else []
    return named | {f"{prefix}/loss_{i}": float(value) for i, value in enumerate(losses)}
