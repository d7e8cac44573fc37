"""The embed stage: checkpoints and records in, the embeddings of all methods out.

All processes of a job write shards, each its share. The shards hold every trained model's latents,
and what the raw features are made from. The first process then makes the results from them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax.embedding import baselines, decode, plda, reconstructions
from vae_jax.embedding.encoder import Encoder
from vae_jax.embedding.latents import Latents, Shards
from vae_jax.models.posterior import Posterior
from vae_jax.parallel import devices, processes
from vae_jax.run import Run
from vae_jax.stages.up_to_date import unless_up_to_date
from vae_jax.storage import files
from vae_jax.training import checkpoints


def update(this: Run) -> bool:
    """Write the latents of all tracks, and the baselines' embeddings."""
    devices.use_cores(this.config.num_seeds)
    seals = [checkpoints.seal(this.checkpoint_dir(name), step) for name, step in this.steps.items()]
    feature, seed = this.config.feature, this.config.seed
    made_from = [this.records.fingerprint, this.conditions, seals, feature.lyrics_weight, seed]
    made_from.append(this.is_sharded and this.config.embed.shard_size)
    made_from += [this.baselines, "plda" in this.baselines and this.config.model.segment_frames]

    def write() -> list[Path]:
        share_shards(this, is_due=True)
        finish(this)
        return [*this.embeddings(), *this.projections(), this.outdir / reconstructions.FILE]

    is_done = unless_up_to_date(this, "embed", made_from, write)
    if not is_done:
        share_shards(this, is_due=False)
    return is_done


def share_shards(this: Run, is_due: bool) -> None:
    """Embed with all processes of the job, if the first one finds that it is due."""
    if processes.first_says("embed", is_due):
        write_shards(this)
        processes.wait_for_all("shards")


def write_shards(this: Run) -> None:
    """Write those of this process's shards that are not finished."""
    for model in this.trained:
        shards = _model_shards(this, model)
        if missing := _own_missing(shards):
            encoder = Encoder(this.checkpoint_dir(model), this.steps[model])
            parts = [shards.positions(shard) for shard in missing]
            batch_size = this.config.embed.batch_size
            posteriors = encoder.embed(this.records, this.conditions, parts, batch_size)
            for shard, posterior in zip(missing, posteriors, strict=True):
                shards.write(shard, **_arrays(encoder, posterior))
    summaries = _summary_shards(this)
    for shard in _own_missing(summaries):
        positions = summaries.positions(shard)
        arrays = baselines.summaries(this.records, positions)
        summaries.write(shard, **arrays, **_segments(this, positions))


def _arrays(encoder: Encoder, posterior: Posterior) -> dict[str, np.ndarray]:
    """Return what is kept of the posteriors of all models, [n, S, L]."""
    best = jax.tree.map(lambda leaf: leaf[:, encoder.best], posterior)
    arrays: dict[str, Any] = {"latents": best.mean, "log_variances": best.log_variance}
    of_all: dict[str, Any] = {"seed_latents": posterior.mean}
    assignments = encoder.assign(posterior)
    if assignments is not None:
        arrays["assignments"] = assignments[:, encoder.best]
        of_all["seed_assignments"] = assignments
    return arrays | (of_all if encoder.num_models > 1 else {})


def _segments(this: Run, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Return what PLDA is made from, where it is a baseline."""
    if "plda" not in this.baselines:
        return {}
    size = this.config.model.segment_frames
    return vars(plda.summarise(this.records, positions, size))


def finish(this: Run) -> None:
    """Make every embedding from the shards, and the reconstructions."""
    written = {model: _model_shards(this, model) for model in this.trained}
    written["raw"] = _write_raw(this)
    if not this.is_sharded:
        for method, shards in written.items():
            shards.merge(this.embedding(method))
    latents = Latents(this.embedding("vae"))
    encoder = Encoder(this.checkpoint_dir(), this.steps["vae"])
    decoded = decode.decode(encoder, this.records, this.conditions, latents.chunks())
    reconstructions.write(this.outdir / reconstructions.FILE, decoded)
    if "pca" in this.baselines:
        written["pca"] = _write_pca(this, latents.dim)
    if "plda" in this.baselines:
        written["plda"] = _write_plda(this, latents.dim)
    for shards in written.values():
        shards.remove(keep_these=this.is_sharded)
        if this.is_sharded:
            shards.folder.with_suffix(".npz").unlink(missing_ok=True)
    _summary_shards(this).remove()


def _write_raw(this: Run) -> Shards:
    """Write shards of the raw features, standardised by all tracks."""
    weight, summaries = this.config.feature.lyrics_weight, _summary_shards(this)
    known = baselines.statistics(this.records, map(summaries.read, range(len(summaries))))
    measured = {
        f"{name}_{what}": getattr(one, what)
        for name, one in known.items()
        for what in ("mean", "std")
    }
    files.write_npz(this.projection("raw"), **measured)
    raw = _shards(this, "raw", weight)
    for shard in range(len(raw)):
        part = summaries.read(shard)
        raw.write(shard, latents=baselines.raw(this.records, part, known, weight))
    return raw


def _write_pca(this: Run, size: int) -> Shards:
    """Write the PCA of the raw features: a file, or shards, which are returned."""
    features = Latents(this.embedding("raw"))
    if this.is_sharded:
        projection = baselines.principal_axes(features.chunks(), size)
    else:
        (chunk,) = features.chunks()
        projection = baselines.pca(chunk, size, this.config.seed)
    projection.write(this.projection("pca"))
    return _write_linear(this, "pca", map(projection, features.chunks()), size)


def _write_plda(this: Run, size: int) -> Shards:
    """Write each track's mean under PLDA, given its segments: a file, or shards."""
    summaries = _summary_shards(this)

    def parts() -> Iterator[plda.Segments]:
        for shard in range(len(summaries)):
            arrays = summaries.read(shard)
            yield plda.Segments(*(arrays[field.name] for field in fields(plda.Segments)))

    projection = plda.fit(parts(), size)
    projection.write(this.projection("plda"))
    latents = (projection(part.means, part.counts) for part in parts())
    return _write_linear(this, "plda", latents, size)


def _write_linear(this: Run, name: str, chunks: Iterable[np.ndarray], *made_from: Any) -> Shards:
    """Write latents that come in chunks: a file, or shards, which are returned."""
    shards = _shards(this, name, *made_from)
    if this.is_sharded:
        for shard, latents in enumerate(chunks):
            shards.write(shard, latents=latents)
    else:
        points = np.concatenate([*chunks])
        files.write_npz(this.embedding(name), ids=this.records.ids, latents=points)
    return shards


def _model_shards(this: Run, model: str) -> Shards:
    seal = checkpoints.seal(this.checkpoint_dir(model), this.steps[model])
    return _shards(this, model, seal, this.conditions)


def _summary_shards(this: Run) -> Shards:
    size = this.config.model.segment_frames if "plda" in this.baselines else None
    return _shards(this, "summaries", size)


def _shards(this: Run, name: str, *made_from: Any) -> Shards:
    return Shards(
        this.embedding(name).with_suffix(""),
        this.records.ids,
        this.config.embed.shard_size,
        files.fingerprint(this.records.fingerprint, *made_from),
    )


def _own_missing(shards: Shards) -> list[int]:
    """Return this process's share of the shards that are not finished."""
    return [k for k in processes.own_share(range(len(shards))) if not shards.is_finished(k)]
