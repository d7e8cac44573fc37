"""Training that reads no more of the records than it sees."""

from functools import partial

import jax
import numpy as np
import pytest

from benchmarks import synthetic
from vae_jax.config import get_config, to_dict
from vae_jax.parallel import devices
from vae_jax.records import layout, reader
from vae_jax.records.layout import DamagedRecord
from vae_jax.records.slices import Slices
from vae_jax.training import input_pipeline, train
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec

NUM_TRACKS, NUM_FRAMES, SEGMENT = 30, 50, 16


def settings(**changes):
    config = get_config()
    config.feature.update(name="logmelspec", n_mels=16, shard_size=8)
    config.model.update(name="conv2d", channels=(4,), latent_dim=2, segment_frames=SEGMENT)
    config.train.update(num_steps=40, batch_size=5, log_every=4, warmup_steps=0)
    config.train.update(changes)
    return to_dict(config)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records")
    synthetic.write_records(directory, settings()["feature"], NUM_TRACKS, NUM_FRAMES)
    return reader.Records(directory)


@pytest.mark.parametrize("size", [1, 16, 50, 120])
def test_rows_are_cut_from_anywhere_and_wrap_around(records, size):
    rng = np.random.default_rng(size)
    positions, starts = rng.integers(0, NUM_TRACKS, 300), rng.integers(0, NUM_FRAMES, 300)
    cut = Slices(records).load(positions, starts, size)["features"]
    for position, start, segment in zip(positions, starts, cut, strict=True):
        (whole,) = records.load([position])["features"]
        np.testing.assert_array_equal(
            segment, np.take(whole, start + np.arange(size), 0, mode="wrap")
        )


def test_a_record_is_verified_when_it_is_first_cut(records, tmp_path):
    for file in records.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = layout.shard_path(tmp_path, 1)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    slices, starts = Slices(reader.Records(tmp_path)), np.zeros(8, int)
    slices.load(np.arange(8), starts, 4)
    with pytest.raises(DamagedRecord, match=r"tfrecord-00001 is damaged .*fails its checksum"):
        slices.load(np.arange(8, 16), starts, 4)


def test_a_record_is_read_whole_once(records, monkeypatch):
    slices, located = Slices(records), []
    locate = reader.Records.locate
    monkeypatch.setattr(
        reader.Records, "locate", lambda self, part: located.extend(part) or locate(self, part)
    )
    for positions in ([3, 1, 3], [1, 2, 3], [2, 2, 1]):
        slices.load(np.array(positions), np.zeros(3, int), 4)
    assert located == [1, 3, 2]


@pytest.mark.parametrize("num_seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_segments_that_are_sent_are_those_that_resident_tracks_are_trained_on(
    records, monkeypatch, num_seeds
):
    some, make_mesh = jax.devices()[:2], devices.make_mesh
    monkeypatch.setattr(devices, "make_mesh", lambda num_seeds=1: make_mesh(some, num_seeds))
    trained = []
    for gib in (0.0, 1.0):
        config = settings(resident_gib=gib) | {"num_seeds": num_seeds}
        program = train.prepare(Source(records), ModelSpec.of(config, records, []))
        state, losses = program.state, []
        for begin, end in ((0, 4), (4, 6), (6, 12)):  # not all as was prepared ahead
            state, metrics = program.train_steps(state, begin, end)
            losses.append(metrics["loss"])
        trained.append((state.params, losses))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *trained)


def test_streamed_segments_alone_are_read(records, monkeypatch):
    loaded = []
    load = Source.load
    monkeypatch.setattr(
        Source, "load", lambda self, part: loaded.append(len(part)) or load(self, part)
    )
    config = settings(resident_gib=0.0)
    program = train.prepare(Source(records), ModelSpec.of(config, records, []))
    held_out = len(input_pipeline.split(records.ids, 0.1)[1])
    before = list(loaded)
    program.train_steps(program.state, 0, 12)
    assert loaded == before
    assert sum(before) <= held_out + 5 + 1  # validation, padded, and one that shows the shapes
