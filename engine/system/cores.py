"""Putting a run together. The order of wrapping is written here and nowhere else."""

import os


def share_cores(device_type):
    """(workers, threads) per process by default: the cores of this machine divided by its training processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    workers = min(share - 1, 2 if device_type == "cpu" else 8)
    return workers, max(1, share - workers)
