from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae_jax.parallel import devices
from vae_jax.training import input_pipeline


@given(
    size=st.integers(1, 50),
    batch_size=st.integers(1, 70),
    step=st.integers(0, 40),
    cut=st.integers(0, 20),
)
def test_batches_depend_on_the_step_alone(size, batch_size, step, cut):
    positions = np.arange(size, dtype=np.int32) * 2
    whole = input_pipeline.Shuffle(positions, batch_size, seed=3).batches(0, step + 20)
    later = input_pipeline.Shuffle(positions, batch_size, seed=3)
    resumed = np.concatenate([later.batches(step, cut), later.batches(step + cut, 20 - cut)])
    assert (resumed == whole[step:]).all()


def test_every_epoch_visits_every_track_once_in_another_order():
    positions = np.arange(10, 40, dtype=np.int32)
    order = input_pipeline.Shuffle(positions, 7, seed=0).batches(0, 60).ravel()
    epochs = order.reshape(-1, 30)
    assert (np.sort(epochs, axis=1) == positions).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_other_seeds_give_other_orders():
    positions = np.arange(100, dtype=np.int32)
    first, second = (input_pipeline.Shuffle(positions, 50, seed).batches(0, 1) for seed in (0, 1))
    assert (first != second).any()


@given(ids=st.lists(st.text(max_size=5), unique=True, max_size=60), fraction=st.floats(0, 0.5))
def test_a_split_is_a_partition_whatever_the_order(ids, fraction):
    training, validation = input_pipeline.split(ids, fraction)
    assert sorted([*training, *validation]) == list(range(len(ids)))
    reverse_ids = ids[::-1]
    _, reverse = input_pipeline.split(reverse_ids, fraction)
    assert {ids[i] for i in validation} == {reverse_ids[i] for i in reverse}


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(100, 0.1, 10), (10, 0.01, 1), (4, 0.1, 0), (100, 0.0, 0)]
)
def test_the_held_out_fraction_is_exact(n, fraction, held_out):
    _, validation = input_pipeline.split([str(i) for i in range(n)], fraction)
    assert len(validation) == held_out


def test_padding_fills_up_to_a_multiple_and_is_marked():
    batches = input_pipeline.in_batches(np.arange(5, dtype=np.int32), 4)
    assert batches.tolist() == [[0, 1, 2, 3], [4, -1, -1, -1]]
    assert input_pipeline.pad(batches, 3).shape == (2, 6)


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_each_process_reads_its_part_of_a_batch_and_no_other(monkeypatch, num_processes):
    read = []

    class Source:
        records = SimpleNamespace(bytes_per_track=4)

        def __len__(self):
            return 100

        def load(self, positions):
            read.append(positions.tolist())
            return {"x": positions}

    hosts = np.repeat(np.arange(num_processes), 4 // num_processes)
    hosts_devices = np.array([SimpleNamespace(process_index=host) for host in hosts])
    mesh = SimpleNamespace(devices=hosts_devices, shape={devices.DATA: 4})
    monkeypatch.setattr(devices, "place_whole", lambda mesh, tree: tree)
    monkeypatch.setattr(devices, "place_batches", lambda mesh, tree: tree)
    batch = np.arange(50, 62, dtype=np.int32)
    for index in range(num_processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        input_pipeline.Feed(Source(), mesh, 12, 0, dict).place(batch)
    assert [position for part in read for position in part] == batch.tolist()
    assert {len(part) for part in read} == {12 // num_processes}
