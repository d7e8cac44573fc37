"""The one mesh, and where state and batches live on it."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vae_jax import input_pipeline

DATA = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh over all devices with one axis, along which batches are split."""
    devices = jax.devices() if devices is None else devices
    # Explicit axes, the default, break jit(optimizer.init) and gathers.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def whole(mesh: Mesh) -> NamedSharding:
    """Return the placement of state: a copy on every device."""
    return NamedSharding(mesh, P())


def place_batches(mesh: Mesh, batches: np.ndarray) -> jax.Array:
    """Place batches of positions, [num_steps, B], each split over the devices.

    A batch that the number of devices does not divide is padded with positions of weight 0.
    """
    padded = input_pipeline.pad(batches, mesh.size)
    return jax.device_put(padded, NamedSharding(mesh, P(None, DATA)))


def place_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Place one batch, [B, ...], split over the devices; the last row is repeated to fit."""
    missing = -len(rows) % mesh.size
    padded = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
    return jax.device_put(padded, NamedSharding(mesh, P(DATA)))
