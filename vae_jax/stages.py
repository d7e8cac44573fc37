"""The stages of a run, in order, each redone only when what it depends on has changed.

features -> train -> embed -> cluster -> visualize. Features live under `config.data_dir` and
checkpoints under `config.checkpoint_dir`, in folders named after what they were made from, so
that runs share them; everything else goes to the run's outdir.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax import files, manifest, records
from vae_jax.errors import UserError

LATENTS = "latents.npz"
CLUSTERS = "clusters.csv"
CLUSTERING_METRICS = "clustering_metrics.csv"
TRAIN_METRICS = "train_metrics.jsonl"
FAILED = "failed.csv"


@dataclass(frozen=True)
class Run:
    """One run: its config, its manifest and its folders.

    Attributes
    ----------
    checkpoint
        A folder of checkpoints to embed with, instead of training, or None.
    """

    config: ConfigDict
    outdir: Path
    checkpoint: Path | None = None

    @cached_property
    def manifest(self) -> manifest.Manifest:
        """The tracks."""
        return manifest.read(self.config.manifest)

    @cached_property
    def records_dir(self) -> Path:
        """The features' folder: one per manifest file and feature settings."""
        path, feature = Path(self.config.manifest).absolute(), self.config.feature
        digest = files.fingerprint(str(path), config_lib.feature_settings(feature.to_dict()))
        name = f"{path.parent.name}-{feature.name}-{digest[:8]}"
        return Path(self.config.data_dir) / "records" / name

    @cached_property
    def checkpoint_dir(self) -> Path:
        """The checkpoints' folder: one per features, model and training settings."""
        if self.checkpoint:
            return self.checkpoint
        config = config_lib.to_dict(self.config)
        made_from = [self.records.fingerprint, *(config[key] for key in ("model", "train", "seed"))]
        name = f"{config['name']}-{files.fingerprint(*made_from)[:8]}"
        return Path(self.config.checkpoint_dir) / name

    @cached_property
    def records(self) -> records.Records:
        """The features, extracted before."""
        return records.Records(self.records_dir)

    @property
    def baselines_dir(self) -> Path:
        """Where the baselines' embeddings are."""
        return self.outdir / "baselines"

    @property
    def methods(self) -> list[str]:
        """The names of what is clustered: the VAE and the baselines."""
        return ["vae", *self.config.baselines]

    def folders(self) -> list[Path]:
        """Return the folders beside the outdir that there are by now."""
        if not (self.records_dir / records.INDEX).exists():
            return []
        return [path for path in (self.records_dir, self.checkpoint_dir) if path.exists()]

    def embeddings(self) -> list[Path]:
        """Return the embedding files, the VAE's first, and `raw`, the common space, last."""
        names = [*(name for name in self.config.baselines if name != "raw"), "raw"]
        return [self.outdir / LATENTS, *(self.baselines_dir / f"{name}.npz" for name in names)]


def run(config: ConfigDict, outdir: Path, stages: Sequence[str], checkpoint: Path | None) -> Run:
    """Run the given stages in order; each skips what is up to date."""
    this = Run(config, outdir, checkpoint)
    with files.lock(outdir):
        files.write_json(outdir / "config.json", config_lib.to_dict(config))
        for name in stages:
            started = time.monotonic()
            try:
                done = STAGES[name](this)
            except records.DamagedRecord as error:
                records.invalidate(error)
                raise
            seconds = time.monotonic() - started
            logging.info("%s: %s (%.1f s)", name, "done" if done else "up to date", seconds)
    return this


def features(this: Run) -> bool:
    """Extract features into records; write `failed.csv`."""
    from vae_jax.features import extract

    with files.lock(this.records_dir):
        changed, failures = extract.extract(
            this.manifest, this.config.feature.to_dict(), this.records_dir
        )
    extract.write_failures(this.outdir / FAILED, failures)
    if failures:
        logging.warning(
            "features: %d of %d tracks failed and are left out; %s says why",
            *(len(failures), len(this.manifest.tracks), this.outdir / FAILED),
        )
    return changed


def train(this: Run) -> bool:
    """Train the VAE; the checkpoints' folder says whether that is finished."""
    if this.checkpoint:
        logging.info("train: skipped, since --checkpoint=%s is given", this.checkpoint)
        return False
    from vae_jax import checkpoints

    directory = this.checkpoint_dir
    with files.lock(directory):
        finished = checkpoints.is_complete(directory)
        if not finished:
            from vae_jax import train

            logging.info("train: checkpoints go to %s", directory)
            train.train(this.records, config_lib.to_dict(this.config), directory)
        shutil.copyfile(directory / TRAIN_METRICS, this.outdir / TRAIN_METRICS)
    return not finished


def embed(this: Run) -> bool:
    """Write the latents of all tracks, and the baselines' embeddings."""
    from vae_jax import checkpoints

    directory = this.checkpoint_dir
    step = checkpoints.best_step(directory)
    made_from = [this.records.fingerprint, checkpoints.seal(directory, step), this.config.seed]

    def write() -> None:
        from vae_jax import baselines, embed

        encoder = embed.Encoder.from_checkpoint(directory, step)
        posterior = encoder.embed(this.records, this.config.embed.batch_size)
        embed.write_latents(this.outdir / LATENTS, this.records.ids, posterior)
        latent_dim = posterior.mean.shape[1]
        baselines.write(this.baselines_dir, this.records, latent_dim, this.config.seed)

    return _unless_up_to_date(this, "embed", made_from, write, this.embeddings())


def cluster(this: Run) -> bool:
    """Cluster and score the latents and the baselines alike."""
    config = config_lib.to_dict(this.config)
    columns = (config["cluster"]["label"], "artist")
    made_from = [
        _hashes(this, this.embeddings(), "embed"),
        [config[key] for key in ("cluster", "seed", "baselines")],
        [[track.columns.get(name, "") for name in columns] for track in this.manifest.tracks],
    ]

    def write() -> None:
        from vae_jax import cluster_stage

        run_id = files.fingerprint(*made_from)
        cluster_stage.run(this.outdir, this.methods, this.manifest, this.config, run_id)

    outputs = [this.outdir / CLUSTERING_METRICS, this.outdir / CLUSTERS]
    return _unless_up_to_date(this, "cluster", made_from, write, outputs)


def visualize(this: Run) -> bool:
    """Draw the latents, the clusters and the training curves."""
    config = config_lib.to_dict(this.config)
    inputs = [*this.embeddings(), this.outdir / CLUSTERS]
    metrics = this.outdir / TRAIN_METRICS
    made_from = [
        _hashes(this, inputs, "cluster"),
        files.sha256(metrics) if metrics.exists() else None,
        [config[key] for key in ("visualize", "seed", "baselines")],
        [
            [track.columns.get(name, "") for name in config["visualize"]["color_by"]]
            for track in this.manifest.tracks
        ],
    ]

    def write() -> None:
        from vae_jax import visualize

        titles = {"vae": "VAE latents", "pca": "PCA", "raw": "raw features"}
        methods = [visualize.Method("vae", titles["vae"])]
        methods += [visualize.Method.baseline(name, titles[name]) for name in this.methods[1:]]
        visualize.run(this.outdir, methods, this.manifest, this.config)

    folder = this.outdir / "latent_visualization"
    return _unless_up_to_date(this, "visualize", made_from, write, [folder])


STAGES: dict[str, Callable[[Run], bool]] = {
    "features": features,
    "train": train,
    "embed": embed,
    "cluster": cluster,
    "visualize": visualize,
}


def _unless_up_to_date(
    this: Run, stage: str, made_from: Any, write: Callable[[], None], outputs: Sequence[Path]
) -> bool:
    """Call `write` unless its outputs exist unharmed, made from the same; say whether it did.

    `outputs` are files, or folders whose files count.
    """
    marker = this.outdir / ".stages" / f"{stage}.json"
    digest = files.fingerprint(made_from)
    if marker.exists():
        before = files.read_json(marker)
        if before == {"made_from": digest, "outputs": _contents(before["outputs"], this.outdir)}:
            return False
    write()
    paths = [
        path
        for output in outputs
        for path in (sorted(output.rglob("*")) if output.is_dir() else [output])
    ]
    names = [str(path.relative_to(this.outdir)) for path in paths if path.is_file()]
    contents = _contents(names, this.outdir)
    files.write_json(marker, {"made_from": digest, "outputs": contents})
    return True


def _contents(names: Iterable[str], folder: Path) -> dict[str, str | None]:
    paths = {name: folder / name for name in names}
    return {name: files.sha256(path) if path.exists() else None for name, path in paths.items()}


def _hashes(this: Run, paths: Sequence[Path], stage: str) -> list[str]:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: run --stage={stage} first.")
    return [files.sha256(path) for path in paths]
