"""Division of a machine's cores among its training processes. Imports no torch."""

import os


def available_cores() -> int:
    """Count the cores that all training processes of this machine share."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_cores(device_type: str) -> tuple[int, int]:
    """Return the default (workers, threads) of one training process."""
    share = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    workers = min(share - 1, 2 if device_type == "cpu" else 8)
    return workers, max(1, share - workers)
