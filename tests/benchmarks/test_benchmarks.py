"""The benchmarks run at tiny sizes; no time is asserted."""

import re

import numpy as np
import pytest

pytest.importorskip("psutil")

from benchmarks import (
    accelerator,
    embed,
    features,
    measure,
    report,
    scale,
    scaling,
    startup,
    synthetic,
    train,
)
from benchmarks import records as record_benchmarks
from benchmarks.measure import Line, Task, Timing
from tests.conftest import as_tfds_reads, read_shard
from vae_jax.records import reader

TINY_VECTORS = {**record_benchmarks.feature("mfcc"), "shard_size": 8}


def nap(results):
    return lambda: results.pop()


def test_synthetic_records_are_read_like_extracted_ones(tmp_path):
    synthetic.write_records(tmp_path, TINY_VECTORS, 20)
    stored = reader.Records(tmp_path)
    values = stored.load(np.arange(20))["features"]
    assert stored.ids.tolist() == [f"track-{i}" for i in range(20)]
    assert as_tfds_reads(tmp_path)[13]["id"] == b"track-13"
    np.testing.assert_allclose(stored.statistics["features"].mean, values.mean(axis=0), atol=1e-6)


def test_a_race_times_each_task_as_often_in_a_process_of_its_own():
    timings = measure.race({"a": Task(nap, ([3, 2, 1],)), "b": Task(nap, ([6, 5, 4],))}, 2)
    assert timings["a"].results == [2, 3]  # the first call warms up
    assert timings["b"].results == [5, 6]
    assert len(timings["a"].seconds) == 2
    assert timings["a"].memory > 1


def test_a_task_that_fails_ends_the_race():
    with pytest.raises(RuntimeError, match="nap failed"):
        measure.race({"a": Task(nap, ([],))}, 1)


def test_ratios_are_medians_over_pairs_of_repeats():
    ours, peer = Timing([1.0, 2.0, 4.0]), Timing([3.0, 4.0, 4.0])
    line = measure.compared("x", 8, "B/s", {"us": ours, "it": peer}, "us", peer="it", bound="it")
    assert (line.ours, line.peer, line.ratio, line.fraction) == (4, 2, 2, 2)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (Line("rate", 5, "B/s", ratio=2.0, goals={"ratio": 1.5}), "ratio ≥ 1.5: met"),
        (Line("rate", 5, "B/s", bound=10, goals={"fraction": 0.6}), "fraction ≥ 0.6: MISSED"),
        (Line("time", 5, "s", goals={"ours": 4}), "ours ≤ 4: MISSED"),
        (Line("lonely", 5, "B/s", goals={"ratio": 1}), "ratio: no peer here"),
    ],
)
def test_a_line_says_whether_its_goal_is_met(line, verdict):
    assert line.cells()[-1] == verdict


def test_the_report_replaces_a_topic_and_keeps_the_others(tmp_path):
    path = tmp_path / "SPEED.md"
    for topic, text in (("train", "old"), ("records", "kept"), ("train", "new")):
        report.write_section(path, topic, text)
    assert re.findall(r"^## (\w+)\n\n(\w+)", path.read_text(), re.MULTILINE) == [
        ("records", "kept"),
        ("train", "new"),
    ]


def test_records_are_written_and_read_in_segments_and_opened(tmp_path):
    feature = record_benchmarks.feature("logmelspec")
    synthetic.write_records(tmp_path, feature, 40, 70)
    record_benchmarks.writing(tmp_path / "written", 2, 8)()
    assert len(list(read_shard(tmp_path / "written"))) == 2
    for make in (record_benchmarks.segments, record_benchmarks.vectors, record_benchmarks.opening):
        make(tmp_path)()


def test_spectra_run_one_by_one_and_in_batches():
    features._our_spectra(("mfcc", 0.5, 2))
    features._librosa_spectra(("mfcc", 0.5, 2))
    features.batched_spectra(0.5, 2)()


@pytest.mark.slow
def test_training_compiles_once(tmp_path):
    again = train.ours(train._mlp_setting(tmp_path, train.TINY))
    again()
    assert again() == 0


@pytest.mark.slow
def test_the_reference_programs_train(tmp_path):
    train.bare(train._mlp_setting(tmp_path / "vectors", train.TINY))()
    train.transposed(train._conv_setting(tmp_path / "frames", train.TINY))()


def test_the_pytorch_peer_learns(tmp_path):
    pytest.importorskip("torch")
    step, error = train._torch_program(train._conv_setting(tmp_path, train.TINY), "eager")
    before = error()
    for _ in range(60):
        step()
    assert error() < before


@pytest.mark.slow
def test_embedding_streams_and_encodes(tmp_path):
    embed.prepare(tmp_path, "mlp", "mfcc", 12, 0)
    embed.streaming(tmp_path, 8)()
    embed.forward(tmp_path, 8)()


def test_the_clustering_job_is_one_that_main_accepts(tmp_path):
    arguments = startup.clustering_job(tmp_path, 30, 3)
    command = [*startup.MAIN, *arguments, "--stage=cluster"]
    _, memory, status, output = measure.run_command(command, tmp_path)
    assert status == 0, output
    assert memory > 1


@pytest.mark.slow
def test_an_accelerator_is_measured(tmp_path):
    tiny = accelerator.TINY
    assert accelerator.matmul_peak(tiny) > 0
    assert accelerator.copy_bandwidth(tiny) > 0
    config = accelerator._config(tiny, "mlp", 8)
    synthetic.write_records(tmp_path, config["feature"], tiny.tracks)
    (line, *scaling) = accelerator._training(tmp_path, config, tiny, peak=1e12)
    assert line.fraction > 0
    assert "8 devices" in scaling[0].what
    assert accelerator._input(tmp_path, config, tiny, link=1e9).fraction > 0


def test_a_plan_shares_all_but_clustering_and_names_the_bottleneck():
    line = scaling.Cost.of("cluster", (10, 30), (5.0, 9.0))
    assert (line.start, line.per_track, line.is_shared) == (3.0, 0.2, False)
    costs = [scaling.Cost("features", 0, 0.01, True), scaling.Cost("cluster", 0, 0.002, False)]
    features, cluster = scaling.plan(costs, 0, 3_600_000, machines=10, cores=4)
    assert (features.hours, cluster.hours) == pytest.approx((1.0, 2.0))
    assert features.dollars == pytest.approx(1.0 * 10 * 4 * scaling.DOLLARS_PER_CORE_HOUR)
    assert cluster.dollars == pytest.approx(2.0 * 4 * scaling.DOLLARS_PER_CORE_HOUR)
    assert scaling.bottleneck([features, cluster]) == "cluster, 67% of the time"
    assert scaling.exchanged(1000, 1) == 0
    assert scaling.exchanged(1000, 2) == 4000


@pytest.mark.slow
def test_scaling_is_measured_and_reported(monkeypatch):
    def measure_less(folder, sizes):
        seconds = scaling._extraction_seconds(folder / "audio", 2, sizes)
        yield scaling.Cost.of("features", (2, 4), (seconds, 2 * seconds))
        (folder / "tracks-20").mkdir()
        (_, line) = scale.rehearse(folder / "tracks-20", 20, ["train"], scaling.LARGE)
        yield from (scaling.Cost(stage, line.ours, 1e-3, True) for stage in scaling.STAGES)

    monkeypatch.setattr(scaling, "measure_costs", measure_less)
    text = scaling.report(
        scaling.Sizes(tracks=(20, 40), files=2, seconds=1.0, steps=4, processes=(1,))
    )
    assert text.count("| features |") == 1
    assert re.search(r"^\| mlp \| [\d,]{6,} \|", text, re.MULTILINE)
    assert re.search(r"^\| 1 \| [\d.,e-]+ \| \d+% \|$", text, re.MULTILINE)
    assert re.search(r"^\| 100,000,000 \| 64 \|", text, re.MULTILINE)
