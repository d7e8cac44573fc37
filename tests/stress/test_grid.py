"""Every clusterer and projection is right if there is little to find, or says so in a sentence."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.stress.jobs import LONG, stress_only
from vae_jax import config as config_lib
from vae_jax.clustering import clusterers, metrics_file
from vae_jax.config import CLUSTERERS, PROJECTIONS
from vae_jax.errors import UserError
from vae_jax.stages import runner
from vae_jax.storage import files

pytestmark = stress_only
NUM_CLUSTERS = 3


@dataclass(frozen=True)
class Tracks:
    """Embeddings [N, L], and the tracks' labels."""

    points: np.ndarray
    labels: list[str]


def blobs(count: int) -> np.ndarray:
    """Return points in three groups, [N, 4]."""
    centers = 4.0 * np.arange(3)[:, None] * np.ones(4)
    noise = np.random.default_rng(0).normal(0, 0.1, (count, 4))
    return (centers[np.arange(count) % 3] + noise).astype(np.float32)


def with_constants(points: np.ndarray) -> np.ndarray:
    """Make all columns but the first the same for all tracks."""
    return np.concatenate([points[:, :1], np.full_like(points[:, 1:], 7)], axis=1)


THREE = ["a", "b", "c"]
TRACKS = {
    "one track": Tracks(blobs(1), ["a"]),
    "two tracks": Tracks(blobs(2), ["a", "b"]),
    "two identical tracks": Tracks(np.repeat(blobs(1), 2, axis=0), ["a", "b"]),
    "identical tracks": Tracks(np.repeat(blobs(1), 12, axis=0), THREE * 4),
    "two different points": Tracks(np.repeat(blobs(2), 6, axis=0), THREE * 4),
    "constant features": Tracks(with_constants(blobs(36)), THREE * 12),
    "zeros": Tracks(np.zeros((12, 4), np.float32), THREE * 4),
    "one dimension": Tracks(blobs(36)[:, :1], THREE * 12),
    "a single label": Tracks(blobs(36), ["a"] * 36),
    "labels of some": Tracks(blobs(36), ["a", "b", "", "a", "", ""] * 6),
    "no labels": Tracks(blobs(36), [""] * 36),
    "a label each": Tracks(blobs(36), [str(i) for i in range(36)]),
}
GRID = list(itertools.product(TRACKS, CLUSTERERS, PROJECTIONS))


def make_run(folder: Path, tracks: Tracks, method: str, projection: str) -> None:
    """Write the embeddings as the stages before do; run the stages cluster and visualize."""
    ids = np.array([f"t{i}" for i in range(len(tracks.points))])
    rows = [{"id": id_, "label": label} for id_, label in zip(ids, tracks.labels, strict=True)]
    files.write_csv(folder / "metadata.csv", ("id", "label"), rows)
    logs = np.zeros_like(tracks.points)
    files.write_npz(folder / "latents.npz", ids=ids, latents=tracks.points, log_variances=logs)
    files.write_npz(folder / "baselines" / "raw.npz", ids=ids, latents=2 * tracks.points)
    config = config_lib.get_config()
    config.manifest, config.baselines = str(folder / "metadata.csv"), ("raw",)
    config.cluster.update(method=method, num_clusters=NUM_CLUSTERS, num_seeds=1, min_samples=3)
    config.visualize.method = projection
    config_lib.validate(config)
    runner.run_stages(config, folder, ["cluster", "visualize"], None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "method", "projection"), GRID if LONG else GRID[::19])
def test_tracks_in_which_little_can_be_found(tmp_path, name, method, projection):
    tracks = TRACKS[name]
    takes_k, n = clusterers.CLUSTERERS[method].takes_k, len(tracks.points)
    if takes_k and n < NUM_CLUSTERS:
        with pytest.raises(UserError, match=rf"num_clusters is 3, more than .* tracks \({n}\)"):
            make_run(tmp_path, tracks, method, projection)
        return
    make_run(tmp_path, tracks, method, projection)
    clusters = files.read_csv(tmp_path / "clusters.csv")
    found = np.array([int(row["cluster"]) for row in clusters])
    distinct, place = np.unique(tracks.points, axis=0, return_inverse=True)
    for i in range(len(distinct)):
        assert len(set(found[place.ravel() == i])) == 1, "identical tracks were told apart"
    for row in files.read_csv(tmp_path / metrics_file.NAME):
        assert int(row["k"]) == len(set(found) - {clusterers.NOISE}) <= len(distinct)
        assert int(row["n_labelled"]) == sum(label != "" for label in tracks.labels)
        numbers = [float(row[key]) for key in ("silhouette", "ami", "ari", "nmi") if row[key]]
        assert all(-1 <= number <= 1 for number in numbers)
        if len(set(tracks.labels) - {""}) < 2:
            assert float(row["ami"] or 0) == float(row["ari"] or 0) == 0
        if len(distinct) == 36 and takes_k:
            assert int(row["k"]) == NUM_CLUSTERS
            assert float(row["silhouette"]) > 0.8
    for table in ("vae", "raw"):
        (path,) = (tmp_path / "latent_visualization").glob(f"{table}_*.csv")
        rows = files.read_csv(path)
        assert len(rows) == n
        assert all(math.isfinite(float(row[axis])) for row in rows for axis in "xy")
        assert list(path.parent.glob(f"{table}_*_clusters.png"))
