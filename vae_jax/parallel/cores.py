"""How many cores of the machine are this process's."""

import os


def num_cores() -> int:
    """Return on how many cores this process may run, or how many there are if that is unknown."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
