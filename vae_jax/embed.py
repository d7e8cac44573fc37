"""Streams tracks through a trained encoder: posterior means into `latents.npz`.

All that is needed beside the records is a checkpoint directory: the config, the feature
statistics and the lyrics' vocabulary travel inside it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from vae_jax import checkpoints, files, input_pipeline, sharding
from vae_jax.console import Progress
from vae_jax.description import Description
from vae_jax.errors import UserError
from vae_jax.input_pipeline import Source
from vae_jax.models.posterior import Posterior
from vae_jax.records import Records
from vae_jax.views import Tracks

BATCH_BYTES = 2**25  # of stored features in one batch, at most


class Encoder:
    """A trained model, ready to embed records of the features that it was trained on.

    Parameters
    ----------
    directory, step
        The checkpoint.
    index
        Which of the models that were trained together.
    """

    def __init__(self, directory: Path, step: int, index: int = 0) -> None:
        metadata = checkpoints.read_metadata(directory, step)
        self.description = Description.from_dict(metadata)
        params = checkpoints.restore_params(directory, step)
        self.params = jax.tree.map(lambda leaf: leaf[index], params)

    def embed(self, records: Records, conditions: Sequence[str], batch_size: int) -> Posterior:
        """Return the posterior of every track, mean and log_variance [N, L] float32, on the host.

        `conditions` has each track's class, for a model with a condition. The devices work on
        one batch while the host reads the next.
        """
        if records.arrays != self.description.arrays:
            raise UserError(
                f"{records.directory} holds {records.arrays}, but the checkpoint was trained on "
                f"{self.description.arrays}: extract the features with the checkpoint's config."
            )
        source = Source(records, self.description.class_numbers(conditions))
        mesh = sharding.make_mesh(jax.local_devices())
        model, view = self.description.build()

        def encode(variables: Any, tracks: Tracks) -> Posterior:
            return cast(Posterior, model.apply(variables, view.whole(tracks), method="encode"))

        program = jax.jit(encode, out_shardings=sharding.rows(mesh))  # nothing is exchanged
        variables = sharding.place_whole(mesh, {"params": self.params})
        size = min(batch_size, max(1, BATCH_BYTES // source.bytes_per_track))
        positions = np.arange(len(source), dtype=np.int32)
        batches = input_pipeline.pad(input_pipeline.in_batches(positions, size), mesh.size)

        def run() -> Iterator[Posterior]:
            in_flight = None
            for batch in batches:
                mine = sharding.own_part(mesh, np.maximum(batch, 0))
                tracks = sharding.place_rows(mesh, source.load(mine))
                following = program(variables, tracks)
                if in_flight is not None:
                    yield jax.device_get(in_flight)
                in_flight = following
            yield jax.device_get(in_flight)

        parts: list[Posterior] = []
        with Progress("embed", len(source), "tracks") as progress:
            for part, batch in zip(run(), batches, strict=True):
                real = batch != input_pipeline.PADDING
                parts.append(jax.tree.map(lambda leaf, real=real: leaf[real], part))
                progress.update(min(len(parts) * size, len(source)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def write_latents(path: Path, ids: np.ndarray, posterior: Posterior) -> None:
    """Write ids [N] unicode, latents and log_variances [N, L] float32."""
    files.write_npz(
        path,
        ids=ids,
        latents=np.asarray(posterior.mean, np.float32),
        log_variances=np.asarray(posterior.log_variance, np.float32),
    )
