"""The one mesh, and where state and batches live on it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
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


def rows(mesh: Mesh) -> NamedSharding:
    """Return the placement of one batch: split over the devices along its first axis."""
    return NamedSharding(mesh, P(DATA))


def place_whole(mesh: Mesh, tree: Any) -> Any:
    """Place a tree of arrays, which all processes hold alike, on every device."""
    return _place(whole(mesh), tree, np.shape)


def own_part(mesh: Mesh, positions: np.ndarray) -> np.ndarray:
    """Return this process's part of global batches, [..., B] -> [..., B / processes]."""
    processes = sorted({device.process_index for device in mesh.devices.flat})
    return np.split(positions, len(processes), axis=-1)[processes.index(jax.process_index())]


def place_batches(mesh: Mesh, batches: Any, axis: int) -> Any:
    """Place this process's part of batches, [..., B / processes, ...], along B, an axis."""
    return _place(NamedSharding(mesh, P(*[None] * axis, DATA)), batches)


def place_rows(mesh: Mesh, tree: Any) -> Any:
    """Place this process's part of one batch, [B / processes, ...], along B."""
    return _place(rows(mesh), tree)


def _place(
    placement: NamedSharding, tree: Any, global_shape: Callable[[Any], Any] = lambda leaf: None
) -> Any:
    """Place what this process holds; without a global shape, it is a part among equal ones."""
    place = jax.make_array_from_process_local_data
    with jax.transfer_guard("allow"):  # what is placed here is placed on purpose
        return jax.tree.map(lambda leaf: place(placement, leaf, global_shape(leaf)), tree)
