"""Training on records: exact resume, data parallelism, compilation, learning, faults."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial

import jax
import numpy as np
import pytest

from vae_jax.config import get_config, to_dict
from vae_jax.errors import Preempted, UserError
from vae_jax.parallel import devices
from vae_jax.records import reader
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training import checkpoints, history, input_pipeline, train
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec

NUM_TRACKS, DIM = 60, 12


class StubRecords(reader.Records):
    """Records in memory: points on a plane, in twelve dimensions, with noise."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        plane = rng.normal(0, 3, (NUM_TRACKS, 2)) @ rng.normal(0, 1, (2, DIM))
        self._values = (plane + rng.normal(0, 0.1, plane.shape)).astype(np.float32)
        self.ids = np.array([f"track-{i}" for i in range(NUM_TRACKS)])
        self.arrays = {"features": ArraySpec((DIM,), "float32")}
        self.statistics = {"features": Statistics.of(self._values)}
        self.num_frames = np.zeros(NUM_TRACKS, np.int32)

    @property
    def lyrics(self):
        return None

    def load(self, positions):
        return {"features": self._values[positions]}


def settings(**changes):
    config = get_config()
    config.model.update(latent_dim=2, hidden_dims=(16,), beta_warmup_steps=20)
    config.train.update(num_steps=100, batch_size=16, log_every=10, eval_every=25)
    config.train.update(checkpoint_every=50, warmup_steps=10, learning_rate=2e-2)
    config.train.update(changes)
    return to_dict(config)


def fit(config, directory):
    records = StubRecords()
    train.train(Source(records), ModelSpec.of(config, records, []), directory)


def prepare(config):
    records = StubRecords()
    return train.prepare(Source(records), ModelSpec.of(config, records, []))


@pytest.mark.parametrize(
    ("num_steps", "num_epochs", "min_steps", "expected"),
    [(7, 100, 500, 7), (None, 100, 50, 338), (None, 2, 50, 50)],
)
def test_a_larger_collection_is_trained_for_more_steps(num_steps, num_epochs, min_steps, expected):
    config = settings(num_steps=num_steps, num_epochs=num_epochs, min_steps=min_steps)
    described = ModelSpec.of(config, StubRecords(), [])
    assert described.num_steps == expected  # of 54 tracks in batches of 16
    assert described.config == config


def test_a_model_described_by_an_early_checkpoint_keeps_the_values_derived_for_it():
    described = ModelSpec.of(settings(num_steps=None, num_epochs=100), StubRecords(), [])
    values = json.loads(json.dumps(described.to_dict()))
    assert ModelSpec.from_dict(values).resolved == described.resolved
    values |= {"config": described.resolved | {"feature": {"lyrics_weight": 2.5}}}
    del values["num_steps"], values["lyrics_weight"]
    early = ModelSpec.from_dict(values)
    assert (early.num_steps, early.lyrics_weight) == (described.num_steps, 2.5)


def final_params(directory):
    return checkpoints.restore_params(directory, checkpoints.steps_in(directory)[-1])


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def train_losses(directory):
    lines = history.read(directory / history.FILE)
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


make_mesh = devices.make_mesh


def use_devices(monkeypatch, number):
    some = jax.devices()[:number]
    monkeypatch.setattr(devices, "make_mesh", lambda num_seeds=1: make_mesh(some, num_seeds))


@pytest.fixture(scope="module", autouse=True)
def two_devices():
    """Train on two of the eight devices, which on few cores is faster than on all."""
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    fit(settings(), directory)
    return directory


def test_training_learns_the_plane_that_the_data_lie_on(trained):
    lines = history.read(trained / history.FILE)
    evaluations = [line for line in lines if "eval/loss" in line]
    assert [line["step"] for line in evaluations] == [25, 50, 75, 100]
    assert evaluations[-1]["eval/squared_error"] < 0.1  # of a variance of 1
    assert evaluations[-1]["eval/active_units"] == 2
    assert evaluations[-1]["eval/loss"] < evaluations[0]["eval/loss"]
    assert checkpoints.is_complete(trained)


def when_logged(monkeypatch, step, action):
    """Call `action` as soon as training has logged a step."""
    original = history.History.log

    def log(this, at, metrics):
        original(this, at, metrics)
        if at == step and "train/loss" in metrics:
            action()

    monkeypatch.setattr(history.History, "log", log)


def die():
    raise KeyboardInterrupt  # nothing is saved after this


@pytest.mark.parametrize("stop", [50, 60])
def test_a_stopped_run_continues_bit_for_bit(trained, tmp_path, monkeypatch, stop):
    with monkeypatch.context() as patch:
        when_logged(patch, stop, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted, match=f"step {stop}"):
            fit(settings(), tmp_path)
    assert not checkpoints.is_complete(tmp_path)
    fit(settings(), tmp_path)
    assert_equal(final_params(trained), final_params(tmp_path))
    assert train_losses(trained) == train_losses(tmp_path)


def test_a_signal_at_the_last_step_stops_what_comes_after_training(tmp_path, monkeypatch):
    when_logged(monkeypatch, 100, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="step 100"):
        fit(settings(), tmp_path)
    assert checkpoints.is_complete(tmp_path)


def test_a_run_killed_between_checkpoints_continues_bit_for_bit(trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        when_logged(patch, 80, die)
        with pytest.raises(KeyboardInterrupt):
            fit(settings(), tmp_path)
    fit(settings(), tmp_path)
    assert_equal(final_params(trained), final_params(tmp_path))
    steps = [line["step"] for line in history.read(tmp_path / history.FILE)]
    assert steps == [line["step"] for line in history.read(trained / history.FILE)]


def test_a_damaged_checkpoint_is_passed_over_and_training_still_ends_equal(trained, tmp_path):
    fit(settings(), tmp_path)
    (tmp_path / checkpoints.COMPLETE).unlink()
    for path in (tmp_path / "100").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    assert "damaged" in checkpoints.damage(tmp_path, 100)
    fit(settings(), tmp_path)
    assert checkpoints.damage(tmp_path, 100) is None
    assert_equal(final_params(trained), final_params(tmp_path))


def losses(monkeypatch, num_devices, batch_size=16, seed=0, num_seeds=1):
    """Return each seed's loss at some steps, [3, S], and its evaluation, [metrics, S]."""
    with monkeypatch.context() as patch:
        use_devices(patch, num_devices)
        config = settings(batch_size=batch_size) | {"seed": seed, "num_seeds": num_seeds}
        program = prepare(config)
    state, found = program.state, []
    for step in range(0, 30, 10):
        state, metrics = program.train_steps(state, step, step + 10)
        found.append(np.asarray(metrics["loss"]))
    return np.array(found), np.array(list(program.evaluate(state.params).values()))


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_the_number_of_devices_does_not_change_the_losses(monkeypatch, num_devices):
    one = losses(monkeypatch, 1)
    many = losses(monkeypatch, num_devices)
    np.testing.assert_allclose(many[0], one[0], rtol=1e-4)
    np.testing.assert_allclose(many[1], one[1], rtol=1e-3)


def test_a_batch_that_the_devices_do_not_divide_trains_equally(monkeypatch):
    np.testing.assert_allclose(
        losses(monkeypatch, 8, batch_size=13)[0],
        losses(monkeypatch, 1, batch_size=13)[0],
        rtol=1e-4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 3, 6])  # seeds share devices, fill them, need several
def test_seeds_that_train_together_train_as_each_does_alone(monkeypatch, num_devices):
    together = losses(monkeypatch, num_devices, seed=3, num_seeds=3)
    alone = [losses(monkeypatch, 1, seed=seed) for seed in (3, 4, 5)]
    assert together[0].shape == (3, 3)
    for i, one in enumerate(alone):
        np.testing.assert_allclose(together[0][:, [i]], one[0], rtol=1e-4)
        np.testing.assert_allclose(together[1][:, [i]], one[1], rtol=1e-3)
    assert len(np.unique(together[0][-1])) == 3


@pytest.mark.parametrize(("copies", "num_devices", "stay"), [(1, 1, 1), (1, 2, 0), (2, 2, 1)])
def test_data_stay_where_the_copies_of_all_devices_fit(monkeypatch, copies, num_devices, stay):
    use_devices(monkeypatch, num_devices)
    stored = StubRecords()
    size = copies * len(stored) * stored.bytes_per_track
    resident, _ = prepare(settings(resident_gib=size / 2**30)).evaluate.args
    assert len(resident) == stay


@pytest.mark.parametrize(("missing", "stay"), [(0, 1), (4, 0)])
def test_data_stay_in_a_quarter_of_the_memory(monkeypatch, missing, stay):
    use_devices(monkeypatch, 1)
    stored = StubRecords()
    size = len(stored) * stored.bytes_per_track
    monkeypatch.setattr(devices, "memory_bytes", lambda: 4 * size - missing)
    resident, _ = prepare(settings(resident_gib="auto")).evaluate.args
    assert len(resident) == stay


def test_a_containers_limit_is_its_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CGROUP_LIMIT", tmp_path / "memory.max")
    machine = devices.memory_bytes()
    assert 2**28 < machine < 2**50
    for written, expected in (("max", machine), (str(2**27), 2**27), (str(2**60), machine)):
        devices.CGROUP_LIMIT.write_text(f"{written}\n")
        assert devices.memory_bytes() == expected


@pytest.mark.slow
def test_seeds_have_devices_of_their_own(monkeypatch):
    use_devices(monkeypatch, 6)
    program = prepare(settings() | {"num_seeds": 3})
    state, _ = program.train_steps(program.state, 0, 10)
    for leaf in jax.tree.leaves(state):
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
        where = [int(shard.index[0].start) for shard in leaf.addressable_shards]
        assert sorted(where) == [0, 0, 1, 1, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("others", [1, 4])
def test_seeds_go_on_where_there_are_other_devices(tmp_path, monkeypatch, others):
    config = settings() | {"num_seeds": 2}
    fit(config, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        when_logged(patch, 50, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            fit(config, tmp_path / "stopped")
    use_devices(monkeypatch, others)
    fit(config, tmp_path / "stopped")
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
        *(final_params(tmp_path / name) for name in ("undisturbed", "stopped")),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_seeds", "environment", "expected"),
    [
        (8, {}, "2"),
        (9, {}, "1"),
        (8, {"JAX_NUM_CPU_DEVICES": "5"}, "5"),
        (8, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, "3"),
    ],
)
def test_seeds_share_the_cores(num_seeds, environment, expected):
    code = f"""
from vae_jax.parallel import devices
devices.num_cores = lambda: 2
devices.use_cores({num_seeds})
import jax
print(jax.device_count())
devices.use_cores(4)  # JAX is in use: too late, and no error
"""
    inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr


def mixture_settings():
    config = settings()
    config["model"].update(prior="mixture", num_components=3)
    return config | {"num_seeds": 2}


@pytest.mark.slow
def test_a_mixture_starts_half_way_and_uses_all_components(tmp_path):
    fit(mixture_settings(), tmp_path)
    before, after = (checkpoints.restore_params(tmp_path, step)["prior"] for step in (50, 100))
    assert (before["mean"] == 0).all()
    assert (before["log_variance"] == 0).all()
    assert all(np.isfinite(array).all() for array in after.values())
    weights = np.exp(after["logits"])
    assert (weights / weights.sum(axis=-1, keepdims=True) > 0.05).all()
    assert np.ptp(after["mean"], axis=1).min() > 0.1
    assert checkpoints.best_step(tmp_path) == 100  # what comes before has another prior


@pytest.mark.slow
@pytest.mark.parametrize("stop", [50, 60])
def test_a_mixture_that_was_stopped_continues_bit_for_bit(tmp_path, monkeypatch, stop):
    fit(mixture_settings(), tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        when_logged(patch, stop, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            fit(mixture_settings(), tmp_path / "stopped")
    fit(mixture_settings(), tmp_path / "stopped")
    assert_equal(final_params(tmp_path / "undisturbed"), final_params(tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("num_seeds", "resident_gib", "most"), [(1, 1.0, 2), (3, 1.0, 2), (1, 0.0, 20)]
)
def test_resident_data_need_one_dispatch_per_line_of_the_log(num_seeds, resident_gib, most):
    config = settings(resident_gib=resident_gib)
    feed = input_pipeline.Feed(
        Source(StubRecords()), make_mesh(), 16, int(resident_gib * 2**30), lambda tracks: tracks
    )
    shuffles = [input_pipeline.Shuffle(np.arange(NUM_TRACKS), 16, i) for i in range(num_seeds)]
    counts = [n for _, n in feed.dispatches(shuffles, 0, 20, config["train"]["log_every"], 20)]
    assert sum(counts) == 20
    assert len(counts) <= most
    assert resident_gib == 0 or len(counts) == most


def test_nothing_is_compiled_after_the_first_steps():
    program = prepare(settings())
    state, _ = program.train_steps(program.state, 0, 10)
    program.evaluate(state.params)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "compile" in name else None
    )
    for begin, end in ((10, 20), (20, 23), (23, 30)):
        state, metrics = program.train_steps(state, begin, end)
        jax.device_get((metrics, program.evaluate(state.params)))
    jax.monitoring.clear_event_listeners()
    assert compiled == []


def test_features_that_do_not_fit_the_device_are_streamed_and_train_equally(trained, tmp_path):
    config = settings()
    config["train"]["resident_gib"] = 0.0
    fit(config, tmp_path)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),  # compiled otherwise
        *(final_params(trained), final_params(tmp_path)),
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    with pytest.raises(UserError, match=r"at step 10: lower config\.train\.learning_rate"):
        fit(settings(learning_rate=1e30, clip_norm=1e30), tmp_path)


def test_what_is_not_finite_stops_after_the_last_good_checkpoint_and_names_it(
    tmp_path, monkeypatch
):
    prepared = train.prepare

    def prepare(*arguments):
        program = prepared(*arguments)

        def train_steps(state, begin, end):
            state, metrics = program.train_steps(state, begin, end)
            return state, metrics | ({"grad_norm": np.full(1, np.nan)} if end == 60 else {})

        return dataclasses.replace(program, train_steps=train_steps)

    monkeypatch.setattr(train, "prepare", prepare)
    last = re.escape(str(tmp_path / "50"))
    with pytest.raises(UserError, match=rf"gradient nan at step 60: .* good checkpoint is {last}"):
        fit(settings(), tmp_path)
    assert checkpoints.best_step(tmp_path) == 50


class OneUnusable(StubRecords):
    """Records of which a track has features that overflow."""

    def __init__(self):
        super().__init__()
        training, _ = input_pipeline.split(self.ids, settings()["train"]["validation_fraction"])
        self._values[training[-1]] = 1e38


@pytest.mark.parametrize(("num_seeds", "resident_gib"), [(1, 1.0), (2, 0.0)])
def test_batches_that_are_not_finite_are_skipped_where_that_is_configured(
    tmp_path, caplog, monkeypatch, num_seeds, resident_gib
):
    monkeypatch.setattr(train, "MAX_SKIPPED", 0.5)  # one track in 54 is in every third batch
    records = OneUnusable()
    for skips in (False, True):
        config = settings(skip_nonfinite=skips, resident_gib=resident_gib)
        model_spec = ModelSpec.of(config | {"num_seeds": num_seeds}, records, [])
        refused = pytest.raises(UserError, match=r"skip_nonfinite .there is no checkpoint yet")
        with contextlib.nullcontext() if skips else refused:
            train.train(Source(records), model_spec, tmp_path / str(skips))
    assert "batches before step 10 as not finite" in caplog.text
    lines = history.read(tmp_path / "True" / history.FILE)
    assert lines[-1]["eval/squared_error"] < 0.3  # of a variance of 1
    assert all(line.get("train/loss", 0) is not None for line in lines)
    assert sum(line.get("train/skipped", 0) for line in lines) > 10


def test_a_run_that_skips_more_than_a_few_of_its_batches_ends(tmp_path):
    records = OneUnusable()
    model_spec = ModelSpec.of(settings(skip_nonfinite=True), records, [])
    with pytest.raises(UserError, match="were skipped as not finite, and at most 5% may be"):
        train.train(Source(records), model_spec, tmp_path)


def test_training_stops_early_when_evaluation_has_stalled(tmp_path):
    fit(settings(num_steps=5000, patience=2, eval_every=10), tmp_path)
    last = history.read(tmp_path / history.FILE)[-1]["step"]
    assert last < 5000
    assert checkpoints.steps_in(tmp_path)[-1] == last
    assert checkpoints.is_complete(tmp_path)


@pytest.mark.parametrize(
    ("losses", "stale"), [([3, 2, 1], 0), ([1, 2], 1), ([1, 2, 1], 2), ([3, 4, 2, 2.5], 1)]
)
def test_evaluations_since_the_best_are_counted_also_by_who_resumes(tmp_path, losses, stale):
    first = history.History(tmp_path, 0)
    for step, loss in enumerate(losses, 1):
        first.log(step, {"eval/loss": loss})
    first.close()
    resumed = history.History(tmp_path, len(losses))
    resumed.close()
    assert first.stale == resumed.stale == stale


def test_stops_lie_at_multiples_whatever_the_start():
    due = {"log_every": 20, "eval_every": 50, "checkpoint_every": 100, "num_steps": 130}
    stops, step = [], 0
    while step < 130:
        step = train.next_stop(step, due)
        stops.append(step)
    assert stops == [20, 40, 50, 60, 80, 100, 120, 130]
    assert train.next_stop(47, due) == 50


def test_training_works_outside_the_main_thread(tmp_path):
    errors = []

    def run():
        try:
            fit(settings(num_steps=10), tmp_path)
        except BaseException as error:  # the thread must not swallow it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []
