"""One run: its config, its manifest, and the names of its files and folders.

Features live under `config.data_dir` and checkpoints under `config.checkpoint_dir`, in folders
named after what they were made from, so that runs share them; everything else is in the run's
outdir.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from vae_jax import __version__, manifest
from vae_jax import config as config_lib
from vae_jax.errors import UserError
from vae_jax.records import layout, reader
from vae_jax.storage import files, urls

if TYPE_CHECKING:
    from vae_jax.training.start import Start

LATENTS = "latents.npz"
CLUSTERS = "clusters.csv"
CENTERS = "cluster_centers.npz"
LABELS = "labels.csv"  # which cells count as another label than they say
CLUSTERING_METRICS = "clustering_metrics.csv"
TRAIN_METRICS = "train_metrics.jsonl"
FAILED = "failed.csv"
CONFIG = "config.json"
RUN = "run.json"  # what the results were made with
WARNINGS = "warnings.csv"
MAP = "map.html"  # the explorer
MARKERS = ".stages"
MAPS = "latent_visualization"
HISTORY = "history"  # results before the tracks changed (see `history`)
KEPT = "kept.json"  # what those were made with
DUPLICATES = "duplicates.csv"  # what the command of that name has found
DROPPED = "dropped.csv"  # duplicates that are left out
FINGERPRINTS = "fingerprints.npz"  # of the sound of tracks
CLUSTER_NAMES = "cluster_names.csv"  # a person's names for clusters: id, name
SHARDED = (
    "latents",
    *(f"baselines/{name}" for name in ("pca", "raw", "plda", "ae", "summaries")),
)
# Patterns of the outdir's folders.
SUBFOLDERS = ("baselines", MAPS, MARKERS, *SHARDED, f"{HISTORY}/*", f"{HISTORY}/*/{MAPS}")


@dataclass(frozen=True)
class Run:
    """One run: its config, its manifest and its folders.

    Attributes
    ----------
    checkpoint
        A folder of checkpoints to embed with, instead of training, or None.
    beam_options
        Options of the Beam pipeline that extracts features, as on a command line.
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
    def checkpoint_metadata(self) -> dict[str, Any]:
        """What travels inside `checkpoint` beside the parameters; empty without one."""
        if not self.checkpoint:
            return {}
        from vae_jax.training import checkpoints

        step = checkpoints.best_step(self.checkpoint)
        return checkpoints.read_metadata(self.checkpoint, step)

    @property
    def lyrics(self) -> dict[str, Any] | None:
        """The embedding of lyrics inside `checkpoint`, if it has one; else one is learned."""
        return self.checkpoint_metadata.get("lyrics")

    @cached_property
    def _records_name(self) -> str:
        """The records' folder: one per manifest, feature settings, and lyrics or vectors given."""
        path, feature = urls.resolved(self.config.manifest), self.config.feature
        made_from = [path, config_lib.feature_settings(feature.to_dict())]
        if self.lyrics:
            made_from.append(self.lyrics)
        if feature.embedding:
            made_from.append(urls.resolved(feature.embedding))
        digest = files.fingerprint(*made_from)
        return f"{PurePosixPath(path).parent.name}-{feature.name}-{digest[:8]}"

    @property
    def records_dir(self) -> Path:
        """The features' folder."""
        root = Path("data") if self.records_store else Path(self.config.data_dir)
        return root / "records" / self._records_name

    @property
    def records_store(self) -> str | None:
        """The URL that the features are kept at, if they are; `records_dir` is a copy then."""
        root = urls.location(self.config.data_dir)
        return None if isinstance(root, Path) else f"{root}/records/{self._records_name}"

    def checkpoint_dir(self, model: str = "vae") -> Path:
        """Return a model's folder of checkpoints: one per features, model and settings."""
        if self.checkpoint and model == "vae":
            return self.checkpoint
        config = self.model_config(model)
        del config["train"]["start_from"]  # what it comes to counts
        conditions = dict(zip(self.records.ids.tolist(), self.conditions, strict=False))
        made_from = [self.records.content, conditions]
        made_from += [config[key] for key in ("feature", "model", "train", "seed", "num_seeds")]
        if start := self.starts.get(model):
            made_from.append(start.seal)
        suffix = "" if model == "vae" else f"-{model}"
        name = f"{config['name']}{suffix}-{files.fingerprint(*made_from)[:8]}"
        return Path(self.config.checkpoint_dir) / name

    def model_config(self, model: str) -> dict[str, Any]:
        """Return the config of a trained model: the VAE, or "ae", the plain autoencoder."""
        config = config_lib.to_dict(self.config)
        config["feature"] = config_lib.training_settings(config["feature"])
        if model == "ae":
            config["model"].update(deterministic=True, prior="normal")
        return config

    @property
    def baselines(self) -> list[str]:
        """The baselines; a checkpoint is of the VAE, so it has no plain autoencoder beside it."""
        names = dict.fromkeys(self.config.baselines)  # a flag that is given twice adds its values
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

    @cached_property
    def previous(self) -> Path | None:
        """The results that this run follows (see `history`), or None. Read after extraction."""
        path = self.outdir / RUN
        name = read_run(self.outdir).get("previous") if path.exists() else None
        return self.outdir / name if name else None

    @cached_property
    def starts(self) -> dict[str, "Start"]:
        """What training starts from, by the trained model; nothing where it is from scratch."""
        from vae_jax.training import start

        return {} if self.checkpoint else start.find(self)

    @cached_property
    def steps(self) -> dict[str, int]:
        """The checkpoint of each trained model that is embedded: the best sound one.

        Read once training has ended, as it is looked up once.
        """
        from vae_jax.training import checkpoints

        return {name: checkpoints.best_step(self.checkpoint_dir(name)) for name in self.trained}

    def _trained_step(self, folder: Path) -> int | None:
        """Return the best step, or None as long as training has not ended."""
        from vae_jax.training import checkpoints

        if self.checkpoint or checkpoints.has_ended(folder):
            with contextlib.suppress(checkpoints.NoneSound):
                return checkpoints.best_step(folder)
        return None

    @property
    def supervised(self) -> list[str]:
        """The methods that are told a column of the manifest."""
        return self.trained if self.config.model.condition else []

    @cached_property
    def records(self) -> reader.Records:
        """The features, extracted before, without those of duplicates that are to be dropped."""
        if self.config.duplicates == "keep":
            return self.all_records
        return self.all_records.without(self.dropped)

    @property
    def dropped(self) -> list[str]:
        """The ids of duplicates that are left out."""
        path = self.outdir / DROPPED
        if self.config.duplicates == "keep":
            return []
        if not path.exists():
            raise UserError(f"{path} does not exist: run --stage=features first.")
        return [row["id"] for row in files.read_csv(path)]

    @cached_property
    def all_records(self) -> reader.Records:
        """The features of all tracks."""
        if self.records_store:
            from vae_jax.records import object_store

            with files.lock(self.records_dir):
                object_store.fetch(self.records_store, self.records_dir)
        return reader.Records(self.records_dir)

    @property
    def methods(self) -> list[str]:
        """The names of what is clustered: the VAE and the baselines."""
        return ["vae", *self.baselines]

    def is_described(self, described: Mapping[str, Any]) -> bool:
        """Say whether results were made with this run's features and models, as far as is known."""
        if not (self.records_dir / layout.INDEX).exists():
            before, now = files.read_json(self.outdir / CONFIG), config_lib.to_dict(self.config)
            kinds = [[one["feature"]["name"], one["model"]] for one in (before, now)]
            return files.fingerprint(kinds[0]) == files.fingerprint(kinds[1])
        if described.get("content") != self.records.content:
            return False
        return all(
            one["directory"] == self._relative(self.checkpoint_dir(name))
            for name, one in described["checkpoints"].items()
            if name in self.trained
        )

    def describe(self, stage: str) -> dict[str, Any]:
        """Return what the results were made with, as JSON-like values, when a stage has ended.

        Paths are relative to the outdir, so that a project can be moved or copied as a whole. What
        an earlier run with other features or another model has left there is not listed.
        """
        before = read_run(self.outdir) if (self.outdir / RUN).exists() else {}
        embedded = stage not in ("features", "train") or bool(before and self.is_described(before))
        clustered = (self.outdir / MARKERS / "cluster.json").exists() and embedded
        has_records = (self.records_dir / layout.INDEX).exists()
        records = self.records_store or self._relative(self.records_dir)
        folders = {name: self.checkpoint_dir(name) for name in self.trained if has_records}
        content = self.records.content if has_records else None
        return {
            "version": __version__,
            "config": CONFIG,
            "manifest": self._relative(urls.location(self.config.manifest)),
            "seeds": [self.config.seed + i for i in range(self.config.num_seeds)],
            "records": records if has_records else None,
            "content": content,
            "clustered": stage == "cluster" or (clustered and bool(before.get("clustered"))),
            "previous": before.get("previous"),
            "starts": {
                name: self._relative(start.directory)
                for name, start in (self.starts if has_records else {}).items()
            },
            "checkpoints": {
                name: {"directory": self._relative(folder), "step": self._trained_step(folder)}
                for name, folder in folders.items()
                if folder.exists()
            },
            "embeddings": {
                name: self._relative(self.embedding(name))
                for name in dict.fromkeys([*self.methods, "raw"])
                if embedded and self.embedding(name).exists()
            },
            "projections": [
                self._relative(path) for path in self.projections() if embedded and path.exists()
            ],
        }

    def _relative(self, place: urls.Location) -> str:
        if isinstance(place, str):
            return place
        return os.path.relpath(place.resolve(), self.outdir.resolve())

    def folders(self) -> list[urls.Location]:
        """Return the folders beside the outdir that exist by now."""
        if not (self.records_dir / layout.INDEX).exists():
            return []
        models = [self.checkpoint_dir(name) for name in self.trained]
        return [self.records_store or self.records_dir, *(one for one in models if one.exists())]

    @property
    def is_sharded(self) -> bool:
        """Whether embeddings are folders of shards, which may not fit in memory."""
        return self.config.embed.format == "sharded"

    def embedding(self, method: str) -> Path:
        """Return the file of a method's embedding, or its folder where that is sharded."""
        path = self.outdir / (LATENTS if method == "vae" else f"baselines/{method}.npz")
        return path.with_suffix("") if self.is_sharded else path

    def projection(self, method: str) -> Path:
        """Return the file of what a baseline's embedding was made with, to place new tracks."""
        return self.outdir / f"baselines/{method}_projection.npz"

    def projections(self) -> list[Path]:
        """Return all of those files; that of `raw` has the features' means and deviations."""
        linear = (name for name in ("pca", "plda") if name in self.baselines)
        return [self.projection(name) for name in ("raw", *linear)]

    def embeddings(self) -> list[Path]:
        """Return the embeddings' paths: the VAE's, the baselines' and `raw`, the common space."""
        return [self.embedding(name) for name in dict.fromkeys([*self.methods, "raw"])]


def read_run(outdir: Path) -> dict[str, Any]:
    """Return what a results folder says that it was made with (see `Run.describe`).

    Raises
    ------
    UserError
        If the folder holds no results.
    """
    path = outdir / RUN
    if not path.exists():
        raise UserError(f"{outdir} holds no results of a run: there is no {RUN} in it.")
    return files.read_json(path)


def made_with(outdir: Path) -> list[Path]:
    """Return the folders of records and checkpoints that a run's results refer to, resolved."""
    described = read_run(outdir)
    named = [described["records"], *(one["directory"] for one in described["checkpoints"].values())]
    named += described.get("starts", {}).values()
    local = [name for name in named if name and isinstance(urls.location(name), Path)]
    return [(outdir / name).resolve() for name in local]


def checkpoints_in(folder: Path) -> Path:
    """Return the folder of checkpoints that a user names, directly or by a results folder."""
    if not (folder / RUN).exists():
        return folder
    trained = read_run(folder)["checkpoints"]
    if "vae" not in trained:
        raise UserError(f"{folder} has no trained model yet: run --stage=train first.")
    return Path(os.path.normpath(folder / trained["vae"]["directory"]))
