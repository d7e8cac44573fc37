"""The one mesh, and where state and batches live on it."""

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vae_jax.errors import UserError
from vae_jax.parallel.cores import num_cores

SEED, DATA = "seed", "data"
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def use_cores(num_seeds: int) -> None:
    """Split the CPU into devices that share the seeds evenly, unless that is settled already.

    XLA keeps small products on one core. JAX_NUM_CPU_DEVICES and XLA_FLAGS settle the number of
    devices, and so does any earlier use of JAX.
    """
    flags, count = os.environ.get("XLA_FLAGS", ""), math.gcd(num_seeds, num_cores())
    is_set = "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in flags
    if count > 1 and not is_set:
        with contextlib.suppress(RuntimeError):  # JAX is in use
            jax.config.update("jax_num_cpu_devices", count)
    check_found()


def check_found() -> None:
    """Refuse to go on where JAX finds no device, or is told not to compile.

    Raises
    ------
    UserError
        If JAX_PLATFORMS names an accelerator that is not there, for example.
    """
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        raise UserError(
            "JAX_DISABLE_JIT is set, but models are compiled before they run: unset it."
        )
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        remedy = f"JAX_PLATFORMS is {asked!r}: unset it, or set it to cpu" if asked else "see above"
        reason = " ".join(str(error).split())
        raise UserError(
            f"JAX finds no device ({reason or 'none of that kind'}); {remedy}."
        ) from error


def make_mesh(devices: Sequence[jax.Device] | None = None, num_seeds: int = 1) -> Mesh:
    """Return a mesh over all devices: one axis splits the seeds, the other the batches.

    Seeds exchange nothing, so they are split first, over as many devices as they fill evenly. Each
    process of a job holds all seeds, since it reports the metrics of all.
    """
    devices = jax.devices() if devices is None else devices
    seeds = math.gcd(num_seeds, len(devices)) if jax.process_count() == 1 else 1
    shape = seeds, len(devices) // seeds
    # Explicit axes, the default, break jit(optimizer.init) and gathers.
    return jax.make_mesh(shape, (SEED, DATA), axis_types=(AxisType.Auto,) * 2, devices=devices)


def host() -> jax.Device:
    """Return the CPU of this process, or its first device if JAX is kept from using the CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # by JAX_PLATFORMS
        return jax.local_devices()[0]


def memory_bytes() -> int:
    """Return the memory of a device of this process; on a CPU, what the process may use.

    It is what there is, not what is free, so that a run does the same again.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return machine


def whole(mesh: Mesh) -> NamedSharding:
    """Return the placement of what all devices need: a copy on every one."""
    return NamedSharding(mesh, P())


def seeds(mesh: Mesh) -> NamedSharding:
    """Return the placement of all seeds' state, [S, ...]: each seed's on its own devices."""
    return NamedSharding(mesh, P(SEED))


def rows(mesh: Mesh) -> NamedSharding:
    """Return the placement of one batch: split over the devices along its first axis."""
    return NamedSharding(mesh, P(DATA))


def place_whole(mesh: Mesh, tree: Any) -> Any:
    """Place a tree of arrays, which all processes hold alike, on every device."""
    return _place(whole(mesh), tree, np.shape)


def place_seeds(mesh: Mesh, tree: Any) -> Any:
    """Place all seeds' arrays, [S, ...], which all processes hold alike."""
    return _place(seeds(mesh), tree, np.shape)


def own_part(mesh: Mesh, positions: np.ndarray) -> np.ndarray:
    """Return this process's part of global batches, [..., B] -> [..., B / processes]."""
    processes = sorted({device.process_index for device in mesh.devices.flat})
    return np.split(positions, len(processes), axis=-1)[processes.index(jax.process_index())]


def place_batches(mesh: Mesh, batches: Any, *leading: str | None) -> Any:
    """Place this process's part of batches along their axis B.

    `leading` says along which axis of the mesh each axis before B is split, if along any.
    """
    return _place(NamedSharding(mesh, P(*leading, DATA)), batches)


def place_rows(mesh: Mesh, tree: Any) -> Any:
    """Place this process's part of one batch, [B / processes, ...], along B."""
    return _place(rows(mesh), tree)


def _place(
    placement: NamedSharding, tree: Any, global_shape: Callable[[Any], Any] = lambda leaf: None
) -> Any:
    """Place what this process holds: one of equal parts, unless a global shape is given."""
    place = jax.make_array_from_process_local_data
    with jax.transfer_guard("allow"):  # what is placed here is placed on purpose
        return jax.tree.map(lambda leaf: place(placement, leaf, global_shape(leaf)), tree)
