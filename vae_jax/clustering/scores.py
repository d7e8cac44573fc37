"""Sums up the rows of `clustering_metrics.csv`: means, deviations and differences to baselines.

A row is one training and one start of the clusterer. Each training counts once, by the mean over
its starts. The spread of trainings is kept apart from the spread of starts. Only rows with the same
number of clusters are summed up together and subtracted: most scores change with that number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_jax.clustering import metrics_file
from vae_jax.errors import UserError

PCA, PLDA = "pca", "plda"
REFERENCES = (PCA, PLDA)  # the linear methods, that others are compared with

# Column -> title, the most telling first. V-measure is NMI by another name.
METRICS = {
    "coverage": "coverage",  # a terminal does not show it if it is 1 everywhere
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
# Score -> the column that holds what it reaches by chance.
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

Row = Mapping[str, Any]
Values = dict[str, dict[int, float]]  # by training and by start


@dataclass(frozen=True)
class Score:
    """One metric of one method; NaN where it is undefined.

    Attributes
    ----------
    mean, std
        Mean and deviation over the trainings, where each counts by the mean over its starts; std
        is NaN if there is one training.
    start_std
        Deviation over the starts of a training: the root mean square over the trainings.
    """

    mean: float
    std: float = math.nan
    start_std: float = math.nan


@dataclass(frozen=True)
class Difference:
    """One metric of one method minus that of a baseline; NaN where it is undefined.

    Attributes
    ----------
    mean
        The mean of the differences, taken start by start and then over the trainings.
    margin
        Half the width of its 95% interval (Student's t) over the trainings, or over the starts if
        one model was trained; NaN if they make no difference.
    """

    mean: float
    margin: float


@dataclass(frozen=True)
class Summary:
    """One method of one run, with one number of clusters.

    Attributes
    ----------
    method
        Its name, such as "vae", with "(supervised)" if it has seen labels.
    columns
        The values that describe it, by column of `DESCRIPTION`.
    num_trainings, num_seeds
        The trainings (1 where there are none), and the rows that it sums up.
    scores
        The scores that the run has, by column of `METRICS`.
    differences
        Their differences to each of `REFERENCES` that the run has with the same number of
        clusters, by its name and then by column.
    chance
        What the scores reach by chance, by column of `METRICS`.
    """

    method: str
    columns: dict[str, Any]
    num_trainings: int
    num_seeds: int
    scores: dict[str, Score]
    differences: dict[str, dict[str, Difference]]
    chance: dict[str, float]


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Sum up the rows of one run id: a summary per method and number of clusters, in their order.

    Summaries with the first row's number of clusters come first.
    """
    groups: dict[tuple[int, str], list[Row]] = {}
    for k in dict.fromkeys(number_of_clusters(row) for row in rows):
        for row in rows:
            if number_of_clusters(row) == k:
                groups.setdefault((k, row["method"]), []).append(row)
    return [
        _summary(group, {name: groups.get((k, name), []) for name in _compared_with(group[0])})
        for (k, _), group in groups.items()
    ]


def number_of_clusters(row: Row) -> int:
    """Return a row's k."""
    return int(_number(row, "k"))


def _compared_with(row: Row) -> tuple[str, ...]:
    """Return the baselines to subtract: PCA from all others, PLDA from what was trained."""
    if row["method"] == PCA:
        return ()
    return REFERENCES if row.get("training") not in (None, "") else (PCA,)


def _summary(group: Sequence[Row], references: Mapping[str, Sequence[Row]]) -> Summary:
    first = group[0]
    supervised = " (supervised)" if str(first.get("supervised")) == "True" else ""
    scores = {name: _score(_values(group, name)) for name in METRICS}
    differences = {
        reference: {
            name: _difference(_values(group, name), _values(rows, name)) for name in METRICS
        }
        for reference, rows in references.items()
        if rows
    }
    chance = {
        name: float(np.mean([_number(row, column) for row in group]))
        for name, column in CHANCE.items()
    }
    return Summary(
        method=f"{first['method']}{supervised}",
        columns={name: first.get(name) for name in DESCRIPTION},
        num_trainings=len({row.get("training") for row in group}),
        num_seeds=len(group),
        scores={name: score for name, score in scores.items() if math.isfinite(score.mean)},
        differences=differences,
        chance={name: value for name, value in chance.items() if math.isfinite(value)},
    )


def _values(rows: Sequence[Row], name: str) -> Values:
    """Return a metric by training and start, where it is defined."""
    values: Values = {}
    for row in rows:
        value = _number(row, name)
        if math.isfinite(value):
            values.setdefault(str(row.get("training") or ""), {})[int(row["seed"])] = value
    return values


def _score(values: Values) -> Score:
    starts = [[*of_training.values()] for of_training in values.values()]
    mean, std = _mean_and_std([float(np.mean(one)) for one in starts])
    variances = [np.var(one, ddof=1) for one in starts if len(one) > 1]
    return Score(mean, std, float(np.sqrt(np.mean(variances))) if variances else math.nan)


def _difference(values: Values, reference: Values) -> Difference:
    """Subtract the reference start by start: its same training, or its only one."""
    only = next(iter(reference.values())) if len(reference) == 1 else {}
    by_training = []
    for training, own in values.items():
        other = reference.get(training, only)
        by_training.append([own[seed] - other[seed] for seed in own if seed in other])
    by_training = [one for one in by_training if one]
    independent = [float(np.mean(one)) for one in by_training]
    if len(by_training) == 1:
        (independent,) = by_training
    mean, std = _mean_and_std(independent)
    return Difference(mean, _margin(std, len(independent)))


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation; NaN for too few values."""
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _margin(std: float, count: int) -> float:
    """Return half of a mean's 95% interval, by Student's t; NaN if nothing varies."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if std > 0 else math.nan


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    try:
        return math.nan if value is None or value == "" else float(value)
    except ValueError as error:
        raise UserError(
            f"{metrics_file.NAME} is damaged: {name} is {value!r} for {row['method']}, "
            f"seed {row['seed']}; mend it or move it away."
        ) from error
