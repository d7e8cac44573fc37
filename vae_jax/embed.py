"""Streams records through a trained encoder: posterior means into `latents.npz`.

All that is needed beside the records is a checkpoint directory: the config and the feature
statistics travel inside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax import checkpoints, files, input_pipeline, models, records, sharding
from vae_jax.console import Progress
from vae_jax.errors import UserError
from vae_jax.models.vae import Posterior
from vae_jax.records import ArraySpec, Records, Statistics


@dataclass(frozen=True)
class Encoder:
    """A trained model, ready to embed records that hold the features it was trained on."""

    config: dict[str, Any]
    arrays: dict[str, ArraySpec]
    statistics: Statistics
    params: Any

    @classmethod
    def from_checkpoint(cls, directory: Path, step: int) -> "Encoder":
        """Load one step of a checkpoint directory."""
        metadata = checkpoints.read_metadata(directory, step)
        return cls(
            metadata["config"],
            records.arrays_from_dict(metadata["arrays"]),
            Statistics.from_dict(metadata["statistics"]["features"]),
            checkpoints.restore_params(directory, step),
        )

    def embed(self, tracks: Records, batch_size: int) -> Posterior:
        """Return the posterior of every track, mean and log_variance [N, L] float32, on the host.

        The devices work on one batch while the host reads the next.
        """
        if tracks.arrays != self.arrays:
            raise UserError(
                f"{tracks.directory} holds {tracks.arrays}, but the checkpoint was trained on "
                f"{self.arrays}: extract the features with the checkpoint's config."
            )
        mesh = sharding.make_mesh()
        model = models.build(self.config["model"], len(self.statistics.mean))
        encode = jax.jit(partial(model.apply, method="encode"), out_shardings=sharding.whole(mesh))
        variables = jax.device_put({"params": self.params}, sharding.whole(mesh))
        batches = input_pipeline.in_batches(np.arange(len(tracks), dtype=np.int32), batch_size)
        parts: list[Posterior] = []
        with Progress("embed", len(tracks), "tracks") as progress:
            in_flight = None
            for x in self._inputs(tracks, batches):
                following = encode(variables, sharding.place_rows(mesh, x))
                if in_flight is not None:
                    parts.append(jax.device_get(in_flight))
                    progress.update(min(len(parts) * batch_size, len(tracks)))
                in_flight = following
            parts.append(jax.device_get(in_flight))
            progress.update(len(tracks))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(tracks)], *parts)

    def _inputs(self, tracks: Records, batches: np.ndarray) -> Iterator[np.ndarray]:
        for batch in batches:
            x = tracks.stack("features", np.maximum(batch, 0))
            yield input_pipeline.standardise(x, self.statistics)


def write_latents(path: Path, ids: np.ndarray, posterior: Posterior) -> None:
    """Write ids [N] unicode, latents and log_variances [N, L] float32."""
    files.write_npz(
        path,
        ids=ids,
        latents=np.asarray(posterior.mean, np.float32),
        log_variances=np.asarray(posterior.log_variance, np.float32),
    )
