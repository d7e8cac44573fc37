"""Several processes that run the same command as one job, on one machine or many.

JAX does the distributing: every process holds a part of each global batch, and state is the same
everywhere. When tracks are embedded, each process writes its share of the shards. The first process
does what only one may do (extract, write results, cluster, draw), while the others wait. Without
`start` there is one process, and JAX is not even imported.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from absl import logging

from vae_jax.errors import UserError

T = TypeVar("T")

LONGEST_WAIT = 7 * 24 * 3600  # s; a dead process ends the wait after HEARTBEAT
HEARTBEAT = 30  # s without a sign of life until a process counts as dead

_processes = 1
_index = 0


def start(coordinator_address: str | None, num_processes: int | None, index: int | None) -> None:
    """Join the job; what is None is detected from Slurm, Open MPI, GKE or Cloud TPU.

    Raises
    ------
    UserError
        If the job cannot be detected or joined.
    """
    import jax

    global _processes, _index
    # Training asks all processes itself whether they got a signal; elsewhere each ends at once.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, index, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the job ({' '.join(str(error).split())}): give --coordinator_address, "
            "--num_processes and --process_id where no scheduler does."
        ) from error
    _processes, _index = jax.process_count(), jax.process_index()
    logging.info("process %d of %d, %d devices in all", _index, _processes, jax.device_count())
    if _index:  # the first process tells what all do
        logging.set_verbosity(logging.WARNING)


def is_described() -> bool:
    """Say whether the environment plainly describes a job of several processes that JAX can join.

    The environments of `srun`, `mpirun` (Open MPI 4) and TPU slices on GKE do. Those of a Cloud TPU
    VM and of other Kubernetes jobs do not.
    """
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    # SLURM_NTASKS is set in batch scripts too, which are one process.
    sizes = [os.environ.get("SLURM_STEP_NUM_TASKS"), os.environ.get("MEGASCALE_NUM_SLICES")]
    if "OMPI_MCA_orte_hnp_uri" in os.environ:  # by which JAX finds the others
        sizes.append(os.environ.get("OMPI_COMM_WORLD_SIZE"))
    return "," in hosts or any(size and int(size) > 1 for size in sizes)


def is_first() -> bool:
    """Say whether this process does what only one may do."""
    return _index == 0


def is_alone() -> bool:
    """Say whether there is only one process."""
    return _processes == 1


def wait_for_all(point: str) -> None:
    """Wait until every process has come to this point."""
    if not is_alone():
        # The coordination service does it, not the devices, which one process may be using.
        from orbax.checkpoint import multihost

        barrier = multihost.get_barrier_sync_fn()
        with ThreadPoolExecutor(1) as pool:  # Python hears no signal while this thread is in C++
            pool.submit(barrier, key=point, timeout_ms=LONGEST_WAIT * 1000).result()


def first_says(point: str, value: bool) -> bool:
    """Return the first process's value to every process, once all have come to this point."""
    wait_for_all(point)
    if is_alone():
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(value))


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of work that is shared out to all."""
    return items[_index::_processes]


def any_says(value: bool) -> bool:
    """Say whether any process says so; all must ask."""
    if is_alone():
        return value
    import jax
    from jax.experimental import multihost_utils

    with jax.transfer_guard("allow"):
        return bool(multihost_utils.process_allgather(value).any())
