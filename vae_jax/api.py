"""The Python API: a run's results, a trained model, and the main job, without flags.

>>> import vae_jax
>>> run = vae_jax.train("demo", "results/demo")
>>> run.latents.shape
(96, 8)
>>> nearest = run.neighbours("demo-003", k=5)
>>> len(nearest)
5
>>> model = vae_jax.Model.load("results/demo")
>>> new = model.encode(["new.mp3"])
>>> new.mean.shape
(1, 8)
>>> cluster = run.assign(new.mean)
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from vae_jax import config as config_lib
from vae_jax import history, presets
from vae_jax import manifest as manifest_lib
from vae_jax import run as run_lib
from vae_jax.errors import UserError
from vae_jax.storage import files, urls

if TYPE_CHECKING:
    import pandas

    from vae_jax.clustering.clusterers import Clustering
    from vae_jax.collection.duplicates import Same
    from vae_jax.collection.neighbours import Space
    from vae_jax.collection.place import Components, Known, Placed
    from vae_jax.embedding.encoder import Encoder
    from vae_jax.explorer.page import Explorer


@dataclass(frozen=True)
class Encoded:
    """The posteriors that a model gives tracks.

    Attributes
    ----------
    ids
        The ids of the tracks that could be read, [N].
    mean
        The means of their posteriors, which are the latents, [N, L] float32.
    log_variance
        The log variances of their posteriors, [N, L] float32.
    failures
        Why the other tracks could not be read, by id.
    """

    ids: list[str]
    mean: np.ndarray
    log_variance: np.ndarray
    failures: dict[str, str]


@dataclass(frozen=True)
class Results:
    """The results of a run, read when they are asked for.

    Attributes
    ----------
    outdir
        The results folder.
    made_with
        What the run was made with: its `run.json` (see `Run.describe`).
    config
        The resolved config.
    """

    outdir: Path
    made_with: Mapping[str, Any]
    config: ConfigDict

    @cached_property
    def ids(self) -> list[str]:
        """The ids of all tracks, [N]."""
        return self._latents.ids.tolist()

    @cached_property
    def latents(self) -> np.ndarray:
        """The latents, [N, L] float32."""
        return np.concatenate([*self._latents.chunks()])

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where each track is among the latents, by id."""
        return {id_: position for position, id_ in enumerate(self.ids)}

    @cached_property
    def space(self) -> "Space":
        """The latents as a space to look for neighbours in."""
        from vae_jax.collection.neighbours import Space

        return Space(self.latents, self.config.seed)

    @cached_property
    def recordings(self) -> dict[str, str]:
        """The group of each track that is the same recording as others, by `duplicates.csv`."""
        path = self.outdir / run_lib.DUPLICATES
        rows = files.read_csv(path) if path.exists() else []
        return {row["id"]: row["group"] for row in rows if row["kind"] in ("file", "recording")}

    @cached_property
    def manifest(self) -> manifest_lib.Manifest:
        """The manifest as it is now."""
        return manifest_lib.read(urls.join(self.outdir, self.made_with["manifest"]))

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each track is in the manifest, by id."""
        return {id_: row for row, id_ in enumerate(self.manifest.ids)}

    @cached_property
    def clusters(self) -> np.ndarray:
        """The cluster of each track, [N] int64; -1 for noise."""
        return self._clusters_of("vae")

    @cached_property
    def cluster_names(self) -> dict[int, str]:
        """The names that a person gave clusters in `cluster_names.csv`, by number."""
        return history.names(self.outdir)

    @property
    def mark(self) -> str:
        """What reports say of the features if others have trained them; else empty."""
        return config_lib.TRAINED_ELSEWHERE.get(self.config.feature.name, "")

    @cached_property
    def descriptors(self) -> dict[str, list[str]]:
        """What `descriptors.csv` says of each track, in its columns, [N] each; "" where unknown.

        It is empty if the features were extracted without descriptors.
        """
        from vae_jax.features import descriptors

        return descriptors.read(self.outdir / run_lib.DESCRIPTORS, self.ids)

    def reasons(self, method: str = "vae") -> list[dict[str, Any]]:
        """Return what is known of a method's clusters, and why their tracks are together.

        These are the clusters of `clusters.json`, as `vae_jax.reasons.explain` describes them.

        Raises
        ------
        UserError
            If the run has none.
        """
        path = self.outdir / run_lib.REASONS
        methods = files.read_json(path)["methods"] if path.exists() else {}
        if method not in methods:
            there = f"there are {', '.join(methods)}" if methods else "run --stage=cluster"
            raise UserError(f"{self.outdir} has no reasons of {method!r}: {there}.")
        return methods[method]

    @cached_property
    def metrics(self) -> list[dict[str, str]]:
        """The rows of the latest clustering, one per method and seed."""
        from vae_jax.clustering import metrics_file

        rows = metrics_file.read(self._clustered / run_lib.CLUSTERING_METRICS)
        return [row for row in rows if row["run_id"] == rows[-1]["run_id"]]

    def assign(self, latents: np.ndarray) -> np.ndarray:
        """Return the cluster that each of some other latents belongs to, [M, L] -> [M]."""
        return self.place(latents).clusters[:, 0]

    def place(self, latents: np.ndarray, method: str = "vae") -> "Placed":
        """Place other latents, [M, L], among the clusters: see `vae_jax.collection.place`.

        `method` is "vae", or the baseline that made them.
        """
        known, points = self._known(method), np.asarray(latents, np.float64)
        size = known.points.shape[1]
        if points.ndim != 2 or points.shape[1] != size:
            raise UserError(f"latents are of shape {points.shape}, but must be [M, {size}].")
        return known.place(points)

    def place_in_mixture(self, assignments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the two likeliest clusters of the model's mixture, and probabilities, [M, 2].

        `assignments` are the probabilities of its components, [M, K], as `latents.npz` has them.
        """
        return self._components.choose(np.asarray(assignments, np.float64))

    @property
    def methods(self) -> list[str]:
        """What `clusters.csv` has clusters of: "vae", the baselines, and perhaps "mixture"."""
        names = [name.removesuffix("cluster") for name in self.table[0] if name.endswith("cluster")]
        return [name.removesuffix("_") or "vae" for name in names]

    @cached_property
    def _places(self) -> "dict[str, Known]":
        return {}

    def _known(self, method: str) -> "Known":
        """Return a method's tracks and clusters, kept for the next call."""
        if method not in self._places:
            self._places[method] = self._read_known(method)
        return self._places[method]

    def _read_known(self, method: str) -> "Known":
        from vae_jax.clustering import clusterers
        from vae_jax.collection.place import Known

        if method not in self.made_with["embeddings"] or method not in self.methods:
            raise UserError(f"{self.outdir} has no clusters of {method!r}.")
        clusters = self.clusters if method == "vae" else self._clusters_of(method)
        number = len({*clusters.tolist()} - {clusterers.NOISE})
        options = ConfigDict({**self.config.cluster, "num_clusters": number})
        path, centers, center_ids = self.outdir / run_lib.CENTERS, None, None
        if self.config.cluster.method == "kmeans" and path.exists():
            arrays = files.read_npz(path)
            centers, center_ids = arrays[method], arrays.get(f"{method}_ids")

        def recluster(points: np.ndarray, start: np.ndarray | None) -> "Clustering":
            return clusterers.cluster(points, options, self.config.seed, start)

        points = self.latents if method == "vae" else self._points_of(method)
        return Known(points, clusters, recluster, centers, self.config.seed, center_ids)

    def _clusters_of(self, method: str) -> np.ndarray:
        """Return each track's cluster under a method, [N]."""
        name = "cluster" if method == "vae" else f"{method}_cluster"
        return np.array([int(row[name]) for row in self.table])

    def _points_of(self, method: str) -> np.ndarray:
        """Return a baseline's embedding of the tracks, [N, L]."""
        from vae_jax.embedding.latents import Latents

        found = Latents(self.outdir / self.made_with["embeddings"][method])
        return np.concatenate([*found.chunks()])

    @cached_property
    def _components(self) -> "Components":
        from vae_jax.collection.place import Components

        columns = files.read_npz(self.outdir / run_lib.CENTERS).get("mixture_columns")
        if columns is None or not self._latents.has_assignments:
            raise UserError(f"{self.outdir} has no clusters of a mixture: run again.")
        assignments = np.concatenate([*self._latents.assignments()])
        return Components(self.latents, assignments, columns, self.config.seed)

    def neighbours(self, of: str | np.ndarray, k: int = 10) -> list[tuple[str, float]]:
        """Return the ids of the k nearest tracks with their distances in the latent space.

        Parameters
        ----------
        of
            A track's id, which is left out of its own neighbours, or a latent, [L].
        """
        from vae_jax.collection import neighbours

        if isinstance(of, str):
            if of not in self.positions:
                raise UserError(f"{self.outdir} has no track {of!r}.")
            own = self.positions[of]
            point = self.latents[own]
        else:
            own, point = None, np.asarray(of)
        found = zip(*neighbours.nearest(self.space, point[None], mutual=False), strict=True)
        return [(self.ids[row], float(far)) for row, far in found if row != own][:k]

    def similar(self, to: str | Sequence[str], **options: Any) -> list[tuple[str, float]]:
        """Return the ids of tracks that sound like given ones, with their distances.

        Parameters
        ----------
        to
            Ids, or audio files that are not in the run; one, or several, which stand for their
            mean.
        options
            `count`, `away`, `where`, `per_artist`, `union` and `mutual`, as in
            `vae_jax.collection.similar.Wish`.
        """
        from vae_jax.collection import similar

        wish = similar.Wish([to] if isinstance(to, str) else to, **options)
        return [(found.track.id, found.distance) for found in similar.find(self, wish)]

    def duplicates(self, use_fingerprints: bool = True) -> "list[Same]":
        """Return tracks that are the same, or alike: see `vae_jax.collection.duplicates`."""
        from vae_jax.collection import duplicates

        return duplicates.find(self, use_fingerprints)

    def explore(
        self, path: str | os.PathLike | None = None, embed_audio: float = 0.0
    ) -> "Explorer":
        """Write the run as a page that one can look at, listen to and ask; Jupyter displays it.

        Parameters
        ----------
        path
            The HTML file; `map.html` in the results folder if None. Audio plays as long as it lies
            where it lies now, seen from there.
        embed_audio
            The length in seconds of previews inside the page, which need no other file; 0 for none.
        """
        from vae_jax.explorer import data, page, previews

        target = Path(path) if path is not None else self.outdir / run_lib.MAP
        collected = data.collect(self, target.parent)
        if embed_audio:
            collected.text["previews"] = previews.make(self, collected.text["ids"], embed_audio)
        page.write(target, collected)
        return page.Explorer(target)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the manifest's columns, descriptors and `clusters.csv`, a row per track.

        Where the manifest has a column of a descriptor's name, it counts.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError("a DataFrame needs pandas: pip install pandas.") from error
        columns = self.manifest.columns
        about: dict[str, Any] = {name: self.manifest.column(name, self.ids) for name in columns}
        clusters = pandas.DataFrame(self.table).set_index("id").apply(pandas.to_numeric)
        for name, cells in self.descriptors.items():
            if name not in about:
                is_word = name in ("key", "mode")
                about[name] = cells if is_word else [float(cell or "nan") for cell in cells]
        return pandas.DataFrame(about, index=pandas.Index(self.ids, name="id")).join(clusters)

    @cached_property
    def _latents(self) -> Any:
        from vae_jax.embedding.latents import Latents

        if "vae" not in self.made_with["embeddings"]:
            raise UserError(f"{self.outdir} has no latents yet: run --stage=embed first.")
        return Latents(self.outdir / self.made_with["embeddings"]["vae"])

    @property
    def _clustered(self) -> Path:
        """The results folder, if these latents have clusters."""
        is_done = "vae" in self.made_with["embeddings"] and self.made_with.get("clustered", True)
        if not (is_done and (self.outdir / run_lib.CLUSTERS).exists()):
            raise UserError(f"{self.outdir} has no clusters yet: run --stage=cluster first.")
        return self.outdir

    @cached_property
    def table(self) -> list[dict[str, str]]:
        """The rows of `clusters.csv`, one per track, in the order of the latents."""
        rows = files.read_csv(self._clustered / run_lib.CLUSTERS)
        if [row["id"] for row in rows] != self.ids:
            raise UserError(
                f"{self.outdir / run_lib.CLUSTERS} lists other tracks than the latents: run again."
            )
        return rows


@dataclass(frozen=True)
class Model:
    """A trained model, ready to encode tracks that it has never seen."""

    encoder: "Encoder"

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Model":
        """Load the best model of a run's results, or of a folder of checkpoints."""
        from vae_jax.embedding.encoder import Encoder
        from vae_jax.training import checkpoints

        folder = run_lib.checkpoints_in(Path(path))
        return cls(Encoder(folder, checkpoints.best_step(folder)))

    def encode(self, tracks: "Sequence[str | os.PathLike] | pandas.DataFrame") -> Encoded:
        """Return the posteriors of tracks.

        Parameters
        ----------
        tracks
            Audio files, whose paths become their ids; or a table with the manifest's columns:
            `id` (or the index), and `audio_path`, `lyrics` as far as the model needs them.
        """
        from vae_jax.features import extract
        from vae_jax.records.reader import Records

        model_spec = self.encoder.model_spec
        with tempfile.TemporaryDirectory(prefix="vae_jax-") as folder:
            metadata, directory = Path(folder, "metadata.csv"), Path(folder, "records")
            _write_manifest(metadata, tracks)
            manifest = manifest_lib.read(metadata)
            feature = config_lib.get_config().feature.to_dict() | model_spec.config["feature"]
            feature["descriptors"] = False
            try:
                _, failures = extract.extract(
                    manifest, feature, directory, lyrics=model_spec.lyrics, here=True
                )
            except extract.NothingRead as error:
                failed = error.failures[0]
                raise UserError(
                    f"none of {len(error.failures)} could be read; the first, {failed.id}: "
                    f"{failed.reason}."
                ) from error
            records = Records(directory)
            condition = model_spec.config["model"]["condition"]
            classes = manifest.column(condition, records.ids.tolist()) if condition else []
            everything = [np.arange(len(records), dtype=np.int32)]
            (posterior,) = self.encoder.embed(records, classes, everything, len(records))
        best = self.encoder.best
        return Encoded(
            records.ids.tolist(),
            np.asarray(posterior.mean)[:, best],
            np.asarray(posterior.log_variance)[:, best],
            {failure.id: failure.reason for failure in failures},
        )


def load(outdir: str | os.PathLike) -> Results:
    """Open a run's results folder.

    Raises
    ------
    UserError
        If it holds no results, or those of a version that this one does not know.
    """
    folder = Path(outdir)
    made_with = run_lib.read_run(folder)
    if missing := [name for name in ("config", "manifest", "embeddings") if name not in made_with]:
        raise UserError(
            f"{folder / run_lib.RUN} is of another version of vae_jax ({missing[0]!r} is missing): "
            "use the version that wrote it, or run again."
        )
    values = files.read_json(folder / made_with["config"])
    return Results(folder, made_with, config_lib.from_dict(values))


def cluster(
    points: np.ndarray,
    method: str = "kmeans",
    num_clusters: int = 10,
    seed: int = 0,
    **options: Any,
) -> "Clustering":
    """Cluster points, [N, L], as the cluster stage does.

    `options` are further keys of `config.cluster`, such as `eps` or `linkage`.
    """
    from vae_jax.clustering import clusterers

    config = config_lib.get_config()
    config.cluster.update(method=method, num_clusters=num_clusters, **options)
    config_lib.validate(config)
    return clusterers.cluster(np.asarray(points), config.cluster, seed)


def train(
    config: ConfigDict | str, outdir: str | os.PathLike, settings: Mapping[str, Any] | None = None
) -> Results:
    """Run all stages of a config; what is up to date is not done again.

    A script calls this under `if __name__ == "__main__":`, since features are extracted in
    processes of their own, which import the script.

    Parameters
    ----------
    config
        A config, or a preset's name such as "track" or "track:conv2d".
    outdir
        The folder for the results.
    settings
        Changes of keys, such as {"manifest": "metadata.csv", "model.latent_dim": 8}.
    """
    from vae_jax.features import pool
    from vae_jax.stages import runner

    pool.check_guarded()
    chosen = (
        presets.load(config) if isinstance(config, str) else config.copy_and_resolve_references()
    )
    chosen.update_from_flattened_dict(dict(settings or {}))
    config_lib.validate(chosen)
    runner.run_stages(chosen, Path(outdir), runner.STAGES, None)
    return load(outdir)


def _in_text(audio: Path, folder: Path, number: int) -> str:
    """Return a path that a manifest can hold: that of a link where the path's bytes are no text."""
    if not re.search("[\udc80-\udcff]", str(audio)):
        return str(audio)
    link = folder / f"{number}{audio.suffix}"
    link.symlink_to(audio)
    return str(link)


def _write_manifest(path: Path, tracks: "Sequence[str | os.PathLike] | pandas.DataFrame") -> None:
    if isinstance(tracks, Sequence):
        rows = [{"id": str(track), "audio_path": str(track)} for track in tracks]
    else:
        table = tracks if "id" in tracks else tracks.rename_axis("id").reset_index()
        rows = table.fillna("").astype(str).to_dict("records")
    if not rows:
        raise UserError("no track is given to encode.")
    for number, row in enumerate(rows):
        if row.get("audio_path"):
            row["audio_path"] = _in_text(Path(row["audio_path"]).absolute(), path.parent, number)
    files.write_csv(path, list(rows[0]), rows)
