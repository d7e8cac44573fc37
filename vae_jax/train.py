"""Trains a VAE on feature records: many steps per dispatch, data-parallel, exact resume.

`train` reads records, writes checkpoints and metrics into one directory, and continues from the
latest sound checkpoint when it is called again. Everything random is a pure function of the seed
and the step number.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import linen as nn
from flax import struct

from vae_jax import files, input_pipeline, models, sharding
from vae_jax.checkpoints import BEST_METRIC, COMPLETE, Checkpoints
from vae_jax.console import Progress
from vae_jax.errors import Preempted, UserError
from vae_jax.history import History, stalled
from vae_jax.models.vae import Elbo, loss, weighted_mean
from vae_jax.records import Records

METRICS = ("loss", "reconstruction", "kl", "squared_error", "grad_norm")
ACTIVE_VARIANCE = 0.01  # of a latent's posterior mean over the data (Burda et al. 2016)


class TrainState(struct.PyTreeNode):
    """All that training changes: steps done, parameters and optimiser state."""

    step: jax.Array
    params: Any
    opt_state: optax.OptState


@dataclass(frozen=True)
class Program:
    """A training run's compiled functions, placed data and initial state."""

    state: TrainState
    train_steps: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[..., dict[str, jax.Array]]


def train(records: Records, config: Mapping[str, Any], directory: Path) -> None:
    """Train to the end, from scratch or from the latest checkpoint in `directory`.

    Parameters
    ----------
    records
        The features of all tracks.
    config
        The resolved config as a plain dict.
    directory
        Receives the checkpoints, the metrics and, at the very end, `complete.json`.

    Raises
    ------
    UserError
        If the loss is not finite.
    Preempted
        After SIGTERM or SIGINT, once the state is saved.
    """
    settings = config["train"]
    program = prepare(records, config)
    metadata = describe(records, config)
    checkpoints = Checkpoints(directory)
    step, state = checkpoints.restore_latest(program.state) or (0, program.state)
    history = History(directory, step)
    if step:
        logging.info("train: resuming at step %d in %s", step, directory)
    finished = step >= settings["num_steps"]
    with (
        stop_signals() as stop_asked,
        Progress("train", settings["num_steps"], "steps", step) as progress,
        jax.transfer_guard("disallow"),
    ):
        while not finished and not stop_asked:
            begin, step, started = step, next_stop(step, settings), time.monotonic()
            state, step_metrics = program.train_steps(state, begin, step)
            metrics = to_host("train", step_metrics)  # waits for the steps
            metrics["train/steps_per_second"] = (step - begin) / (time.monotonic() - started)
            history.log(step, metrics)
            progress.update(step, f"loss {metrics['train/loss']:.4g}")
            check_finite(metrics["train/loss"], step, directory)
            finished = step == settings["num_steps"]
            save = finished or stop_asked or step % settings["checkpoint_every"] == 0
            if save or step % settings["eval_every"] == 0:
                metrics = to_host("eval", program.evaluate(state.params))
                history.log(step, metrics)
                finished |= stalled(history.values(BEST_METRIC), settings["patience"])
            if save or finished:
                checkpoints.save(step, state, metadata, metrics)
    checkpoints.close()
    history.close()
    if not finished:
        raise Preempted(f"training stopped at step {step}; the same command continues from there.")
    files.write_json(directory / COMPLETE, {"step": step})


def prepare(records: Records, config: Mapping[str, Any]) -> Program:
    """Place the data on the devices, initialise the state there, and bind the jitted functions."""
    settings, mesh = config["train"], sharding.make_mesh()
    size, whole = settings["batch_size"], sharding.whole(mesh)
    features = load(records)
    training, validation = input_pipeline.split(records.ids, settings["validation_fraction"])
    if not len(validation):
        logging.warning("train: no track is held out, so eval/* is of the training tracks")
        validation = training
    model, optimizer = models.build(config["model"], features.shape[1]), make_optimizer(settings)
    init_key, train_key, eval_key = jax.random.split(jax.random.key(config["seed"]), 3)
    state = jax.jit(partial(init_state, model, optimizer), out_shardings=whole)(
        init_key, features[:1]
    )
    objective = Objective(
        model,
        *(config["model"][name] for name in ("beta", "beta_warmup_steps", "free_bits")),
    )
    train_steps = jax.jit(
        partial(run_steps, objective, optimizer),
        donate_argnames="state",
        out_shardings=whole,
    )
    evaluate = jax.jit(partial(run_evaluation, objective), out_shardings=whole)
    shuffle = input_pipeline.Shuffle(training, size, config["seed"])
    data, train_key, eval_key = jax.device_put((features, train_key, eval_key), whole)
    held_out = sharding.place_batches(mesh, input_pipeline.in_batches(validation, size))

    def bound_train_steps(state: TrainState, begin: int, end: int) -> tuple[TrainState, Any]:
        count = jax.device_put(np.int32(end - begin), whole)
        # Always the same shape, so that a shorter run of steps compiles nothing new.
        batches = np.zeros((settings["log_every"], size), np.int32)
        batches[: end - begin] = shuffle.batches(begin, end - begin)
        return train_steps(state, train_key, data, sharding.place_batches(mesh, batches), count)

    return Program(state, bound_train_steps, partial(evaluate, eval_key, data, held_out))


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, x: jax.Array
) -> TrainState:
    """Initialise parameters and optimiser state for inputs like x, [1, D]."""
    params = model.init(key, x, key)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


@dataclass(frozen=True)
class Objective:
    """What training minimises: the model's beta-weighted negative ELBO."""

    model: nn.Module
    beta: float
    beta_warmup_steps: int
    free_bits: float

    def terms(self, params: Any, key: jax.Array, data: jax.Array, batch: jax.Array) -> Elbo:
        """Return the ELBO's terms for positions [B] in standardised features, [N, D]."""
        x = data[jnp.maximum(batch, 0)]
        return cast(Elbo, self.model.apply({"params": params}, x, key))

    def metrics(self, terms: Elbo, batch: jax.Array, step: Any = math.inf) -> dict[str, jax.Array]:
        """Return the loss and its parts; without a step, beta has its final value."""
        weight = (batch != input_pipeline.PADDING).astype(terms.reconstruction.dtype)
        beta = self.beta * jnp.minimum((step + 1.0) / max(self.beta_warmup_steps, 1), 1.0)
        return {
            "loss": loss(terms, weight, beta, self.free_bits),
            "reconstruction": weighted_mean(terms.reconstruction, weight),
            "kl": weighted_mean(terms.kl.sum(axis=-1), weight),
            "squared_error": weighted_mean(terms.squared_error, weight),
        }


def run_steps(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    key: jax.Array,
    data: jax.Array,
    batches: jax.Array,
    count: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take the first `count` of the steps whose batches are given, [num_steps, B].

    Returns the new state, and the metrics averaged over the steps.
    """

    def compute_loss(params: Any, step: jax.Array, batch: jax.Array) -> Any:
        terms = objective.terms(params, jax.random.fold_in(key, step), data, batch)
        metrics = objective.metrics(terms, batch, step)
        return metrics["loss"], metrics

    def step_fn(i: jax.Array, carry: Any) -> Any:
        state, totals = carry
        grads, metrics = jax.grad(compute_loss, has_aux=True)(state.params, state.step, batches[i])
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        totals = {name: totals[name] + metrics[name] for name in METRICS}
        return TrainState(state.step + 1, params, opt_state), totals

    totals = dict.fromkeys(METRICS, jnp.zeros(()))
    state, totals = jax.lax.fori_loop(0, count, step_fn, (state, totals))
    return state, {name: total / count for name, total in totals.items()}


def run_evaluation(
    objective: Objective, key: jax.Array, data: jax.Array, batches: jax.Array, params: Any
) -> dict[str, jax.Array]:
    """Return the metrics of padded batches, [M, B], and the number of active units."""

    def batch_terms(inputs: tuple[jax.Array, jax.Array]) -> Elbo:
        i, batch = inputs
        return objective.terms(params, jax.random.fold_in(key, i), data, batch)

    stacked = jax.lax.map(batch_terms, (jnp.arange(len(batches)), batches))
    terms = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stacked)
    batch = batches.reshape(-1)
    weight = (batch != input_pipeline.PADDING).astype(terms.latent.dtype)
    deviation = terms.latent - weighted_mean(terms.latent, weight)
    variance = weighted_mean(jnp.square(deviation), weight)
    active = (variance > ACTIVE_VARIANCE).sum().astype(jnp.float32)
    return objective.metrics(terms, batch) | {"active_units": active}


def describe(records: Records, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must travel with the parameters: config, features and their statistics."""
    return {
        "config": config,
        "arrays": {name: spec.__dict__ for name, spec in records.arrays.items()},
        "statistics": {name: part.to_dict() for name, part in records.statistics.items()},
        "records_fingerprint": records.fingerprint,
    }


def make_optimizer(settings: Mapping[str, Any]) -> optax.GradientTransformation:
    """Return AdamW with gradient clipping, linear warm-up and cosine decay to zero."""
    num_steps = settings["num_steps"]
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings["learning_rate"], min(settings["warmup_steps"], num_steps // 2), num_steps
    )
    return optax.chain(
        optax.clip_by_global_norm(settings["clip_norm"]),
        optax.adamw(schedule, weight_decay=settings["weight_decay"]),
    )


def next_stop(step: int, settings: Mapping[str, Any]) -> int:
    """Return the next step at which something is due: a log line, evaluation, checkpoint, end.

    Stops lie at multiples, so a resumed run stops where an undisturbed one does.
    """
    every = (settings["log_every"], settings["eval_every"], settings["checkpoint_every"])
    return min(settings["num_steps"], *((step // n + 1) * n for n in every))


def check_finite(value: float, step: int, directory: Path) -> None:
    """Stop a run whose loss is NaN or infinite."""
    if not math.isfinite(value):
        raise UserError(
            f"the loss is {value} at step {step}: lower config.train.learning_rate (the "
            f"checkpoints in {directory} are from before)."
        )


class StopRequest:
    """Set by SIGTERM or SIGINT: finish the steps in flight, save and leave."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a request to stop; a second SIGINT interrupts at once."""
    request, previous = StopRequest(), {}

    def handle(number: int, frame: FrameType | None) -> None:
        request.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():  # Python allows it only there
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def to_host(prefix: str, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """Fetch metrics from the device, named `prefix/metric`."""
    fetched = jax.device_get(metrics)
    return {f"{prefix}/{name}": float(value) for name, value in fetched.items()}


def load(records: Records) -> np.ndarray:
    """Return the standardised feature vectors of all tracks, [N, D] float32."""
    features = records.stack("features", np.arange(len(records)))
    return input_pipeline.standardise(features, records.statistics["features"])
