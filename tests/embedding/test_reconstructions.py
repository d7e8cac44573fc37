from dataclasses import asdict

import numpy as np
import pytest

from vae_jax.embedding import reconstructions
from vae_jax.embedding.reconstructions import Reconstructions
from vae_jax.errors import UserError
from vae_jax.storage import files

RNG = np.random.default_rng(0)
VECTORS = Reconstructions(
    ids=np.array(["a", "b"]),
    inputs=RNG.normal(size=(2, 5)),
    outputs=RNG.normal(size=(2, 5)),
    center=np.zeros(5),
    scale=np.ones(5),
)


@pytest.mark.parametrize("hop_seconds", [None, 0.02])
def test_reading_gives_back_what_was_written(tmp_path, hop_seconds):
    data = Reconstructions(**asdict(VECTORS) | {"hop_seconds": hop_seconds})
    reconstructions.write(tmp_path / "r.npz", data)
    again = reconstructions.read(tmp_path / "r.npz")
    np.testing.assert_equal(asdict(again), asdict(data))


def test_nothing_to_write_removes_what_an_earlier_model_left(tmp_path):
    for data in (None, VECTORS, None):
        reconstructions.write(tmp_path / "r.npz", data)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_unknown_arrays_are_named(tmp_path):
    path = tmp_path / "r.npz"
    arrays = {name: array for name, array in asdict(VECTORS).items() if array is not None}
    files.write_npz(path, **{name: array for name, array in arrays.items() if name != "outputs"})
    with pytest.raises(UserError, match=r"'outputs'.*delete it"):
        reconstructions.read(path)
    files.write_npz(path, **arrays, later=np.zeros(1))
    with pytest.raises(UserError, match="'later'"):
        reconstructions.read(path)
