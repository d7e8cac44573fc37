"""What a run says at its end: what was found, typical tracks, every score, and where it all is."""

import heapq
import math
import re
from collections import Counter
from collections.abc import Sequence

from vae_jax import compare, history
from vae_jax.clustering import metrics_file, scores
from vae_jax.clustering.clusterers import NOISE
from vae_jax.clustering.scores import Summary
from vae_jax.config import BASELINE_TITLES
from vae_jax.models.declared import models_declared
from vae_jax.run import (
    CLUSTERS,
    CONFIG,
    DROPPED,
    FAILED,
    RUN,
    TRAIN_METRICS,
    WARNINGS,
    Run,
    read_run,
)
from vae_jax.stages import up_to_date
from vae_jax.storage import files

SHARD = re.compile(r"-\d+-of-\d+\.npz$")
JUDGED = {  # column -> what it says, and its name
    "ami": ("agrees with the column {label!r}", "AMI"),
    "artist_precision_at_1": ("finds tracks of the same artist", "P@1"),
}
MAX_CLUSTERS = 12  # that are described
MAX_FILES = 6  # of one folder that are listed one by one
TYPICAL = 3  # tracks that stand for a cluster


def report(run: Run) -> str:
    """Return what a person wants to know of a run whose stages have ended."""
    parts, described = [], read_run(run.outdir)
    if described["clustered"]:
        rows = metrics_file.read(run.outdir / metrics_file.NAME)
        rows = [row for row in rows if row["run_id"] == rows[-1]["run_id"]]
        parts += ["\n".join([*_found(run, scores.summarise(rows)), *_clusters(run)])]
        parts += [compare.table(rows)]
    parts += [_duplicates(run)]
    parts += _followed(run)
    parts += _kept(run)
    made = up_to_date.outputs(run.outdir) if described["embeddings"] else []
    parts += _pictures(run, made)
    parts.append("\n".join(["Written or up to date:", *_written(run, made)]))
    return "\n\n".join(parts)


def _found(run: Run, summaries: Sequence[Summary]) -> list[str]:
    """Say in a sentence each how the model compares with the linear methods."""
    model = next((s for s in summaries if s.columns["method"] == "vae"), None)
    if model is None:
        return []
    name, lines = models_declared()[run.config.model.name].title, []
    for column, (what, metric) in JUDGED.items():
        for reference, differences in model.differences.items():
            if column in model.scores:
                judged = f"The {name} {what.format(label=run.config.cluster.label)}"
                lines.append(f"{judged} {_judge(model, column, metric, reference, differences)}")
    if not lines:
        stability = model.scores.get("stability")
        lines.append("There are no labels and no artists to compare the clusters with.")
        if stability:
            lines.append(f"Between starts they agree to {stability.mean:.2f} (1 is all: AMI).")
    return lines


def _judge(
    model: Summary,
    column: str,
    metric: str,
    reference: str,
    differences: dict[str, scores.Difference],
) -> str:
    """Return the verdict on one score: better or worse only where the interval is clear of 0."""
    own, difference = model.scores[column].mean, differences[column]
    margin = difference.margin if difference.margin == difference.margin else 0.0  # not NaN
    low, high = difference.mean - margin, difference.mean + margin
    verdict = "better than" if low > 0 else "less well than" if high < 0 else "no better than"
    title = BASELINE_TITLES[reference]
    interval = f" ({low:+.2f} to {high:+.2f})" if margin else ""
    return (
        f"{verdict} {title}: {metric} {own:.2f}, {title} {own - difference.mean:.2f}, "
        f"difference {difference.mean:+.2f}{interval}."
    )


def _followed(run: Run) -> list[str]:
    """Say how many tracks kept their cluster since the tracks changed, and which clusters did."""
    if not run.previous or not (run.outdir / CLUSTERS).exists():
        return []
    before = history.clusters(run.previous, "")
    now = {row["id"]: int(row["cluster"]) for row in files.iterate_csv(run.outdir / CLUSTERS)}
    shared = [id_ for id_ in before if id_ in now]
    moved = [id_ for id_ in shared if before[id_] != now[id_]]
    left = Counter(before[id_] for id_ in moved)
    joined = Counter(now[id_] for id_ in moved)
    new = Counter(now[id_] for id_ in now if id_ not in before)
    named = history.names(run.outdir)
    changes = []
    for cluster in sorted({*left, *joined, *new} - {NOISE}):
        what = [(new, "new"), (joined, "joined"), (left, "left")]
        counts = [f"{count[cluster]} {word}" for count, word in what if count[cluster]]
        name = f"{cluster} {named.get(cluster, '')}".rstrip()
        if left[cluster] or joined[cluster]:
            changes.append(f"{name} ({', '.join(counts)})")
    kept = len(shared) - len(moved)
    lines = [
        f"{kept} of {len(shared)} tracks kept their cluster since {run.previous}; "
        f"{len(now) - len(shared)} are new."
    ]
    if changes:
        shown = [*changes[:MAX_CLUSTERS], *(["..."] if len(changes) > MAX_CLUSTERS else [])]
        lines.append(f"  changed: {'; '.join(shown)}")
    if gone := sorted({*before.values()} - {*now.values(), NOISE}):
        lines.append(f"  gone: {', '.join(map(str, gone))}")
    return ["\n".join(lines)]


def _duplicates(run: Run) -> str:
    """Say whether duplicates count, which make scores look better."""
    if run.config.duplicates == "keep":
        return (
            "Duplicates, if there are any, count as tracks of their own, which raises scores: "
            f"vae-jax duplicates {run.outdir} lists them, --config.duplicates=drop leaves them out."
        )
    count = len(run.dropped)
    return f"{count} duplicates are left out of training and scores: {run.outdir / DROPPED}."


def _kept(run: Run) -> list[str]:
    """Say what the latents of a track VAE keep, at the best evaluation of its training."""
    from vae_jax.training.history import read  # jax: `--help` does not wait for it

    written = read(run.outdir / TRAIN_METRICS)
    lines = [line for line in written if line.get("eval/variance_kept") is not None]
    if not lines:
        return []
    best = min(lines, key=lambda line: line.get("eval/loss") or math.inf)
    return [
        f"Track latents keep {best['eval/variance_kept']:.0%} of how held-out tracks' descriptions "
        f"differ, {best['eval/variance_kept_first']:.0%} along their first principal components."
    ]


def _clusters(run: Run) -> list[str]:
    """Describe each cluster by its size and the tracks nearest to its centre."""
    nearest: dict[str, list[tuple[float, int, str]]] = {}  # of equally near tracks the first
    sizes: Counter[str] = Counter()
    for i, row in enumerate(files.iterate_csv(run.outdir / CLUSTERS)):
        sizes[row["cluster"]] += 1
        if row["distance"]:
            heap = nearest.setdefault(row["cluster"], [])
            heapq.heappush(heap, (-float(row["distance"]), -i, row["id"]))
            if len(heap) > TYPICAL:
                heapq.heappop(heap)
    lines, named = [], history.names(run.outdir)
    for cluster, size in sizes.most_common(MAX_CLUSTERS):
        ids = [id_ for *_, id_ in sorted(nearest.get(cluster, []), reverse=True)]
        name = "in no cluster" if cluster == "-1" else f"cluster {cluster}"
        name = " ".join(filter(None, (name, named.get(int(cluster)))))
        typical = f", such as {'; '.join(_titles(run, ids))}" if ids else ""
        lines.append(f"  {name}: {size} track{'s' * (size > 1)}{typical}")
    if len(sizes) > MAX_CLUSTERS:
        lines.append(f"  and {len(sizes) - MAX_CLUSTERS} smaller ones")
    return lines


def _titles(run: Run, ids: Sequence[str]) -> list[str]:
    """Name tracks as people do, by artist and title, where the manifest has them."""
    artists, titles = (run.manifest.column(name, ids) for name in ("artist", "title"))
    return [
        " - ".join(filter(None, (artist, title))) if title else id_
        for id_, artist, title in zip(ids, artists, titles, strict=True)
    ]


def _pictures(run: Run, made: Sequence[str]) -> list[str]:
    """Name the pictures to open first: the map of the clusters, and of the first column."""
    maps = [name for name in made if re.search(r"/vae_\w+\.png$", name)]
    first = [name for name in maps if name.endswith("_clusters.png")]
    first += [name for name in maps if f"/vae_{run.config.visualize.method}_by_" in name]
    if not first:
        return []
    return ["\n".join(["Look at these first:", *(f"  {run.outdir / name}" for name in first[:2])])]


def _written(run: Run, made: Sequence[str]) -> list[str]:
    """List what this run wrote: shards by their folder, and folders of many files as one."""
    names = (RUN, CONFIG, FAILED, WARNINGS, TRAIN_METRICS)
    own = [name for name in names if (run.outdir / name).exists()]
    paths = [run.outdir / name for name in sorted({*own, *made})]
    in_folder = Counter(path.parent for path in paths if path.parent != run.outdir)
    lines = []
    for path in paths:
        if SHARD.search(path.name):
            lines.append(f"{path.parent}/")
        elif in_folder[path.parent] > MAX_FILES:
            lines.append(f"{path.parent}/ ({in_folder[path.parent]} files)")
        else:
            lines.append(f"{path}")
    lines += [f"{folder}/" for folder in run.folders()]
    return [f"  {line}" for line in dict.fromkeys(lines)]
