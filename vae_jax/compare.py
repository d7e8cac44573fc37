"""Compares methods within and between runs: the VAE beside PCA and the other baselines.

python -m vae_jax.compare results/a results/b [--output=FILE.csv|FILE.md] [--label_run=all]

Every figure is the mean and standard deviation over the seeds of a run; a difference to PCA is
taken seed by seed, with its 95% interval (Student's t). Where a clusterer ignores seeds there is
one row per method, and no interval. The interval says how far the clusterer's random starts
matter; it does not say how far another training or another collection would.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vae_jax import process
from vae_jax.clustering import metrics_file
from vae_jax.config import AUTO
from vae_jax.errors import UserError
from vae_jax.storage import files

REFERENCE = "pca"
WIDTH = 100  # characters of a table on a terminal

# Column -> title, the most telling first. V-measure is NMI by another name.
METRICS = {
    "coverage": "coverage",  # where it is 1 everywhere a terminal does not show it
    "silhouette": "silhouette",
    "common_silhouette": "common",
    "ami": "AMI",
    "nmi": "NMI",
    "ari": "ARI",
    "accuracy": "accuracy",
    "purity": "purity",
    "stability": "stability",
    "calinski_harabasz": "CH",
    "davies_bouldin": "DB",
    "artist_precision_at_1": "P@1",
    "artist_mean_average_precision": "MAP",
    "common_calinski_harabasz": "common CH",
    "common_davies_bouldin": "common DB",
}
# What each score reaches by chance, as the column that holds it.
CHANCE = {
    "ami": "ami_null",
    "nmi": "nmi_null",
    "accuracy": "accuracy_null",
    "purity": "majority",
    "artist_precision_at_1": "artist_precision_at_1_chance",
    "artist_mean_average_precision": "artist_mean_average_precision_chance",
}
DESCRIPTION = (
    *("run_id", "time", "method", "supervised", "feature", "model", "latent_dim"),
    *("clusterer", "k", "k_chosen_by", "n", "n_labelled", "silhouette_sample"),
)
FOOTNOTE = (
    "mean±std over seeds; - pca: mean difference and its 95% interval; "
    "common: in the input features"
)


@dataclass(frozen=True)
class Score:
    """One metric of one method over seeds; NaN where it is undefined.

    Attributes
    ----------
    mean, std
        Over the seeds; the standard deviation of one seed is NaN.
    difference
        Mean of the difference to PCA, seed by seed; NaN for PCA itself.
    margin
        Half the width of the difference's 95% interval; NaN where seeds make no difference.
    """

    mean: float
    std: float
    difference: float
    margin: float


@dataclass(frozen=True)
class Summary:
    """One method of one run.

    Attributes
    ----------
    method
        Such as "vae", with "(supervised)" where it has seen labels.
    columns
        What describes it, of `DESCRIPTION`.
    num_seeds
        Rows that it sums up.
    scores
        By column of `METRICS`, those that the run has.
    chance
        What they reach by chance, by column of `METRICS`.
    """

    method: str
    columns: dict[str, Any]
    num_seeds: int
    scores: dict[str, Score]
    chance: dict[str, float]


def main(directories: Sequence[str], output: str | None, label_run: str) -> None:
    """Print one table per run and, with `output`, write one line per run and method."""
    if not directories:
        raise UserError("no folder is given: name results, as in results/a results/b.")
    if output and Path(output).suffix not in WRITERS:
        raise UserError(f"--output={output} must end in {' or '.join(WRITERS)}.")
    runs = [(where, rows) for where in directories for rows in _runs(where, label_run)]
    print("\n\n".join(table(rows, title=where) for where, rows in runs))
    if output:
        lines = [(where, summary) for where, rows in runs for summary in summarise(rows)]
        WRITERS[Path(output).suffix](output, lines)


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Summary]:
    """Sum up the rows of one run id over seeds: one summary per method, in the rows' order."""
    methods = dict.fromkeys(row["method"] for row in rows)
    by_method = {
        name: {int(row["seed"]): row for row in rows if row["method"] == name} for name in methods
    }
    reference = by_method.get(REFERENCE, {})
    return [_summary(by_seed, reference) for by_seed in by_method.values()]


def table(rows: Sequence[Mapping[str, Any]], title: str = "") -> str:
    """Lay out one run for a terminal: a line per method, and one per difference to PCA.

    Parameters
    ----------
    rows
        Of one run id, as the cluster stage returns them or `metrics_file.read` reads them.
    title
        What the first line begins with, such as the run's folder.
    """
    summaries = summarise(rows)
    lines = {
        s.method: {name: _spread(score) for name, score in s.scores.items()} for s in summaries
    }
    for s in summaries:
        if any(math.isfinite(score.difference) for score in s.scores.values()):
            cells = {name: _difference(score) for name, score in s.scores.items()}
            lines[f"{s.method} - {REFERENCE}"] = cells
    lines["chance"] = {name: _short(value) for name, value in summaries[0].chance.items()}
    width = max(map(len, lines))
    margin = [" " * width, *(name.ljust(width) for name in lines)]
    blocks = [margin]
    for name, metric in METRICS.items():
        means = [s.scores[name].mean for s in summaries if name in s.scores]
        if not means or (name == "coverage" and set(means) == {1.0}):
            continue
        column = [metric, *(cells.get(name, "") for cells in lines.values())]
        size = max(map(len, column))
        if len(blocks[-1][0]) + 2 + size > WIDTH:  # continue below
            blocks.append(margin)
        pairs = zip(blocks[-1], column, strict=True)
        blocks[-1] = [f"{line}  {cell:>{size}}" for line, cell in pairs]
    if blocks == [margin]:
        return f"{_heading(rows, title)}\nno scores: there are no two clusters to tell apart"
    text = [line.rstrip() for block in blocks for line in block if line.strip() != "chance"]
    return "\n".join([_heading(rows, title), *text, FOOTNOTE])


def _summary(
    by_seed: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]]
) -> Summary:
    first = next(iter(by_seed.values()))
    supervised = " (supervised)" if str(first.get("supervised")) == "True" else ""
    scores = {name: _score(name, by_seed, reference) for name in METRICS}
    chance = {
        name: float(np.mean([_number(row, column) for row in by_seed.values()]))
        for name, column in CHANCE.items()
    }
    return Summary(
        method=f"{first['method']}{supervised}",
        columns={name: first.get(name) for name in DESCRIPTION},
        num_seeds=len(by_seed),
        scores={name: score for name, score in scores.items() if math.isfinite(score.mean)},
        chance={name: value for name, value in chance.items() if math.isfinite(value)},
    )


def _score(
    name: str,
    by_seed: Mapping[int, Mapping[str, Any]],
    reference: Mapping[int, Mapping[str, Any]],
) -> Score:
    values = {seed: _number(row, name) for seed, row in by_seed.items()}
    differences = [
        values[seed] - _number(row, name)
        for seed, row in reference.items()
        if seed in by_seed and by_seed is not reference
    ]
    mean, std = _mean_and_std(list(values.values()))
    difference, difference_std = _mean_and_std(differences)
    return Score(mean, std, difference, _margin(difference_std, len(_finite(differences))))


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation of the values that are not NaN."""
    values = _finite(values)
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _margin(std: float, count: int) -> float:
    """Return half of a mean's 95% interval, by Student's t; NaN where nothing varies."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if std > 0 else math.nan


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    try:
        return math.nan if value is None or value == "" else float(value)
    except ValueError as error:
        raise UserError(
            f"{metrics_file.NAME} is damaged: {name} is {value!r} for {row['method']}, "
            f"seed {row['seed']}; mend it or move it away."
        ) from error


def _heading(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    first = rows[0]
    ks = sorted({int(row["k"]) for row in rows})
    k = f"k={ks[0]}" if len(ks) == 1 else f"k={ks[0]} to {ks[-1]}"
    if first.get("k_chosen_by") == AUTO:
        k += f" ({AUTO})"
    seeds = len({row["seed"] for row in rows})
    described = [first["feature"], first["model"], first["clusterer"], k, f"n={first['n']}"]
    described += [f"{seeds} seed{'s' if seeds > 1 else ''}", first["time"]]
    return f"{title}{': ' if title else ''}{', '.join(map(str, described))}"


def _short(value: float, sign: str = "") -> str:
    """Write a number in about four characters: .123, 4.567, 89.1, 1.23e+04."""
    if abs(value) >= 9.9995:
        return f"{value:{sign}.3g}"
    return f"{value:{sign}z.3f}".replace("0.", ".", 1 if abs(value) < 0.9995 else 0)


def _spread(score: Score) -> str:
    if not math.isfinite(score.mean):
        return ""
    return _short(score.mean) + (f"±{_short(score.std)}" if score.std > 0 else "")


def _difference(score: Score) -> str:
    if not math.isfinite(score.difference):
        return ""
    margin = f"±{_short(score.margin)}" if math.isfinite(score.margin) else ""
    return _short(score.difference, "+") + margin


def _runs(directory: str, label_run: str) -> list[list[dict[str, str]]]:
    """Return the rows of each run in a folder, oldest first; of the latest only, if so asked."""
    path = Path(directory) / metrics_file.NAME
    rows = metrics_file.read(path)
    if not rows:
        raise UserError(f"{path} has no rows: run --stage=cluster first.")
    times = {row["run_id"]: row["time"] for row in rows}
    run_ids = sorted(times, key=times.__getitem__)  # ISO times sort as text
    chosen = run_ids if label_run == "all" else run_ids[-1:]
    return [[row for row in rows if row["run_id"] == run_id] for run_id in chosen]


def _write_csv(path: str, lines: Sequence[tuple[str, Summary]]) -> None:
    rows = []
    for where, summary in lines:
        row = {"directory": where, **summary.columns, "num_seeds": summary.num_seeds}
        for name, score in summary.scores.items():
            low, high = score.difference - score.margin, score.difference + score.margin
            row |= {name: score.mean, f"{name}_std": score.std}
            row |= {f"{name}_minus_pca": score.difference}
            row |= {f"{name}_minus_pca_low": low, f"{name}_minus_pca_high": high}
        rows.append({name: _cell(value) for name, value in row.items()})
    files.write_csv(path, list(dict.fromkeys(name for row in rows for name in row)), rows)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""


def _write_markdown(path: str, lines: Sequence[tuple[str, Summary]]) -> None:
    names = [name for name in METRICS if any(name in s.scores for _, s in lines)]
    titles = [title for name in names for title in (METRICS[name], f"{METRICS[name]} - PCA")]
    described = ("feature", "model", "latent_dim", "clusterer", "k", "n")
    table = [["run", "method", *described, "seeds", *titles]]
    table.append(["---"] * len(table[0]))
    for where, summary in lines:
        empty = Score(math.nan, math.nan, math.nan, math.nan)
        scores = [summary.scores.get(name, empty) for name in names]
        cells = [where, summary.method, *(summary.columns[name] for name in described)]
        cells += [summary.num_seeds]
        cells += [cell for score in scores for cell in (_spread(score), _difference(score))]
        table.append([str(cell).replace("|", "\\|") for cell in cells])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    with files.atomic_write(path) as file:
        file.write(f"{text}\n\n{FOOTNOTE}\n".encode())


WRITERS: dict[str, Callable[[str, Sequence[tuple[str, Summary]]], None]] = {
    ".csv": _write_csv,
    ".md": _write_markdown,
}


def run() -> None:
    """Parse the flags and compare; print what a user can mend as one sentence."""
    output = flags.DEFINE_string("output", None, "Also write the comparison: FILE.csv or FILE.md.")
    label_run = flags.DEFINE_enum(
        "label_run", "latest", ["latest", "all"], "Which runs of each folder to compare."
    )
    process.run_command(lambda argv: main(argv[1:], output.value, label_run.value))


if __name__ == "__main__":
    run()
