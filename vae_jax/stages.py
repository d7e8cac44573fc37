"""The stages of a run, in order, each redone only when what it depends on has changed.

features -> train -> embed -> cluster -> visualize. Features live under `config.data_dir` and
checkpoints under `config.checkpoint_dir`, in folders named after what they were made from, so
that runs share them; everything else goes to the run's outdir.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax import distributed, files, manifest, reconstructions, records, urls
from vae_jax.errors import UserError

LATENTS = "latents.npz"
CLUSTERS = "clusters.csv"
CLUSTERING_METRICS = "clustering_metrics.csv"
TRAIN_METRICS = "train_metrics.jsonl"
FAILED = "failed.csv"
MARKERS = ".stages"
SUBFOLDERS = ("baselines", "latent_visualization", MARKERS)  # of the outdir


@dataclass(frozen=True)
class Run:
    """One run: its config, its manifest and its folders.

    Attributes
    ----------
    checkpoint
        A folder of checkpoints to embed with, instead of training, or None.
    beam_options
        Of the Beam pipeline that extracts features, as on a command line.
    """

    config: ConfigDict
    outdir: Path
    checkpoint: Path | None = None
    beam_options: str = ""

    @cached_property
    def manifest(self) -> manifest.Manifest:
        """The tracks."""
        return manifest.read(self.config.manifest)

    @cached_property
    def lyrics(self) -> dict[str, Any] | None:
        """The embedding of lyrics inside `checkpoint`, if it has one; else one is learned."""
        if not self.checkpoint:
            return None
        from vae_jax import checkpoints

        step = checkpoints.best_step(self.checkpoint)
        return checkpoints.read_metadata(self.checkpoint, step)["lyrics"]

    @cached_property
    def records_dir(self) -> Path:
        """The features' folder: one per manifest file, feature settings and given lyrics."""
        path, feature = urls.absolute(self.config.manifest), self.config.feature
        made_from = [path, config_lib.feature_settings(feature.to_dict())]
        if self.lyrics:
            made_from.append(self.lyrics)
        digest = files.fingerprint(*made_from)
        name = f"{PurePosixPath(path).parent.name}-{feature.name}-{digest[:8]}"
        return Path(self.config.data_dir) / "records" / name

    def checkpoint_dir(self, model: str = "vae") -> Path:
        """Return a model's folder of checkpoints: one per features, model and settings."""
        if self.checkpoint and model == "vae":
            return self.checkpoint
        config = self.model_config(model)
        made_from = [self.records.fingerprint, self.conditions]
        made_from += [config[key] for key in ("feature", "model", "train", "seed")]
        suffix = "" if model == "vae" else f"-{model}"
        name = f"{config['name']}{suffix}-{files.fingerprint(*made_from)[:8]}"
        return Path(self.config.checkpoint_dir) / name

    def model_config(self, model: str) -> dict[str, Any]:
        """Return the config of a trained model: the VAE, or "ae", the plain autoencoder."""
        config = config_lib.to_dict(self.config)
        config["feature"] = config_lib.training_settings(config["feature"])
        if model == "ae":
            config["model"]["deterministic"] = True
        return config

    @property
    def baselines(self) -> list[str]:
        """The baselines; a checkpoint is of the VAE, so it has no plain autoencoder beside it."""
        names = dict.fromkeys(self.config.baselines)  # a flag that is given twice adds up
        return [name for name in names if name != "ae" or not self.checkpoint]

    @property
    def trained(self) -> list[str]:
        """The models to train: the VAE, and the plain autoencoder where it is a baseline."""
        return ["vae", "ae"] if "ae" in self.baselines else ["vae"]

    @cached_property
    def conditions(self) -> list[str]:
        """Each track's value in the column that the model is told; empty without one."""
        column = self.config.model.condition
        return self.manifest.column(column, list(self.records.ids)) if column else []

    @property
    def supervised(self) -> list[str]:
        """The methods that are told a column of the manifest."""
        return self.trained if self.config.model.condition else []

    @cached_property
    def records(self) -> records.Records:
        """The features, extracted before."""
        return records.Records(self.records_dir)

    @property
    def methods(self) -> list[str]:
        """The names of what is clustered: the VAE and the baselines."""
        return ["vae", *self.baselines]

    def folders(self) -> list[Path]:
        """Return the folders beside the outdir that there are by now."""
        if not (self.records_dir / records.INDEX).exists():
            return []
        folders = [self.records_dir, *(self.checkpoint_dir(name) for name in self.trained)]
        return [path for path in folders if path.exists()]

    def embeddings(self) -> list[Path]:
        """Return the embedding files: the VAE's, the baselines' and `raw`, the common space."""
        names = dict.fromkeys([*self.baselines, "raw"])
        folder = self.outdir / "baselines"
        return [self.outdir / LATENTS, *(folder / f"{name}.npz" for name in names)]


def help_to_train(config: ConfigDict, outdir: Path, stages: Sequence[str]) -> None:
    """Do the part of a process that is not the first of its job: train with the others."""
    if "train" in stages:
        distributed.wait_for_all("features")
        this = Run(config, outdir)
        for model in this.trained:
            _train_one(this, model)
    distributed.wait_for_all("end")


def run(
    config: ConfigDict,
    outdir: Path,
    stages: Sequence[str],
    checkpoint: Path | None,
    beam_options: str = "",
) -> Run:
    """Run the given stages in order; each skips what is up to date."""
    this = Run(config, outdir, checkpoint, beam_options)
    with files.lock(outdir, *SUBFOLDERS):
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
    distributed.wait_for_all("end")
    return this


def features(this: Run) -> bool:
    """Extract features into records; write `failed.csv`."""
    from vae_jax.features import extract

    with files.lock(this.records_dir):
        changed, failures = extract.extract(
            this.manifest,
            this.config.feature.to_dict(),
            this.records_dir,
            lyrics=this.lyrics,
            beam_options=this.beam_options,
        )
    extract.write_failures(this.outdir / FAILED, failures)
    kept = sum(failure.kept for failure in failures)
    for count, fate in (
        (len(failures) - kept, "failed and are left out"),
        (kept, "are kept without their audio or lyrics, which failed"),
    ):
        if count:
            logging.warning(
                "features: %d of %d tracks %s; %s says why",
                *(count, len(this.manifest.tracks), fate, this.outdir / FAILED),
            )
    return changed


def train(this: Run) -> bool:
    """Train the models; each one's folder of checkpoints says whether that is finished."""
    if this.checkpoint:
        logging.info("train: skipped, since --checkpoint=%s is given", this.checkpoint)
        return False
    distributed.wait_for_all("features")
    changed = [_train_one(this, model) for model in this.trained]
    metrics = this.checkpoint_dir() / TRAIN_METRICS
    if metrics.exists():
        with files.atomic_write(this.outdir / TRAIN_METRICS) as file:
            file.write(metrics.read_bytes())
    else:
        logging.warning("%s is missing: there will be no training curves", metrics)
    return any(changed)


def _train_one(this: Run, model: str) -> bool:
    """Train one model, with all processes of the job; the first holds the lock."""
    from vae_jax import checkpoints

    directory = this.checkpoint_dir(model)
    with files.lock(directory) if distributed.is_first() else contextlib.nullcontext():
        is_complete = checkpoints.is_complete(directory)
        distributed.wait_for_all(f"training of {model}")
        if is_complete:
            return False
        from vae_jax import description, input_pipeline, train

        logging.info("train: the checkpoints of the %s go to %s", model.upper(), directory)
        described = description.Description.of(
            this.model_config(model), this.records, this.conditions
        )
        source = input_pipeline.Source(this.records, described.class_numbers(this.conditions))
        train.train(source, described, directory)
    return True


def embed(this: Run) -> bool:
    """Write the latents of all tracks, and the baselines' embeddings."""
    from vae_jax import checkpoints

    models = {name: this.checkpoint_dir(name) for name in this.trained}
    steps = {name: checkpoints.best_step(directory) for name, directory in models.items()}
    seals = [checkpoints.seal(models[name], step) for name, step in steps.items()]
    lyrics_weight, seed = this.config.feature.lyrics_weight, this.config.seed
    made_from = [this.records.fingerprint, this.conditions, seals, lyrics_weight, seed]
    paths = dict(zip(this.methods, this.embeddings(), strict=False))

    def write() -> None:
        from vae_jax import baselines, decode, embed

        for name, step in steps.items():
            encoder = embed.Encoder(models[name], step)
            posterior = encoder.embed(this.records, this.conditions, this.config.embed.batch_size)
            embed.write_latents(paths[name], this.records.ids, posterior)
            if name == "vae":
                decoded = decode.decode(encoder, this.records, this.conditions, posterior)
                reconstructions.write(this.outdir / reconstructions.FILE, decoded)
        features = baselines.raw(this.records, lyrics_weight)
        points = {"raw": features}
        if "pca" in this.baselines:
            points["pca"] = baselines.pca(features, posterior.mean.shape[1], seed)
        for name, latents in points.items():
            path = this.outdir / "baselines" / f"{name}.npz"
            files.write_npz(path, ids=this.records.ids, latents=latents)

    outputs = [*this.embeddings(), this.outdir / reconstructions.FILE]
    return _unless_up_to_date(this, "embed", made_from, write, outputs)


def cluster(this: Run) -> bool:
    """Cluster and score the latents and the baselines alike."""
    config = config_lib.to_dict(this.config)
    columns = (config["cluster"]["label"], "artist")
    made_from = [
        _hashes(this, this.embeddings(), "embed"),
        [*(config[key] for key in ("cluster", "seed")), this.baselines],
        config["model"]["condition"],
        [[track.columns.get(name, "") for name in columns] for track in this.manifest.tracks],
    ]

    def write() -> None:
        from vae_jax import cluster_stage

        run_id = files.fingerprint(*made_from)
        cluster_stage.run(
            this.outdir, this.methods, this.manifest, this.config, run_id, this.supervised
        )

    outputs = [this.outdir / CLUSTERING_METRICS, this.outdir / CLUSTERS]
    return _unless_up_to_date(this, "cluster", made_from, write, outputs)


def visualize(this: Run) -> bool:
    """Draw the latents, the clusters and the training curves."""
    config = config_lib.to_dict(this.config)
    inputs = [*this.embeddings(), this.outdir / CLUSTERS]
    optional = [this.outdir / name for name in (TRAIN_METRICS, reconstructions.FILE)]
    made_from = [
        _hashes(this, inputs, "cluster"),
        [files.sha256(path) if path.exists() else None for path in optional],
        [*(config[key] for key in ("visualize", "seed")), this.baselines],
        [
            [track.columns.get(name, "") for name in config["visualize"]["color_by"]]
            for track in this.manifest.tracks
        ],
    ]

    def write() -> None:
        from vae_jax import visualize

        titles = {"pca": "PCA", "raw": "raw features", "ae": "autoencoder"}
        methods = [visualize.Method("vae", "VAE latents", supervised=bool(this.supervised))]
        methods += [
            visualize.Method.baseline(name, titles[name], supervised=name in this.supervised)
            for name in this.baselines
        ]
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
    marker = this.outdir / MARKERS / f"{stage}.json"
    digest = files.fingerprint(made_from)
    before = _read_marker(marker)
    changed = before["outputs"].items() - _contents(before["outputs"], this.outdir).items()
    for name, _ in sorted(changed):
        logging.warning("%s is damaged, changed or missing: redoing it", this.outdir / name)
    if before["made_from"] == digest and not changed:
        return False
    write()
    paths = [
        path
        for output in outputs
        for path in (sorted(output.rglob("*")) if output.is_dir() else [output])
    ]
    names = [str(path.relative_to(this.outdir)) for path in paths if path.is_file()]
    contents = _contents(names, this.outdir)
    files.write_sealed_json(marker, {"made_from": digest, "outputs": contents})
    return True


def _read_marker(path: Path) -> dict[str, Any]:
    """Return what a stage was made from, and the hashes of what it wrote; none if unknown."""
    try:
        return files.read_sealed_json(path)
    except FileNotFoundError:
        pass
    except UserError as error:
        logging.warning("%s", error)
    return {"made_from": None, "outputs": {}}


def _contents(names: Iterable[str], folder: Path) -> dict[str, str | None]:
    paths = {name: folder / name for name in names}
    return {name: files.sha256(path) if path.exists() else None for name, path in paths.items()}


def _hashes(this: Run, paths: Sequence[Path], stage: str) -> list[str]:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: run --stage={stage} first.")
    return [files.sha256(path) for path in paths]
