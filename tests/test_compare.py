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
from vae_jax.clustering import metrics_file, scores
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


def trained(method: str, amis: list[list[float]], **changes: object) -> list[dict[str, object]]:
    """Return rows of several trainings, [trainings][starts]; one list if nothing is trained."""
    template = rows(**changes)[0]
    return [
        template
        | {"method": method, "training": i if len(amis) > 1 else None, "seed": seed, "ami": ami}
        for i, of_training in enumerate(amis)
        for seed, ami in enumerate(of_training)
    ]


def test_of_one_training_scores_are_means_and_deviations_over_starts() -> None:
    vae, pca = scores.summarise(rows())
    assert (vae.method, pca.method, vae.num_trainings, vae.num_seeds) == ("vae", "pca", 1, 3)
    assert vae.scores["ami"].mean == pytest.approx(np.mean(AMI["vae"]))
    assert vae.scores["ami"].start_std == pytest.approx(np.std(AMI["vae"], ddof=1))
    assert np.isnan(vae.scores["ami"].std)
    assert vae.chance == pytest.approx({"nmi": 0.21, "purity": 0.1})


def test_each_training_counts_once_however_many_starts_it_has() -> None:
    amis = [[0.9, 0.9, 0.96], [0.0]]  # a start was undefined, or left out
    (vae,) = scores.summarise(trained("vae", amis))
    score = vae.scores["ami"]
    assert (score.mean, vae.num_trainings) == (pytest.approx(0.46), 2)
    assert score.std == pytest.approx(np.std([0.92, 0.0], ddof=1))
    assert score.start_std == pytest.approx(np.std(amis[0], ddof=1))
    assert ".460±.651 (.035)" in compare.table(trained("vae", amis))


def test_the_difference_to_pca_is_paired_by_start_with_a_t_interval() -> None:
    vae, pca = scores.summarise(list(reversed(rows())))[::-1]
    differences = np.subtract(AMI["vae"], AMI["pca"])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    found = vae.differences["pca"]["ami"]
    assert found.mean == pytest.approx(differences.mean())
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((low, high))
    assert not pca.differences


def test_the_interval_of_a_difference_is_over_trainings_where_there_are_several() -> None:
    amis = [[0.6, 0.7], [0.8, 0.8], [0.5, 0.4]]
    both = trained("vae", amis) + trained("pca", [[0.5, 0.6]])
    found = scores.summarise(both)[0].differences["pca"]["ami"]
    differences = [np.subtract(of_training, [0.5, 0.6]).mean() for of_training in amis]
    low, high = stats.t.interval(0.95, 2, np.mean(differences), stats.sem(differences))
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((low, high))


def test_rows_of_different_numbers_of_clusters_are_neither_summed_up_nor_subtracted() -> None:
    both = trained("vae", [[0.6, 0.7]]) + trained("pca", [[0.5, 0.6]])
    both += trained("mixture", [[0.9], [0.8]], k=4) + trained("mixture", [[0.3], [0.3]])
    found = {(s.columns["k"], s.method): s for s in scores.summarise(both)}
    assert list(found) == [(10, "vae"), (10, "pca"), (10, "mixture"), (4, "mixture")]
    assert found[4, "mixture"].scores["ami"].mean == pytest.approx(0.85)
    assert found[10, "mixture"].differences["pca"]["ami"].mean == pytest.approx(-0.2)
    assert not found[4, "mixture"].differences
    text = compare.table(both)
    assert "k=4 to 10" in text.splitlines()[0]
    assert text.index("k=10:") < text.index("mixture - pca") < text.index("k=4:")
    assert text.count("mixture - pca") == 1


@pytest.mark.parametrize(
    ("amis", "said"),
    [
        ([[0.7], [0.71], [0.72]], "The VAE beats PLDA, its peer in closed form, in AMI."),
        (
            [[0.7], [0.5], [0.72]],
            r"The VAE does not beat PLDA, .* in AMI \(\.640, \+\.040±\.302\)\.",
        ),
        ([[0.5], [0.5], [0.5]], r"does not beat PLDA, .* in AMI \(\.500, -\.100\)\."),
    ],
)
def test_the_table_says_whether_the_vae_beats_its_peer_in_closed_form(amis, said) -> None:
    both = trained("vae", amis) + trained("plda", [[0.6]])
    assert re.search(said, compare.table(both).splitlines()[-1])
    assert "PLDA" not in compare.table(trained("vae", amis))
    unlabelled = [row | {"ami": None} for row in both]
    assert compare.table(unlabelled).splitlines()[-1].startswith("Without labels or artists")


def test_scores_that_are_empty_everywhere_are_left_out() -> None:
    text = compare.table(rows())
    assert "common " not in text.splitlines()[1]
    assert "ARI" not in text


def test_coverage_is_shown_where_tracks_were_dropped_as_noise() -> None:
    assert "coverage" not in compare.table(rows(coverage=1.0))
    assert re.search(r"coverage.*\nvae +\.900", compare.table(rows(coverage=0.9)))


def test_one_start_has_a_difference_without_an_interval() -> None:
    text = compare.table([row for row in rows() if row["seed"] == 0])
    difference = next(line for line in text.splitlines() if line.startswith("vae - pca"))
    assert "+.100" in difference
    assert "±" not in difference


def test_the_table_shows_every_score_within_100_columns() -> None:
    many = [
        row | dict.fromkeys(scores.METRICS, 0.1 * row["ami"]) | {"calinski_harabasz": 98765.4}
        for row in rows(supervised=True)
    ]
    text = compare.table(many, title="results/mlp")
    assert max(map(len, text.splitlines())) <= 100
    assert all(title in text for title in scores.METRICS.values())
    assert "vae (supervised)" in text
    assert text.startswith("results/mlp: mfcc, mlp, kmeans, k=10, n=100, 1 training, 3 starts")


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
    latest = rows("latest", time="2029-01-01T00:00:00+00:00")  # when the clock was right again
    metrics_file.append(results / metrics_file.NAME, latest)
    compare.main([str(results)], None, "latest")
    out = capsys.readouterr().out
    assert "2029" in out
    assert "2030" not in out
    compare.main([str(results)], None, "all")
    out = capsys.readouterr().out
    assert 0 < out.index("2030") < out.index("2029")


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
    assert ".610 (.030)" in lines[2]


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
