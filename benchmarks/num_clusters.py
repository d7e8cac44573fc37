"""Measures how often the number of clusters is chosen rightly, on points where it is known.

python -m benchmarks.num_clusters [--sizes=100,1000] [--seeds=3]

Prints a Markdown table: for every kind of data, in 16 and 60 dimensions, how many of the choices
of each criterion are right.
"""

import argparse
import itertools
import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from vae_jax.clustering import num_clusters

DIMENSIONS = (16, 60)
KS = (3, 6, 10)
SPLITS = 2  # of the points, for prediction strength
STRENGTH = 0.8  # what prediction strength must reach (Tibshirani and Walther 2005)
# The mean distance between centres, in standard deviations of a cluster.
DISTANCES = {"apart": 6, "overlapping": 4, "unequal sizes": 6, "unequal shapes": 6}


def structureless(rng: np.random.Generator, n: int, d: int) -> dict[str, np.ndarray]:
    """Return points [n, d] of one cluster each, by what is known of them."""
    normal = rng.normal(size=(n, d))
    scale = np.geomspace(5, 0.5, d)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return {
        "Gaussian": normal,
        "elongated Gaussian": (normal * scale) @ turn,
        "heavy-tailed (Student's t, 3)": normal / np.sqrt(rng.chisquare(3, size=(n, 1)) / 3),
        "uniform cube": rng.uniform(size=(n, d)),
        "skewed (exponential)": rng.exponential(size=(n, d)),
    }


def clustered(kind: str, k: int, rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return points [n, d] of k clusters."""
    sizes = np.geomspace(8, 1, k) if kind == "unequal sizes" else np.ones(k)
    labels = rng.choice(k, size=n, p=sizes / sizes.sum())
    noise = rng.normal(size=(n, d))
    if kind == "unequal shapes":
        scale = np.geomspace(2, 0.5, d)
        scale /= np.sqrt(np.mean(scale**2))
        for c in range(k):
            turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
            noise[labels == c] = (
                noise[labels == c] * scale * np.exp(rng.uniform(-0.3, 0.3))
            ) @ turn
    return noise + (rng.normal(size=(k, d)) * DISTANCES[kind] / np.sqrt(2 * d))[labels]


def cases(n: int, d: int, seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield kind, number of clusters and points."""
    rng = np.random.default_rng([n, d, seed])
    for kind, points in structureless(rng, n, d).items():
        yield kind, 1, points
    for kind in DISTANCES:
        for k in KS:
            yield kind, k, clustered(kind, k, rng, n, d)


def choices(points: np.ndarray, seed: int) -> dict[str, int]:
    """Return the number of clusters that each criterion chooses."""
    ours = num_clusters.choose_num_clusters(points, seed)
    trials = ours.trials
    pairs = itertools.pairwise(trials)
    one_error = [a.num_clusters for a, b in pairs if a.gap >= b.gap - b.gap_error]
    return {
        "chosen": ours.num_clusters,
        "gap, first": min(one_error, default=len(trials)),
        "gap, highest": max(trials, key=lambda trial: trial.gap).num_clusters,
        **_by_halves(points[: num_clusters.SAMPLE], len(trials), seed),
        "BIC, diagonal": _by_bic(points[: num_clusters.SAMPLE], len(trials), seed),
    }


def _by_halves(points: np.ndarray, largest: int, seed: int) -> dict[str, int]:
    """Choose by prediction strength, and by the stability that exceeds that of a uniform box."""
    points = num_clusters._along_principal_axes(points)
    rng = np.random.default_rng(seed)
    box = rng.uniform(points.min(axis=0), points.max(axis=0), size=points.shape)
    by_strength, by_excess = 1, (0.1, 1)
    for k in range(2, largest + 1):
        strength, own = _reproduced(points, k, seed)
        if strength >= STRENGTH:
            by_strength = k
        by_excess = max(by_excess, (own - _reproduced(box, k, seed)[1], k))
    return {"prediction strength": by_strength, "stability": by_excess[1]}


def _reproduced(points: np.ndarray, k: int, seed: int) -> tuple[float, float]:
    """Return prediction strength and AMI between halves, each the mean over splits."""
    from sklearn.metrics import adjusted_mutual_info_score

    half, scores = len(points) // 2, []
    for split in range(SPLITS):
        shuffled = np.random.default_rng([seed, split]).permutation(points)
        first, second = (
            num_clusters._kmeans(part, k, seed) for part in (shuffled[:half], shuffled[half:])
        )
        given, own = first.predict(shuffled[half:]), second.labels_
        together = []
        for c in range(k):
            counts, size = np.bincount(given[own == c]), np.sum(own == c)
            together.append(np.sum(counts * (counts - 1)) / max(1, size * (size - 1)))
        scores.append((min(together), adjusted_mutual_info_score(given, own)))
    strength, ami = np.mean(scores, axis=0)
    return float(strength), float(ami)


def _by_bic(points: np.ndarray, largest: int, seed: int) -> int:
    from sklearn.mixture import GaussianMixture

    points = num_clusters._along_principal_axes(points)
    floor = 1e-3 * float(points.var(axis=0).mean())
    bics = [
        GaussianMixture(k, covariance_type="diag", reg_covar=floor, random_state=seed)
        .fit(points)
        .bic(points)
        for k in range(1, largest + 1)
    ]
    return 1 + int(np.argmin(bics))


def table(sizes: list[int], num_seeds: int) -> str:
    """Run all, and lay out how many choices are right, by kind of data and number of points."""
    right: dict[tuple[int, str], Counter] = {}
    for n in sizes:
        for seed in range(num_seeds):
            for d in DIMENSIONS:
                for kind, k, points in cases(n, d, seed):
                    count = right.setdefault((n, kind), Counter())
                    chosen = choices(points, seed)
                    count.update({name: int(found == k) for name, found in chosen.items()})
                    count["of"] += 1
                    print(n, d, seed, kind, k, chosen, flush=True)
    names = [name for name in next(iter(right.values())) if name != "of"]
    lines = [["n", "data", "cases", *names], ["---"] * (3 + len(names))]
    for (n, kind), count in right.items():
        lines.append([f"{n:,}", kind, str(count["of"]), *(str(count[name]) for name in names)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="100,1000", help="numbers of points")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # mixtures that do not converge
    with threadpool_limits(1):
        print(table([int(n) for n in arguments.sizes.split(",")], arguments.seeds))


if __name__ == "__main__":
    main()
