"""The embed stage: checkpoints and records in, the embeddings of all methods out.

All processes of a job write shards, each its share. The shards hold every trained model's latents,
and what the raw features are made from. The first process then makes the results from them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
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


def update(run: Run) -> bool:
    """Write the latents of all tracks, and the baselines' embeddings."""
    devices.use_cores(run.config.num_seeds)
    seals = [checkpoints.seal(run.checkpoint_dir(name), step) for name, step in run.steps.items()]
    feature, seed = run.config.feature, run.config.seed
    made_from = [run.records.fingerprint, run.conditions, seals, feature.lyrics_weight, seed]
    made_from.append(run.is_sharded and run.config.embed.shard_size)
    made_from += [run.baselines, "plda" in run.baselines and run.config.model.segment_frames]

    def write() -> list[Path]:
        share_shards(run, is_due=True)
        finish(run)
        return [*run.embeddings(), *run.projections(), run.outdir / reconstructions.FILE]

    was_redone = unless_up_to_date(run, "embed", made_from, write)
    if not was_redone:
        share_shards(run, is_due=False)
    return was_redone


def share_shards(run: Run, is_due: bool) -> None:
    """Embed with all processes of the job, if the first one finds that it is due."""
    if processes.first_says("embed", is_due):
        write_shards(run)
        processes.wait_for_all("shards")


def write_shards(run: Run) -> None:
    """Write those of this process's shards that are not finished."""
    for model in run.trained:
        shards = _model_shards(run, model)
        if missing := _own_missing(shards):
            encoder = Encoder(run.checkpoint_dir(model), run.steps[model])
            parts = [shards.positions(shard) for shard in missing]
            batch_size = run.config.embed.batch_size
            posteriors = encoder.embed(run.records, run.conditions, parts, batch_size)
            for shard, posterior in zip(missing, posteriors, strict=True):
                shards.write(shard, **_arrays(encoder, posterior))
    summaries = _summary_shards(run)
    for shard in _own_missing(summaries):
        positions = summaries.positions(shard)
        arrays = baselines.summaries(run.records, positions)
        summaries.write(shard, **arrays, **_segments(run, positions))


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


def _segments(run: Run, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Return what PLDA is made from, where it is a baseline."""
    if "plda" not in run.baselines:
        return {}
    size = run.config.model.segment_frames
    known = run.records.statistics["features"]
    return vars(plda.summarise(run.records, positions, size, known))


def finish(run: Run) -> None:
    """Make every embedding from the shards, and the reconstructions."""
    written = {model: _model_shards(run, model) for model in run.trained}
    written["raw"] = _write_raw(run)
    if not run.is_sharded:
        for method, shards in written.items():
            shards.merge(run.embedding(method))
    latents = Latents(run.embedding("vae"))
    encoder = Encoder(run.checkpoint_dir(), run.steps["vae"])
    decoded = decode.decode(encoder, run.records, run.conditions, latents.chunks())
    reconstructions.write(run.outdir / reconstructions.FILE, decoded)
    if "pca" in run.baselines:
        written["pca"] = _write_pca(run, latents.dim)
    if "plda" in run.baselines:
        written["plda"] = _write_plda(run, latents.dim)
    for shards in written.values():
        shards.remove(keep_these=run.is_sharded)
        if run.is_sharded:
            shards.folder.with_suffix(".npz").unlink(missing_ok=True)
    _summary_shards(run).remove()


def _write_raw(run: Run) -> Shards:
    """Write shards of the raw features, standardised by all tracks."""
    weight, summaries = run.config.feature.lyrics_weight, _summary_shards(run)
    known = baselines.statistics(run.records, map(summaries.read, range(len(summaries))))
    measured = {
        f"{name}_{what}": getattr(one, what)
        for name, one in known.items()
        for what in ("mean", "std")
    }
    files.write_npz(run.projection("raw"), **measured)
    raw = _shards(run, "raw", weight)
    for shard in range(len(raw)):
        part = summaries.read(shard)
        raw.write(shard, latents=baselines.raw(run.records, part, known, weight))
    return raw


def _write_pca(run: Run, size: int) -> Shards:
    """Write the PCA of the raw features: a file, or shards, which are returned."""
    features = Latents(run.embedding("raw"))
    if run.is_sharded:
        projection = baselines.principal_axes(features.chunks(), size)
    else:
        (chunk,) = features.chunks()
        projection = baselines.pca(chunk, size, run.config.seed)
    projection.write(run.projection("pca"))
    return _write_linear(run, "pca", map(projection, features.chunks()), size)


def _write_plda(run: Run, size: int) -> Shards:
    """Write each track's mean under PLDA, given its segments: a file, or shards."""
    summaries = _summary_shards(run)

    def parts() -> Iterator[plda.Segments]:
        for shard in range(len(summaries)):
            arrays = summaries.read(shard)
            yield plda.Segments(*(arrays[field.name] for field in fields(plda.Segments)))

    known = run.records.statistics["features"]
    projection = plda.fit(parts(), size)
    projection = replace(projection, standard_mean=known.mean, standard_std=known.std)
    projection.write(run.projection("plda"))
    latents = (projection(part.means, part.counts) for part in parts())
    return _write_linear(run, "plda", latents, size)


def _write_linear(run: Run, name: str, chunks: Iterable[np.ndarray], *made_from: Any) -> Shards:
    """Write latents that come in chunks: a file, or shards, which are returned."""
    shards = _shards(run, name, *made_from)
    if run.is_sharded:
        for shard, latents in enumerate(chunks):
            shards.write(shard, latents=latents)
    else:
        points = np.concatenate([*chunks])
        files.write_npz(run.embedding(name), ids=run.records.ids, latents=points)
    return shards


def _model_shards(run: Run, model: str) -> Shards:
    seal = checkpoints.seal(run.checkpoint_dir(model), run.steps[model])
    return _shards(run, model, seal, run.conditions)


def _summary_shards(run: Run) -> Shards:
    size = run.config.model.segment_frames if "plda" in run.baselines else None
    return _shards(run, "summaries", size)


def _shards(run: Run, name: str, *made_from: Any) -> Shards:
    return Shards(
        run.embedding(name).with_suffix(""),
        run.records.ids,
        run.config.embed.shard_size,
        files.fingerprint(run.records.fingerprint, *made_from),
    )


def _own_missing(shards: Shards) -> list[int]:
    """Return this process's share of the shards that are not finished."""
    return [k for k in processes.own_share(range(len(shards))) if not shards.is_finished(k)]
