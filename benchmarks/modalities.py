"""Compares audio, lyrics and both together, to see whether either says less beside the other.

python -m benchmarks.derive half_lyrics ... --outdir=DIR
python -m benchmarks.modalities --manifest=DIR/metadata.csv --outdir=DIR/results [--seeds=10]

Each is clustered by k-means into as many clusters as there are languages, and into as many as there
are genres. Only tracks that it has and that have the label are scored. "PCA" of both modalities
puts the PCA of each side by side, completed and balanced like the VAE's latents (`linear`). "PCA"
of both, fused, is that of all columns together.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from benchmarks import quality
from configs import hybrid, lyrics, mlp
from vae_jax import manifest
from vae_jax.embedding import baselines
from vae_jax.errors import UserError
from vae_jax.models.multimodal import balance
from vae_jax.models.posterior import Posterior, side_by_side
from vae_jax.models.priors import Mixture
from vae_jax.run import Run
from vae_jax.stages import runner
from vae_jax.storage import files
from vae_jax.training import mixture
from vae_jax.training.model_spec import rarity

LABELS = ("language", "genre")
SPACES = {"vae": "VAE", "pca": "PCA", "raw": "raw"}


def configs() -> dict[str, ConfigDict]:
    """Return what is compared, by name."""
    return {
        **{"lyrics": lyrics.get_config(), "audio": mlp.get_config()},
        **{"both": hybrid.get_config(), "both, fused": hybrid.get_config("fused")},
    }


def main(path: Path, outdir: Path, num_seeds: int) -> str:
    """Train everything, write `modalities.csv`, and return the table."""
    tracks, rows = manifest.read(path, requires=LABELS), []
    for name, config in configs().items():
        config.update(manifest=str(path), num_seeds=num_seeds, baselines=("raw", "pca"))
        config.update(data_dir=str(outdir / "data"), checkpoint_dir=str(outdir / "checkpoints"))
        run = Run(config, outdir / "runs" / name.replace(", ", "-"))
        print(name, file=sys.stderr, flush=True)
        runner.run_stages(config, run.outdir, ("features", "train", "embed"), None)
        rows += [{"features": name, **row} for row in _scores(run, tracks, num_seeds)]
    files.write_csv(outdir / "modalities.csv", list(rows[0]), rows)
    return table(rows)


def _scores(
    run: Run, tracks: manifest.Manifest, num_seeds: int
) -> Iterator[dict[str, str | int | float]]:
    for space in SPACES:
        ids, points = quality.read(run.embedding(space), num_seeds)
        if space == "pca" and run.config.model.name == "multimodal":
            points = [linear(run, seed) for seed in range(num_seeds)]
        for label in LABELS:
            classes = np.array(tracks.labels(label, ids.tolist()))
            k = len({*classes} - {""})
            for row in quality.score(space, points, points[0], classes, classes, k).rows:
                counts = {"n": int((classes != "").sum()), "k": k}
                yield {"space": space, "label": label, **counts, "ami": row["ami"]}


def linear(run: Run, seed: int) -> np.ndarray:
    """Return the PCA of each modality, completed and balanced as the VAE's latents are, [N, L].

    Components are scaled like the posterior of a linear VAE with unit noise (probabilistic PCA,
    Tipping and Bishop 1999), and the mixture is fitted to them.
    """
    records, model = run.records, run.config.model
    arrays = baselines.summaries(records, np.arange(len(records)))
    names = [name for name in records.arrays if f"has_{name}" in records.arrays]
    present = [arrays[f"has_{name}"].astype(np.float32) for name in names]
    blocks = []
    for name, there in zip(names, present, strict=True):
        known = records.statistics[name]
        points = (arrays[name] - known.mean) / known.std
        _, values, axes = np.linalg.svd(points[there > 0], full_matrices=False)
        signal = np.maximum(values[: model.latent_dim] ** 2 / there.sum(), 1.0)
        mean = points @ axes[: model.latent_dim].T * np.sqrt(signal - 1) / signal
        blocks.append(Posterior(mean, np.tile(-np.log(signal), (len(points), 1))))
    joined = side_by_side(blocks, present)
    prior = Mixture(model.num_components, joined.mean.shape[1])
    fitted = {"params": mixture.fit(joined, model.num_components, seed)}
    weights = np.array([rarity(records) if name == "lyrics" else 1.0 for name in names])
    factors = balance(prior.apply(fitted, method="within"), weights)
    return np.asarray(prior.apply(fitted, joined, method="complete").scale(factors).mean)


def table(rows: list[dict]) -> str:
    """Lay the AMI out as Markdown: mean and standard deviation over seeds."""
    titles = [f"{label}: {SPACES[space]}" for label in LABELS for space in SPACES]
    lines = [["features", "tracks", *titles], ["---"] * (2 + len(titles))]
    for name in dict.fromkeys(row["features"] for row in rows):
        own, cells = [row for row in rows if row["features"] == name], []
        for label in LABELS:
            for space in SPACES:
                values = [r["ami"] for r in own if (r["label"], r["space"]) == (label, space)]
                cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}")
        counts = [str(next(r["n"] for r in own if r["label"] == label)) for label in LABELS]
        lines.append([name, " / ".join(counts), *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def run() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--outdir", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    try:
        print(main(args.manifest, args.outdir, args.seeds))
    except UserError as error:
        sys.exit(f"benchmarks.modalities: {error}")


if __name__ == "__main__":
    run()
