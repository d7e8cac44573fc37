"""The one mesh, and where state and batches live on it."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh over all devices with one axis, along which batches are split."""
    devices = jax.devices() if devices is None else devices
    # Explicit axes, the default, break jit(optimizer.init) and gathers.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def whole(mesh: Mesh) -> NamedSharding:
    """Return the placement of state: a copy on every device."""
    return NamedSharding(mesh, P())


def place_batches(mesh: Mesh, batches: Any) -> Any:
    """Place a tree of batches, [num_steps, B, ...], each split over the devices along B."""
    return jax.device_put(batches, NamedSharding(mesh, P(None, DATA)))


def place_rows(mesh: Mesh, rows: Any) -> Any:
    """Place a tree of one batch, [B, ...], split over the devices, which must divide B."""
    return jax.device_put(rows, NamedSharding(mesh, P(DATA)))
