"""Embeds new tracks by the baselines of a finished run, as `stages.embed` did its own tracks.

What a baseline was made with stands beside it in the results: `baselines/<name>_projection.npz`, or
a checkpoint for the plain autoencoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from vae_jax.embedding import baselines, plda
from vae_jax.embedding.baselines import Projection
from vae_jax.embedding.encoder import Encoder
from vae_jax.records.reader import Records
from vae_jax.storage import files


@dataclass(frozen=True)
class Kept:
    """What a run has kept of its statistics."""

    mean: np.ndarray
    std: np.ndarray


def project(
    outdir: Path,
    made_with: Mapping[str, Any],
    config: ConfigDict,
    records: Records,
    conditions: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the latents [M, L] of M tracks under every baseline of a run that allows it.

    Parameters
    ----------
    outdir, made_with, config
        The run's results, its `run.json`, and its config.
    records
        The new tracks' features, extracted as the run's were.
    conditions
        Each track's class, for a model with a condition.
    """
    folder, found = outdir / "baselines", dict[str, np.ndarray]()
    everything = np.arange(len(records), dtype=np.int32)
    arrays = files.read_npz(folder / "raw_projection.npz")
    known = {
        name.removesuffix("_mean"): Kept(mean, arrays[name.removesuffix("mean") + "std"])
        for name, mean in arrays.items()
        if name.endswith("_mean")
    }
    part = baselines.summaries(records, everything)
    raw = baselines.raw(records, part, known, config.feature.lyrics_weight)
    for name in made_with["embeddings"]:
        if name == "raw":
            found[name] = raw
        elif name == "pca":
            found[name] = Projection.read(folder / "pca_projection.npz")(raw)
        elif name == "plda":
            projection = Projection.read(folder / "plda_projection.npz")
            if projection.standard_mean is None or projection.standard_std is None:
                logging.warning("%s: plda is of an earlier version, and is left out", outdir)
                continue
            scale = Kept(projection.standard_mean, projection.standard_std)
            segments = plda.summarise(records, everything, config.model.segment_frames, scale)
            found[name] = projection(segments.means, segments.counts)
        elif name == "ae":
            trained = made_with["checkpoints"]["ae"]
            encoder = Encoder(outdir / trained["directory"], trained["step"])
            size = config.embed.batch_size
            (posterior,) = encoder.embed(records, conditions, [everything], size)
            found[name] = np.asarray(posterior.mean)[:, encoder.best]
    return found
