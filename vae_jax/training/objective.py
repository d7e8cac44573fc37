"""What training minimises, and the jitted functions that step and evaluate it.

All are pure: everything random is a function of a key and the step number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import linen as nn
from flax import struct

from vae_jax.models.posterior import Posterior
from vae_jax.models.vae import Elbo, Inputs, loss, weighted_mean
from vae_jax.parallel import devices
from vae_jax.training import input_pipeline
from vae_jax.training.array_view import Tracks
from vae_jax.training.input_pipeline import Cut
from vae_jax.training.track_view import TrackView
from vae_jax.training.views import View

OBJECTIVE_KEYS = ("beta", "beta_warmup_steps", "free_bits")
METRICS = ("loss", "reconstruction", "kl", "squared_error", "other", "grad_norm")
BATCHES = "batches"  # how many batches the metrics beside it are the sums of
ACTIVE_VARIANCE = 0.01  # of a latent's posterior mean over the data (Burda et al. 2016)
Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """All that training changes: steps done, parameters and optimiser state.

    With several seeds, every leaf has their axis first, [S, ...].
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState


def make_keys(seeds: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Return each seed's keys for initialisation and for training, [S] both."""
    roots = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
    keys = jax.vmap(jax.random.split)(roots)
    return keys[:, 0], keys[:, 1]


def init_state(
    objective: "Objective", optimizer: optax.GradientTransformation, key: jax.Array, tracks: Tracks
) -> TrainState:
    """Initialise parameters and optimiser state; `tracks` show the shapes, [1, ...]."""
    params = objective.model.init(key, objective.view.sample(tracks, key), key)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


@dataclass(frozen=True)
class Objective:
    """What training minimises: the model's beta-weighted negative ELBO.

    A mixture prior stays as it is until `mixture_start` steps are done.
    """

    model: nn.Module
    view: View | TrackView
    beta: float
    beta_warmup_steps: int
    free_bits: float
    mixture_start: int = 0

    def infer(self, params: Any, tracks: Tracks) -> Posterior:
        """Return the posterior of whole tracks, as the prior sees it."""
        inputs = self.view.whole(tracks)
        return cast(Posterior, self.model.apply({"params": params}, inputs, method="infer"))

    def terms(
        self, params: Any, key: jax.Array, resident: Tracks, batch: Tracks
    ) -> tuple[Elbo, Inputs]:
        """Return the ELBO's terms of a batch, and what the model saw of it.

        The batch is positions [B] in the resident tracks, or tracks.
        """
        positions = jnp.maximum(batch["position"], 0)
        tracks = batch | {name: array[positions] for name, array in resident.items()}
        view_key, model_key = jax.random.split(key)
        inputs = self.view.sample(tracks, view_key)
        return cast(Elbo, self.model.apply({"params": params}, inputs, model_key)), inputs

    def metrics(self, terms: Elbo, weight: jax.Array, step: Any = math.inf) -> Metrics:
        """Return the loss and its parts; without a step, beta has its final value."""
        beta = self.beta * jnp.minimum((step + 1.0) / max(self.beta_warmup_steps, 1), 1.0)
        return {
            "loss": loss(terms, weight, beta, self.free_bits),
            "reconstruction": weighted_mean(terms.reconstruction, weight),
            "kl": weighted_mean(terms.kl.sum(axis=-1), weight),
            "squared_error": weighted_mean(terms.squared_error, weight),
            "other": weighted_mean(terms.other, weight),
        }


def run_steps(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    key: jax.Array,
    resident: Tracks,
    batches: Tracks,
    count: jax.Array,
    skips: bool = False,
) -> tuple[TrainState, Metrics]:
    """Take the first `count` of the steps whose batches are given, [num_steps, B, ...].

    Returns the new state, and the metrics' sums over the steps. If it `skips`, a batch whose loss
    or gradient is not finite changes neither.
    """

    def compute_loss(params: Any, step: jax.Array, batch: Tracks) -> Any:
        terms, _ = objective.terms(params, jax.random.fold_in(key, step), resident, batch)
        metrics = objective.metrics(terms, is_example(batch), step)
        return metrics["loss"], metrics

    def step_fn(i: jax.Array, carry: Any) -> Any:
        state, totals = carry
        batch = jax.tree.map(lambda leaf: leaf[i], batches)
        grads, metrics = jax.grad(compute_loss, has_aux=True)(state.params, state.step, batch)
        if objective.mixture_start:
            is_on = (state.step >= objective.mixture_start).astype(jnp.float32)
            grads["prior"] = jax.tree.map(lambda leaf: leaf * is_on, grads["prior"])
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics[BATCHES] = jnp.ones(())
        after = TrainState(state.step + 1, params, opt_state)
        if skips:
            is_sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            before = state.replace(step=after.step)
            after = jax.tree.map(partial(jnp.where, is_sound), after, before)
            metrics = {name: jnp.where(is_sound, value, 0) for name, value in metrics.items()}
        return after, {name: total + metrics[name] for name, total in totals.items()}

    totals = dict.fromkeys((*METRICS, BATCHES), jnp.zeros(()))
    return cast(Any, jax.lax.fori_loop(0, count, step_fn, (state, totals)))


def make_cut(view: View | TrackView, seeds: Sequence[int]) -> Cut | None:
    """Return which segments `run_steps` sees in training, so that no others need be read.

    They are chosen on the host, whatever the devices are busy with.
    """
    if (cut := view.cut) is None:
        return None

    def choose(key: jax.Array, step: jax.Array, num_frames: jax.Array) -> jax.Array:
        view_key, _ = jax.random.split(jax.random.fold_in(key, step))  # as in `terms`
        return cut.starts(num_frames, view_key)

    @jax.jit
    def choose_all(first: jax.Array, num_frames: jax.Array) -> jax.Array:
        _, keys = make_keys(seeds)
        steps = first + jnp.arange(len(num_frames))
        of_seeds = jax.vmap(choose, (0, None, 0))
        return jax.vmap(of_seeds, (None, 0, 0))(keys, steps, num_frames)

    def starts(first: int, num_frames: np.ndarray) -> np.ndarray:
        with jax.default_device(devices.host()):
            return np.asarray(choose_all(np.int32(first), num_frames))

    return Cut(cut.segment_frames or 1, starts)


def average(
    sums: Sequence[Mapping[str, np.ndarray]], begin: int, end: int
) -> dict[str, np.ndarray]:
    """Return the metrics of the dispatches from one step to another, averaged over their batches.

    The number of skipped batches is among them. With several seeds all are [S]. If all batches were
    skipped, the averages are NaN.
    """
    totals = {name: np.sum([part[name] for part in sums], axis=0) for name in sums[0]}
    batches = totals.pop(BATCHES)
    skipped = end - begin - batches
    if skipped.any():
        logging.warning(
            "train: skipped %d batches before step %d as not finite", skipped.max(), end
        )
    with np.errstate(invalid="ignore"):
        return {name: total / batches for name, total in totals.items()} | {"skipped": skipped}


def run_evaluation(objective: Objective, resident: Tracks, batches: Tracks, params: Any) -> Metrics:
    """Return the metrics of padded batches, [M, B, ...], and the number of active units.

    The share of the tracks' variance that latents keep is among them (see `TrackView.kept`). The
    noise is always the same, so that the losses of different steps and seeds can be compared.
    """
    key = jax.random.key(0)

    def batch_terms(numbered: tuple[jax.Array, Tracks]) -> tuple[Elbo, Metrics]:
        i, batch = numbered
        terms, inputs = objective.terms(params, jax.random.fold_in(key, i), resident, batch)
        return terms, objective.view.kept(inputs, terms.latent)

    weight = is_example(batches)
    stacked = jax.lax.map(batch_terms, (jnp.arange(len(weight)), batches))
    terms, squares = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stacked)
    weight = weight.reshape(-1)
    deviation = terms.latent - weighted_mean(terms.latent, weight)
    variance = weighted_mean(jnp.square(deviation), weight)
    active = (variance > ACTIVE_VARIANCE).sum().astype(jnp.float32)
    kept = {}
    for name, (lost, total) in ((name, (weight @ pairs).T) for name, pairs in squares.items()):
        kept[name] = jnp.where(total > 0, 1 - lost / jnp.where(total > 0, total, 1), 1.0)
    return objective.metrics(terms, weight) | {"active_units": active} | kept


def is_example(batch: Tracks) -> jax.Array:
    """Return 1 for an example, 0 for padding, float32."""
    return (batch["position"] != input_pipeline.PADDING).astype(jnp.float32)


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
