"""Compares methods within and between runs: the VAE beside PCA and the other baselines.

python -m vae_jax.compare results/a results/b [--output=FILE.csv|FILE.md] [--label_run=all]

A figure is the mean and standard deviation over a run's trainings. The deviation over the starts of
the clusterer follows in parentheses. A difference to PCA or PLDA is taken start by start, with its
95% interval over the trainings (Student's t). With a single training the interval is over its
starts, and does not say how much another training would change. No interval says how much another
collection would. Methods with different numbers of clusters stand in different tables.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vae_jax import process
from vae_jax.clustering import metrics_file
from vae_jax.clustering.scores import (
    METRICS,
    PLDA,
    REFERENCES,
    Difference,
    Score,
    Summary,
    number_of_clusters,
    summarise,
)
from vae_jax.config import AUTO
from vae_jax.errors import UserError
from vae_jax.storage import files

WIDTH = 100  # characters of a table on a terminal
FOOTNOTE = (
    "mean±std over trainings (std over starts); - pca: mean difference and its 95% interval;\n"
    "common: in the input features"
)
UNKNOWN, UNDEFINED = Score(math.nan), Difference(math.nan, math.nan)
JUDGED = (
    "ami",
    "artist_precision_at_1",
    "artist_mean_average_precision",
)  # scores in which a VAE may win


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


def table(rows: Sequence[Mapping[str, Any]], title: str = "") -> str:
    """Lay out one run for a terminal: a line per method, and one per difference to a baseline.

    Parameters
    ----------
    rows
        The rows of one run id, as the cluster stage returns or `metrics_file.read` reads them.
    title
        What the first line begins with, such as the run's folder.
    """
    summaries, heading = summarise(rows), _heading(rows, title)
    ks = dict.fromkeys(s.columns["k"] for s in summaries)
    blocks = {k: _lines([s for s in summaries if s.columns["k"] == k]) for k in ks}
    if not any(blocks.values()):
        return f"{heading}\nno scores: there are no two clusters to tell apart"
    parts = [heading]
    for k, lines in blocks.items():
        parts += ([f"k={k}:"] if lines and len(ks) > 1 else []) + lines
    return "\n".join([*parts, FOOTNOTE, *_verdict(summaries)])


def _lines(summaries: Sequence[Summary]) -> list[str]:
    """Lay out methods that have the same number of clusters; return nothing without scores."""
    lines = {
        s.method: {name: _spread(score) for name, score in s.scores.items()} for s in summaries
    }
    for reference in REFERENCES:
        for s in summaries:
            cells = {
                name: _difference(one) for name, one in s.differences.get(reference, {}).items()
            }
            if any(cells.values()):
                lines[f"{s.method} - {reference}"] = cells
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
        return []
    return [line.rstrip() for block in blocks for line in block if line.strip() != "chance"]


def _verdict(summaries: Sequence[Summary]) -> list[str]:
    """Say whether the VAE beats PLDA, its peer in closed form, where that is a baseline."""
    vae = next((s for s in summaries if s.columns["method"] == "vae"), None)
    if vae is None or PLDA not in vae.differences:
        return []
    found = {name: vae.differences[PLDA][name] for name in JUDGED if name in vae.scores}
    if not found:
        return ["Without labels or artists, nothing here says whether the VAE beats PLDA."]
    lost = [
        f"{METRICS[name]} ({_short(vae.scores[name].mean)}, {_difference(one)})"
        for name, one in found.items()
        if not one.mean - np.nan_to_num(one.margin) > 0
    ]
    if lost:
        return [f"The VAE does not beat PLDA, its peer in closed form, in {', '.join(lost)}."]
    won = ", ".join(METRICS[name] for name in found)
    return [f"The VAE beats PLDA, its peer in closed form, in {won}."]


def _heading(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    first = rows[0]
    ks = sorted({number_of_clusters(row) for row in rows})
    k = f"k={ks[0]}" if len(ks) == 1 else f"k={ks[0]} to {ks[-1]}"
    if first.get("k_chosen_by") == AUTO:
        k += f" ({AUTO})"
    starts = len({row["seed"] for row in rows})
    trainings = max(1, len({row.get("training") for row in rows} - {None, ""}))
    described = [first["feature"], first["model"], first["clusterer"], k, f"n={first['n']}"]
    counts = {"training": trainings, "start": starts}
    described += [f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items()]
    described.append(first["time"])
    return f"{title}{': ' if title else ''}{', '.join(map(str, described))}"


def _short(value: float, sign: str = "") -> str:
    """Write a number in about four characters: .123, 4.567, 89.1, 1.23e+04."""
    if abs(value) >= 9.9995:
        return f"{value:{sign}.3g}"
    return f"{value:{sign}z.3f}".replace("0.", ".", 1 if abs(value) < 0.9995 else 0)


def _spread(score: Score) -> str:
    if not math.isfinite(score.mean):
        return ""
    trainings = f"±{_short(score.std)}" if score.std > 0 else ""
    starts = f" ({_short(score.start_std)})" if score.start_std >= 0.0005 else ""
    return _short(score.mean) + trainings + starts


def _difference(difference: Difference) -> str:
    if not math.isfinite(difference.mean):
        return ""
    margin = f"±{_short(difference.margin)}" if math.isfinite(difference.margin) else ""
    return _short(difference.mean, "+") + margin


def _runs(directory: str, label_run: str) -> list[list[dict[str, str]]]:
    """Return the rows of each run in a folder, oldest first, or those of the latest run alone."""
    path = Path(directory) / metrics_file.NAME
    rows = metrics_file.read(path)
    if not rows:
        raise UserError(f"{path} has no rows: run --stage=cluster first.")
    run_ids = list(dict.fromkeys(row["run_id"] for row in rows))  # a clock may have run ahead
    chosen = run_ids if label_run == "all" else run_ids[-1:]
    return [[row for row in rows if row["run_id"] == run_id] for run_id in chosen]


def _write_csv(path: str, lines: Sequence[tuple[str, Summary]]) -> None:
    rows = []
    for where, summary in lines:
        row = {"directory": where, **summary.columns}
        row |= {"num_trainings": summary.num_trainings, "num_seeds": summary.num_seeds}
        for name, score in summary.scores.items():
            row |= {name: score.mean, f"{name}_std": score.std}
            row[f"{name}_start_std"] = score.start_std
            for reference, differences in summary.differences.items():
                one, column = differences[name], f"{name}_minus_{reference}"
                low, high = one.mean - one.margin, one.mean + one.margin
                row |= {column: one.mean, f"{column}_low": low, f"{column}_high": high}
        rows.append({name: _cell(value) for name, value in row.items()})
    files.write_csv(path, list(dict.fromkeys(name for row in rows for name in row)), rows)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""


def _write_markdown(path: str, lines: Sequence[tuple[str, Summary]]) -> None:
    names = [name for name in METRICS if any(name in s.scores for _, s in lines)]
    references = [name for name in REFERENCES if any(name in s.differences for _, s in lines)]
    titles = [METRICS[name] for name in names]
    titles += [f"{METRICS[name]} - {other.upper()}" for name in names for other in references]
    described = ("feature", "model", "latent_dim", "clusterer", "k", "n")
    table = [["run", "method", *described, "trainings", "starts", *titles]]
    table.append(["---"] * len(table[0]))
    for where, summary in lines:
        cells = [where, summary.method, *(summary.columns[name] for name in described)]
        cells += [summary.num_trainings, summary.num_seeds // summary.num_trainings]
        cells += [_spread(summary.scores.get(name, UNKNOWN)) for name in names]
        found = [summary.differences.get(other, {}) for other in references]
        cells += [_difference(one.get(name, UNDEFINED)) for name in names for one in found]
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
