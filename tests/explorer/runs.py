"""Writes the results of a run as the stages would, in a moment, of any kind of tracks."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from vae_jax import config as config_lib
from vae_jax import run as run_lib
from vae_jax.storage import files

SECONDS = 2


def write(
    folder: Path,
    clusters: Sequence[int],
    columns: dict[str, Sequence[str]] | None = None,
    ids: Sequence[str] | None = None,
    audio: bool = True,
    seed: int = 0,
) -> Path:
    """Write a run of tracks in given clusters; return its results folder."""
    rng, total = np.random.default_rng(seed), len(clusters)
    ids = list(ids or (f"track-{i}" for i in range(total)))
    centers = rng.normal(0, 4, (max(clusters) + 2, 6))
    latents = (centers[np.asarray(clusters)] + rng.normal(0, 1, (total, 6))).astype(np.float32)
    results = folder / "results"
    rows = [{"id": id_, "audio_path": f"music/{i % 4}.wav"} for i, id_ in enumerate(ids)]
    for name, cells in (columns or {}).items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    if audio:
        write_sounds(folder / "music")
    else:
        for row in rows:
            del row["audio_path"]
    files.write_csv(folder / "metadata.csv", list(rows[0]), rows)
    files.write_npz(results / run_lib.LATENTS, ids=np.array(ids), latents=latents)
    files.write_csv(
        results / run_lib.CLUSTERS,
        ("id", "cluster", "distance", "silhouette", "pca_cluster"),
        (
            {
                "id": id_,
                "cluster": int(cluster),
                "distance": f"{np.linalg.norm(point):.6g}",
                "silhouette": f"{rng.uniform(-1, 1):.6g}",
                "pca_cluster": i % 2,
            }
            for i, (id_, cluster, point) in enumerate(zip(ids, clusters, latents, strict=True))
        ),
    )
    for name, places in {"vae_umap": latents[:, :2], "pca_umap": latents[:, 2:4]}.items():
        files.write_csv(
            results / "latent_visualization" / f"{name}.csv",
            ("id", "x", "y"),
            (
                {"id": i, "x": f"{x:.6g}", "y": f"{y:.6g}"}
                for i, (x, y) in zip(ids, places, strict=True)
            ),
        )
    files.write_json(results / run_lib.CONFIG, config_lib.to_dict(config_lib.get_config()))
    files.write_json(
        results / run_lib.RUN,
        {
            "config": run_lib.CONFIG,
            "manifest": os.path.relpath(folder / "metadata.csv", results),
            "embeddings": {"vae": run_lib.LATENTS},
        },
    )
    return results


def write_sounds(folder: Path) -> None:
    """Write four sounds of some seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(SECONDS * 8000) / 8000
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.sin(2 * np.pi * 220 * (i + 1) * time), 8000)
