"""Streams tracks through a trained encoder, and yields their posteriors.

All that is needed beside the records is a checkpoint directory: the config, the feature
statistics and the lyrics' vocabulary travel inside it.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from vae_jax.console import Progress
from vae_jax.errors import UserError
from vae_jax.models.posterior import Posterior
from vae_jax.parallel import devices
from vae_jax.parallel.ahead import ahead
from vae_jax.parallel.seeds import over_seeds
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec
from vae_jax.training import checkpoints, input_pipeline
from vae_jax.training.array_view import Tracks
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec

BATCH_BYTES = 2**25  # of stored features in one batch, at most


class Encoder:
    """A trained model, ready to embed records of the features that it was trained on.

    Parameters
    ----------
    directory, step
        The checkpoint, which may be of an earlier version.

    Attributes
    ----------
    params
        The parameters of all S models that were trained together, [S, ...].
    num_models
        S.
    best
        Which of them has the lowest validation loss.

    Raises
    ------
    UserError
        If this version does not know such a model.
    """

    def __init__(self, directory: Path, step: int) -> None:
        devices.check_found()
        metadata = checkpoints.read_metadata(directory, step)
        try:
            self.model_spec = ModelSpec.from_dict(metadata)
            self.params = checkpoints.restore_params(directory, step)
            _check_sizes(self.model_spec, self.params)
        except Exception as error:  # another version may have written anything
            reason = " ".join(str(error).split())[:500]
            raise UserError(
                f"the model in {directory / str(step)} is not one that this version of vae_jax "
                f"knows ({type(error).__name__}: {reason}): use the version that wrote it, or "
                "train again."
            ) from error
        self.num_models = len(jax.tree.leaves(self.params)[0])
        self.best = checkpoints.best_model(directory, step, self.num_models)

    @property
    def best_params(self) -> Any:
        """The parameters of the best model."""
        return jax.tree.map(lambda leaf: leaf[self.best], self.params)

    def assign(self, posterior: Posterior) -> np.ndarray | None:
        """Return the probability of each component of each model's mixture, [n, S, K] float32.

        `posterior` has all models, [n, S, L]. None without a mixture prior.
        """
        if self.model_spec.config["model"]["prior"] != "mixture":
            return None
        return np.asarray(self._assign({"params": self.params}, posterior))

    @cached_property
    def _assign(self) -> Any:
        """The function behind `assign`, compiled once for all shards."""
        model, _ = self.model_spec.build()
        one = partial(model.apply, method="assign")
        return jax.jit(over_seeds(one, (0, 1), self.num_models, out_axis=1))

    @cached_property
    def _encode(self) -> Any:
        """The compiled function from parameters and tracks to the posteriors of all models."""
        model, view = self.model_spec.build()

        def encode(params: Any, tracks: Tracks) -> Posterior:
            inputs = view.whole(tracks)
            one = partial(model.apply, method="encode")
            over_models = over_seeds(one, (0, None), self.num_models, out_axis=1)
            return cast(Posterior, over_models({"params": params}, inputs))

        # Every row is a track's own: nothing is exchanged.
        return jax.jit(encode, out_shardings=devices.rows(devices.make_mesh(jax.local_devices())))

    def embed(
        self,
        records: Records,
        conditions: Sequence[str],
        parts: Sequence[np.ndarray],
        batch_size: int,
    ) -> Iterator[Posterior]:
        """Yield the posteriors of each part, mean and log_variance [n, S, L] float32, on the host.

        `parts` are positions of tracks, [n] each; `conditions` has each track's class, for a
        model with a condition. One batch is read, one is encoded, and one is used, at a time.
        """
        if records.arrays != self.model_spec.arrays:
            ours, theirs = map(_listed, (records.arrays, self.model_spec.arrays))
            raise UserError(
                f"{records.directory} holds {ours}, but the checkpoint was trained on {theirs}: "
                "extract the features with the checkpoint's config."
            )
        source = Source(records, self.model_spec.class_numbers(conditions))
        mesh = devices.make_mesh(jax.local_devices())
        params = devices.place_whole(mesh, self.params)
        # All processes of a job use one size, whatever their parts, so that the last digits agree.
        size = min(batch_size, max(1, BATCH_BYTES // records.bytes_per_track), len(records))
        batches = [
            input_pipeline.pad(input_pipeline.in_batches(part, size), mesh.size) for part in parts
        ]

        def read(batch: np.ndarray) -> Tracks:
            mine = devices.own_part(mesh, np.maximum(batch, 0))
            return devices.place_rows(mesh, source.load(mine))

        def run() -> Iterator[Posterior]:
            in_flight = None
            for tracks in ahead(map(read, itertools.chain.from_iterable(batches))):
                following = self._encode(params, tracks)
                if in_flight is not None:
                    yield jax.device_get(in_flight)
                in_flight = following
            yield jax.device_get(in_flight)

        posteriors = run()
        with Progress("embed", sum(map(len, parts)), "tracks") as progress:
            for part in batches:
                done = []
                for batch, posterior in zip(part, posteriors, strict=False):
                    real = batch != input_pipeline.PADDING
                    done.append(jax.tree.map(lambda leaf, real=real: leaf[real], posterior))
                    progress.update(progress.done + int(real.sum()))
                yield jax.tree.map(lambda *leaves: np.concatenate(leaves, dtype=np.float32), *done)


def _check_sizes(model_spec: ModelSpec, params: Any) -> None:
    """Check that a model has the parameters that its description asks for, of any number [S, ...].

    Nothing is computed.
    """
    model, view = model_spec.build()
    frames = model_spec.config["model"]["segment_frames"]
    tracks: dict[str, Any] = {
        name: np.zeros((1, *(size or frames for size in spec.shape)), spec.dtype)
        for name, spec in model_spec.arrays.items()
    }
    tracks |= {"num_frames": np.full(1, frames, np.int32), "position": np.zeros(1, np.int32)}
    if model_spec.classes:
        tracks["condition"] = np.zeros(1, np.int32)

    def init(key: jax.Array) -> Any:
        return model.init(key, view.sample(tracks, key), key)["params"]

    expected = dict(jax.tree.leaves_with_path(jax.eval_shape(init, jax.random.key(0))))
    found = dict(jax.tree.leaves_with_path(params))
    for path in expected.keys() | found.keys():
        one, other = expected.get(path), found.get(path)
        if one is None or other is None or one.shape != other.shape[1:]:
            shapes = [None if leaf is None else leaf.shape for leaf in (one, other)]
            raise ValueError(f"{jax.tree_util.keystr(path)} is {shapes[1]}, expected {shapes[0]}")


def _listed(arrays: Mapping[str, ArraySpec]) -> str:
    """Name arrays with their shapes, in words."""
    shapes = {
        name: " x ".join("frames" if size is None else str(size) for size in spec.shape)
        for name, spec in arrays.items()
    }
    return ", ".join(f"{name} ({shape or 'a number'})" for name, shape in shapes.items())
