"""The reader of TensorFlow's checkpoints; `checkpoint/` was written by TensorFlow 2.15 itself."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from tests import tf_bundle
from vae_jax.download import tf_checkpoint

TINY = Path(__file__).parent / "checkpoint"
INDEX = (TINY / "tiny.index").read_bytes()
DATA = (TINY / "tiny.data-00000-of-00001").read_bytes()
KERNEL = (np.arange(6).reshape(2, 3) / 7).astype(np.float32)
BIAS = np.array([-1.5, 2.5, 3.25], np.float32)
NAMES = ["dense/kernel", "dense/bias"]


def same(found):
    return (found["dense/kernel"] == KERNEL).all() and (found["dense/bias"] == BIAS).all()


def test_variables_that_tensorflow_wrote_are_read_by_name_alone():
    found = tf_checkpoint.read(INDEX, DATA, NAMES)
    assert list(found) == NAMES
    assert same(found)
    names = {"beta1_power", "dense/bias", "dense/bias/Adam", "dense/kernel", "step"}
    assert tf_checkpoint.entries(INDEX).keys() == names


def test_a_table_of_many_blocks_is_read():
    variables = {f"layer_{i}/kernel": tf_bundle.uniform((i % 4 + 1, 2), i) for i in range(70)}
    index, data = tf_bundle.write(variables)
    found = tf_checkpoint.read(index, data, list(variables))
    assert all((found[name] == array).all() for name, array in variables.items())
    assert found["layer_3/kernel"].shape == (4, 2)


@pytest.mark.parametrize("names", [["dense"], ["step"]])
def test_what_is_missing_or_of_another_type_is_refused(names):
    with pytest.raises(ValueError, match=f"{names[0]!r}"):
        tf_checkpoint.read(INDEX, DATA, names)


def test_whatever_bit_is_flipped_the_values_are_right_or_refused():
    for content, is_index in ((INDEX, True), (DATA, False)):
        for at in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[at // 8] ^= 1 << at % 8
            parts = (bytes(flipped), DATA) if is_index else (INDEX, bytes(flipped))
            with contextlib.suppress(ValueError):
                assert same(tf_checkpoint.read(*parts, NAMES))


@pytest.mark.parametrize("size", range(0, len(INDEX), 3))
def test_an_index_that_is_cut_short_at_either_end_is_refused(size):
    for part in (INDEX[:size], INDEX[len(INDEX) - size :]):
        with pytest.raises(ValueError, match=r"."):
            tf_checkpoint.read(part, DATA, NAMES)


def test_data_that_is_cut_short_is_refused():
    with pytest.raises(ValueError, match="cut short"):
        tf_checkpoint.read(INDEX, DATA[:10], NAMES)
