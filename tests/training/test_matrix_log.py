"""The logarithm of many small matrices, against SciPy, and on more devices than there are cores."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.linalg

from vae_jax.training.matrix_log import _tournament, matrix_log

# Every device works at once. Batches that go to LAPACK hang here.
MANY_DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from vae_jax.training.track_view import describe
mesh = Mesh(np.array(jax.devices()), ("data",))
segments = np.random.default_rng(0).normal(size=(len(jax.devices()) * 10, 10, 128, 20))
placed = jax.device_put(segments.astype(np.float32), NamedSharding(mesh, PartitionSpec("data")))
described = jax.jit(describe)
jax.block_until_ready([described(placed) for _ in range(4)])
print("done", len(jax.devices()))
"""


def covariances(size: int, number: int, deviation: float) -> np.ndarray:
    """Return matrices of conditions up to some ten thousand, [number, C, C] float32."""
    rng = np.random.default_rng(size)
    widths = np.geomspace(1e-2, deviation, size)
    x = rng.normal(size=(number, 40, size)) * widths @ rng.normal(size=(number, size, size))
    return (np.einsum("nti,ntj->nij", x, x) / 40 + 1e-2 * np.eye(size)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 2, 3, 9, 10])
@pytest.mark.parametrize("deviation", [1.0, 3.0])
def test_it_is_scipys(size: int, deviation: float) -> None:
    matrices = covariances(size, 50, deviation)
    found = jax.jit(matrix_log, static_argnums=1)(np.moveaxis(matrices, 0, -1), 1e-2)
    values, axes = np.linalg.eigh(matrices.astype(np.float64))
    expected = np.einsum("nik,nk,njk->nij", axes, np.log(np.maximum(values, 1e-2)), axes)
    np.testing.assert_allclose(np.moveaxis(found, -1, 0), expected, atol=1e-3)
    exact = scipy.linalg.expm(np.asarray(found[..., 0], np.float64))
    np.testing.assert_allclose(exact, matrices[0], rtol=1e-3, atol=1e-3 * np.abs(matrices[0]).max())


def test_diagonal_and_equal_values_are_exact() -> None:
    matrices = np.stack([np.eye(4), np.diag([4.0, 1.0, 2.0, 1.0]), np.zeros((4, 4))], axis=-1)
    found = matrix_log(matrices.astype(np.float32), 1e-2)
    expected = [np.zeros((4, 4)), np.diag(np.log([4, 1, 2, 1])), np.log(1e-2) * np.eye(4)]
    np.testing.assert_allclose(np.moveaxis(found, -1, 0), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [2, 4, 10, 16])
def test_all_pairs_meet_in_a_sweep(size: int) -> None:
    at, met = np.arange(size), set()
    for _ in range(size - 1):
        met |= {frozenset(pair) for pair in at.reshape(-1, 2).tolist()}
        at = at[_tournament(size)]
    assert len(met) == size * (size - 1) // 2


def test_devices_that_share_few_cores_do_not_wait_for_each_other() -> None:
    flags = f"--xla_force_host_platform_device_count={2 * (os.cpu_count() or 1)}"
    changed = {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}  # as users run it
    job = [sys.executable, "-c", MANY_DEVICES]
    done = subprocess.run(
        job, env=os.environ | changed, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("done"), done.stderr
