"""`clusters.json` and `clusters.md`: what clusters are, and why their tracks are together.

`clusters.json` has

- `tracks`, `seed`, `permutations`, and `level`: a p-value up to it counts, so that clusters that
  are drawn at random have any reason at all in at most 5% of the draws;
- `descriptors`: the numbers that are known of the tracks, and `note`, why there are none;
- `methods`: for the VAE (`vae`), its mixture and each baseline a list of clusters, each with
  `cluster`, its number in `clusters.csv`; `name`, suggested, and `given`, by a person; `size`,
  `share`; `typical` and `edge`, ids of the tracks nearest to its centre and of those least at home;
  `reasons`, in words; and what these rest on:

  - `differences`: `descriptor`, the standardised `difference` (Hedges' g) with its 95% interval
    `low` to `high`, the medians `inside` and `outside`, `p`;
  - `labels`: `column`, `value`, `tracks` that have it, their `share` and that `overall`, `p`;
  - `terms` of lyrics: `term`, `log_odds`, `z`, `tracks`, `share`, `overall`, `p`;

- `dimensions` of the latent: `dimension`, `name`, and `goes_with`, each with `descriptor`,
  `rank_correlation` and `p`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax import history
from vae_jax.embedding.latents import Latents
from vae_jax.features import descriptors
from vae_jax.manifest import Manifest
from vae_jax.reasons import shares, terms, words
from vae_jax.reasons.differences import PERMUTATIONS, differences, rank_correlations
from vae_jax.run import CLUSTERS, DESCRIPTORS, REASONS, Run
from vae_jax.storage import files

ALPHA = 0.05  # of clusters that are drawn at random may have a reason
SMALL = 0.2  # standard deviations; smaller differences are none that one hears (Cohen 1988)
LITTLE_MORE = 1.25  # times as frequent as among all tracks, at least
WEAK = 0.3  # smaller rank correlations say little of a latent dimension
NUM_TYPICAL, NUM_EDGE = 5, 3
MOST = 10  # reasons of a kind that are kept
WORDS = ("key", "mode")  # descriptors that are labels

Json = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """What is known of the N tracks that have clusters.

    Attributes
    ----------
    ids
        Their ids.
    names, values
        The descriptors that are numbers, D of them, and their values [N, D]; NaN where unknown.
    labels
        Labels by column, "" where a track has none.
    words
        The words of their lyrics, if enough have any.
    """

    ids: list[str]
    names: list[str]
    values: np.ndarray
    labels: dict[str, list[str]]
    words: terms.Used | None

    @property
    def level(self) -> float:
        """The p-value up to which a reason counts; its kinds share the 5% (Bonferroni)."""
        kinds = sum(map(bool, (self.names, self.labels, self.words)))
        return ALPHA / max(kinds, 1)


def explain(run: Run) -> Json:
    """Return what `clusters.json` holds (see above)."""
    rows = files.read_csv(run.outdir / CLUSTERS)
    known, seed = _known(run, [row["id"] for row in rows]), run.config.seed
    prefixes = [name[: -len("cluster")] for name in rows[0] if name.endswith("cluster")]
    given = history.names(run.outdir)
    methods = {
        prefix.rstrip("_") or "vae": of_method(rows, prefix, known, seed) for prefix in prefixes
    }
    for cluster in methods["vae"]:
        cluster["given"] = given.get(cluster["cluster"], "")
    return {
        "tracks": len(rows),
        "seed": seed,
        "permutations": PERMUTATIONS,
        "level": known.level,
        "descriptors": known.names,
        "note": "" if known.names else no_descriptors(run),
        "methods": methods,
        "dimensions": _dimensions(run, known, seed),
    }


def no_descriptors(run: Run) -> str:
    """Say in a sentence why a run has no descriptors."""
    if not run.config.feature.descriptors:
        return "There are no descriptors: config.feature.descriptors is False."
    if run.config.feature.name in ("lyrics_tfidf", "embedding"):
        return "There are no descriptors: the features are not computed from audio."
    return (
        "There are no descriptors: an earlier version has extracted these features; to have them, "
        f"delete {run.records_dir} and run again."
    )


def names(outdir: Path, method: str = "vae") -> dict[int, str]:
    """Return the names of a method's clusters by number: suggested ones, or a person's."""
    suggested = {n: one["name"] for n, one in read(outdir, method).items() if one["name"]}
    return suggested | (history.names(outdir) if method == "vae" else {})


def read(outdir: Path, method: str = "vae") -> dict[int, Json]:
    """Return what is known of a method's clusters by number; empty if they are not explained."""
    path = outdir / REASONS
    explained = files.read_json(path)["methods"] if path.exists() else {}
    return {cluster["cluster"]: cluster for cluster in explained.get(method, ())}


def dimensions(outdir: Path) -> dict[int, str]:
    """Return what becomes more as each latent dimension grows, where that is known."""
    path = outdir / REASONS
    known = files.read_json(path)["dimensions"] if path.exists() else []
    return {one["dimension"]: one["name"] for one in known if one["name"]}


def label_columns(run: Run) -> list[str]:
    """Return the columns whose labels may be reasons."""
    given = (run.config.cluster.label, *run.config.visualize.color_by, "artist")
    return [name for name in dict.fromkeys(given) if name in run.manifest.columns]


def titles_of(manifest: Manifest, ids: Sequence[str]) -> dict[str, str]:
    """Name tracks as people do, by artist and title, where the manifest has them."""
    artists, titles = (manifest.column(name, ids) for name in ("artist", "title"))
    return {
        id_: " - ".join(filter(None, (artist, title))) if title else id_
        for id_, artist, title in zip(ids, artists, titles, strict=True)
    }


def _known(run: Run, ids: list[str]) -> Known:
    labels: dict[str, list[str]] = {}
    for column in label_columns(run):
        cells = run.manifest.labels(column, ids)
        if any(cells) and cells not in labels.values():  # label and genre are often equal
            labels[column] = cells
    names: list[str] = []
    values = np.zeros((len(ids), 0))
    if described := descriptors.read(run.outdir / DESCRIPTORS, ids):
        names = [*words.WORDS]
        rows = zip(*(described[name] for name in names), strict=True)
        values = np.array([[float(cell or "nan") for cell in row] for row in rows])
        labels |= {name: described[name] for name in WORDS}
    return Known(
        ids, names, values, labels, terms.count(run.manifest.column("lyrics", ids), run.config.seed)
    )


def of_method(
    rows: Sequence[Mapping[str, str]], prefix: str, known: Known, seed: int
) -> list[Json]:
    """Explain the clusters of one method, the largest first.

    `rows` are those of `clusters.csv`, of the tracks that are known, in which the method's columns
    begin with `prefix`.
    """
    numbers = np.array([int(row[f"{prefix}cluster"]) for row in rows])
    named = np.unique(numbers[numbers >= 0])
    codes = np.where(numbers >= 0, np.searchsorted(named, numbers), -1)
    kinds = {
        "differences": _differences(known, codes, seed),
        "labels": _shares(known, codes),
        "terms": _terms(known, codes, seed),
    }
    near = _cells(rows, f"{prefix}distance")
    home = _cells(rows, f"{prefix}silhouette")
    found = []
    for code in np.argsort(-np.bincount(codes[codes >= 0]), kind="stable").tolist():
        own = np.flatnonzero(codes == code)
        typical = _lowest(near[own], NUM_TYPICAL)
        home_or_near = np.where(np.isfinite(home[own]), home[own], -near[own])
        home_or_near[typical] = np.nan
        cluster = {
            "cluster": int(named[code]),
            "name": "",
            "size": len(own),
            "share": _rounded(len(own) / len(rows)),
            "typical": [known.ids[i] for i in own[typical]],
            "edge": [known.ids[i] for i in own[_lowest(home_or_near, NUM_EDGE)]],
            **{kind: listed.get(code, [])[:MOST] for kind, listed in kinds.items()},
        }
        found.append(cluster | {"name": words.name(cluster), "reasons": words.sentences(cluster)})
    return found


def _differences(known: Known, codes: np.ndarray, seed: int) -> dict[int, list[Json]]:
    found = differences(known.values, codes, seed)
    listed: dict[int, list[Json]] = {}
    for k, d in np.argwhere((found.p <= known.level) & (np.abs(found.effect) >= SMALL)).tolist():
        listed.setdefault(k, []).append(
            {
                "descriptor": known.names[d],
                "difference": _rounded(found.effect[k, d]),
                "low": _rounded(found.low[k, d]),
                "high": _rounded(found.high[k, d]),
                "inside": _rounded(found.inside[k, d]),
                "outside": _rounded(found.outside[k, d]),
                "p": _rounded(found.p[k, d]),
            }
        )
    return {k: sorted(one, key=lambda x: -abs(x["difference"])) for k, one in listed.items()}


def _shares(known: Known, codes: np.ndarray) -> dict[int, list[Json]]:
    listed: dict[int, list[Json]] = {}
    for one in shares.shares(known.labels, codes):
        if one.p <= known.level and one.lift >= LITTLE_MORE:
            listed.setdefault(one.cluster, []).append(
                {
                    "column": one.column,
                    "value": one.value,
                    "tracks": one.inside,
                    "share": _rounded(one.inside / one.size),
                    "overall": _rounded(one.total / one.count),
                    "p": _rounded(one.p),
                }
            )
    return listed


def _terms(known: Known, codes: np.ndarray, seed: int) -> dict[int, list[Json]]:
    listed: dict[int, list[Json]] = {}
    if known.words is None:
        return listed
    found = terms.terms(known.words, codes, seed)
    chosen = np.argwhere((found.p <= known.level) & (found.z > 0))
    for k, v in sorted(chosen.tolist(), key=lambda at: -found.z[at[0], at[1]]):
        listed.setdefault(k, []).append(
            {
                "term": found.names[v],
                "log_odds": _rounded(found.log_odds[k, v]),
                "z": _rounded(found.z[k, v]),
                "tracks": int(found.inside[k, v]),
                "share": _rounded(found.inside[k, v] / found.sizes[k]),
                "overall": _rounded(found.total[v] / found.count),
                "p": _rounded(found.p[k, v]),
            }
        )
    return listed


def _dimensions(run: Run, known: Known, seed: int) -> list[Json]:
    """Say what each dimension of the latent goes with."""
    latents = Latents(run.embedding("vae"))
    rows, points = latents.held(run.config.cluster.silhouette_sample, seed)
    correlation, p = rank_correlations(points, known.values[rows], seed)
    found = []
    for dimension in range(points.shape[1]):
        goes_with = [
            {
                "descriptor": known.names[d],
                "rank_correlation": _rounded(correlation[dimension, d]),
                "p": _rounded(p[dimension, d]),
            }
            for d in np.argsort(-np.abs(correlation[dimension]), kind="stable").tolist()
            if p[dimension, d] <= ALPHA and abs(correlation[dimension, d]) >= WEAK
        ]
        name = words.dimension(goes_with)
        found.append({"dimension": dimension, "name": name, "goes_with": goes_with})
    return found


def _cells(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    return np.array([float(row.get(name) or "nan") for row in rows])


def _lowest(values: np.ndarray, count: int) -> list[int]:
    """Return where the lowest known values are, the lowest first."""
    order = np.argsort(values, kind="stable")
    return [i for i in order.tolist() if math.isfinite(values[i])][:count]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
