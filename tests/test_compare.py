"""The comparison of methods, from tables of metrics."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from vae_jax import compare
from vae_jax.clustering import metrics_file
from vae_jax.errors import UserError

AMI = {"vae": [0.61, 0.64, 0.58], "pca": [0.51, 0.53, 0.52]}


def rows(run_id: str = "r", **changes: object) -> list[dict[str, object]]:
    described = {"run_id": run_id, "time": "2030-01-01T00:00:00+00:00", "supervised": False}
    described |= {"feature": "mfcc", "model": "mlp", "latent_dim": 16, "clusterer": "kmeans"}
    described |= {"k": 10, "n": 100, "n_labelled": 100, "nmi_null": 0.21, "majority": 0.1}
    return [
        {**described, "method": method, "seed": seed, "ami": ami, "nmi": ami + 0.05}
        | {"silhouette": 0.123, "common_silhouette": None, "purity": 0.7}
        | {"calinski_harabasz": 12.345, "davies_bouldin": 1.5, **changes}
        for method, values in AMI.items()
        for seed, ami in enumerate(values)
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    metrics_file.append(tmp_path / metrics_file.NAME, rows())
    return tmp_path


def test_scores_are_means_and_deviations_over_seeds() -> None:
    vae, pca = compare.summarise(rows())
    assert (vae.method, pca.method, vae.num_seeds) == ("vae", "pca", 3)
    assert vae.scores["ami"].mean == pytest.approx(np.mean(AMI["vae"]))
    assert vae.scores["ami"].std == pytest.approx(np.std(AMI["vae"], ddof=1))
    assert vae.chance == pytest.approx({"nmi": 0.21, "purity": 0.1})


def test_the_difference_to_pca_is_paired_by_seed_with_a_t_interval() -> None:
    vae, pca = compare.summarise(list(reversed(rows())))[::-1]
    differences = np.subtract(AMI["vae"], AMI["pca"])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    score = vae.scores["ami"]
    assert score.difference == pytest.approx(differences.mean())
    assert (score.difference - score.margin, score.difference + score.margin) == pytest.approx(
        (low, high)
    )
    assert np.isnan(pca.scores["ami"].difference)


def test_scores_that_are_empty_everywhere_are_left_out() -> None:
    text = compare.table(rows())
    assert "common " not in text.splitlines()[1]
    assert "ARI" not in text


def test_coverage_is_shown_where_tracks_were_dropped_as_noise() -> None:
    assert "coverage" not in compare.table(rows(coverage=1.0))
    assert re.search(r"coverage.*\nvae +\.900", compare.table(rows(coverage=0.9)))


def test_one_seed_has_a_difference_without_an_interval() -> None:
    text = compare.table([row for row in rows() if row["seed"] == 0])
    difference = next(line for line in text.splitlines() if line.startswith("vae - pca"))
    assert "+.100" in difference
    assert "±" not in difference


def test_the_table_shows_every_score_within_100_columns() -> None:
    many = [
        row | dict.fromkeys(compare.METRICS, 0.1 * row["ami"]) | {"calinski_harabasz": 98765.4}
        for row in rows(supervised=True)
    ]
    text = compare.table(many, title="results/mlp")
    assert max(map(len, text.splitlines())) <= 100
    assert all(title in text for title in compare.METRICS.values())
    assert "vae (supervised)" in text
    assert text.startswith("results/mlp: mfcc, mlp, kmeans, k=10, n=100, 3 seeds")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1234, ".123"),
        (-0.1234, "-.123"),
        (-0.0001, ".000"),
        (1.0, "1.000"),
        (0.9999, "1.000"),
        (10.04, "10"),
        (123.4, "123"),
        (12345.6, "1.23e+04"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert compare._short(value) == text


def test_the_latest_run_of_each_folder_is_compared_unless_all_are_asked_for(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = rows("earlier", time="2029-01-01T00:00:00+00:00")
    metrics_file.append(results / metrics_file.NAME, earlier)  # the last in the file
    compare.main([str(results)], None, "latest")
    out = capsys.readouterr().out
    assert "2030" in out
    assert "2029" not in out
    compare.main([str(results)], None, "all")
    out = capsys.readouterr().out
    assert 0 < out.index("2029") < out.index("2030")


def test_csv_output_has_one_row_per_folder_and_method(results: Path) -> None:
    output = results / "comparison.csv"
    compare.main([str(results), str(results)], str(output), "latest")
    with open(output, newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["method"] for row in written] == ["vae", "pca", "vae", "pca"]
    assert float(written[0]["ami"]) == pytest.approx(0.61)
    assert float(written[0]["ami_minus_pca"]) == pytest.approx(0.09)
    assert float(written[0]["ami_minus_pca_low"]) < 0.09 < float(written[0]["ami_minus_pca_high"])
    assert written[1]["ami_minus_pca"] == ""


def test_markdown_output_is_a_table(results: Path) -> None:
    output = results / "comparison.md"
    compare.main([str(results)], str(output), "latest")
    lines = output.read_text(encoding="utf-8").splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert ".610±.030" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=x.txt"], r"must end in \.csv or \.md"),
        (["nowhere"], "nowhere.* does not exist"),
        ([], "no folder is given"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    results: Path, arguments: list[str], message: str
) -> None:
    folders = [str(results)] if arguments == ["--output=x.txt"] else []
    command = [sys.executable, "-m", "vae_jax.compare", *folders, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(rf"vae_jax: .*{message}.*\n", ended.stderr)


def test_a_table_without_rows_or_with_words_for_numbers_is_named(results: Path) -> None:
    path = results / metrics_file.NAME
    text = path.read_text()
    path.write_text(text.replace("0.61", "high"))
    with pytest.raises(UserError, match="ami is 'high'"):
        compare.main([str(results)], None, "latest")
    path.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(UserError, match="has no rows"):
        compare.main([str(results)], None, "latest")


def test_it_starts_without_heavy_imports() -> None:
    code = "import sys, vae_jax.compare; sys.exit(bool({'jax', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
