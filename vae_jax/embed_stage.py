"""The embed stage: checkpoints and records in, the embeddings of all methods out.

All processes of a job write shards, each its share: of every trained model's latents, and of what
the raw features are made from. The first process then makes the results of them.
"""

from typing import Any

import numpy as np

from vae_jax import baselines, checkpoints, decode, distributed, embed, files, reconstructions
from vae_jax.latents import Shards
from vae_jax.run import Run


def write_shards(this: Run) -> None:
    """Write those of this process's shards that are not finished."""
    for model in this.trained:
        shards = _model_shards(this, model)
        if missing := _own_missing(shards):
            encoder = embed.Encoder(this.checkpoint_dir(model), this.steps[model])
            parts = [shards.positions(shard) for shard in missing]
            batch_size = this.config.embed.batch_size
            posteriors = encoder.embed(this.records, this.conditions, parts, batch_size)
            for shard, posterior in zip(missing, posteriors, strict=True):
                shards.write(shard, latents=posterior.mean, log_variances=posterior.log_variance)
    summaries = _summary_shards(this)
    for shard in _own_missing(summaries):
        positions = summaries.positions(shard)
        summaries.write(shard, **baselines.summaries(this.records, positions))


def finish(this: Run) -> None:
    """Write every embedding and the reconstructions; remove the shards."""
    models = {model: _model_shards(this, model) for model in this.trained}
    for model, shards in models.items():
        shards.merge(this.embedding(model))
    latents = files.read_npz(this.embedding("vae"))["latents"]
    encoder = embed.Encoder(this.checkpoint_dir(), this.steps["vae"])
    decoded = decode.decode(encoder, this.records, this.conditions, latents)
    reconstructions.write(this.outdir / reconstructions.FILE, decoded)
    summaries = _summary_shards(this)
    parts = [summaries.read(shard) for shard in range(len(summaries))]
    known = baselines.statistics(this.records, parts)
    weight = this.config.feature.lyrics_weight
    raw = np.concatenate([baselines.raw(this.records, part, known, weight) for part in parts])
    files.write_npz(this.embedding("raw"), ids=this.records.ids, latents=raw)
    if "pca" in this.baselines:
        pca = baselines.pca(raw, latents.shape[1], this.config.seed)
        files.write_npz(this.embedding("pca"), ids=this.records.ids, latents=pca)
    for shards in (*models.values(), summaries):
        shards.remove()


def _model_shards(this: Run, model: str) -> Shards:
    seal = checkpoints.seal(this.checkpoint_dir(model), this.steps[model])
    return _shards(this, model, seal, this.conditions)


def _summary_shards(this: Run) -> Shards:
    return _shards(this, "summaries")


def _shards(this: Run, name: str, *made_from: Any) -> Shards:
    return Shards(
        this.embedding(name).with_suffix(""),
        this.records.ids,
        this.config.embed.shard_size,
        files.fingerprint(this.records.fingerprint, *made_from),
    )


def _own_missing(shards: Shards) -> list[int]:
    """Return this process's share of the shards, but for those that are finished."""
    return [k for k in distributed.own_share(range(len(shards))) if not shards.is_finished(k)]
