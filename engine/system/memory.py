"""How much memory a training process may still take, and how much something took: what `--micro-batch auto` weighs."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

# What the CPU's allocator does with memory that a step frees.

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = 2**31 - 1  # mallopt takes an int
MOST_OF_OLD_GLIBC = 32 * 2**20  # up to 2.34


def keep_freed_memory():
    """Keep what a step frees for the next one, which asks for the same, instead of handing it back to the system page by page.

    By default glibc gives large tensors back, and each step touches some thousand new pages: 2 to 8
    % of the time of a step of the tiny models on a CPU (measured; `bin/benchmark.py step`). ViT-B's
    peak at batch 4 is 1 % lower with it, ViT-Ti's at batch 64 is 2 % higher. Other C libraries are
    left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and (
        mallopt(M_MMAP_THRESHOLD, MOST) or mallopt(M_MMAP_THRESHOLD, MOST_OF_OLD_GLIBC)
    ):
        mallopt(M_TRIM_THRESHOLD, MOST)


def give_back_freed_memory():
    """Hand what is free now back to the system, also in a process that keeps freed memory: what no step will ask for again."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)


SPARE = 0.8  # of what is free: workers, kept images and evaluations need memory too
THREADS = 512 * 2**20  # addresses that the threads of a run reserve, which an own limit counts
REFUSALS = ("allocate memory", "bad_alloc", "out of memory")
CGROUPS = Path("/sys/fs/cgroup")


class HostMemory:
    """Of a process on a CPU. `grown` is measured from the moment this is made."""

    def __init__(self):
        give_back_freed_memory()  # else what a step takes would be hidden in it
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self._resident, self._virtual = resident_bytes(), virtual_bytes()

    @staticmethod
    def room():
        """Bytes that this process may still take: of the machine, its group and its own limit the least, shared with its neighbours."""
        free = [free_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))]
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free.append(limit - virtual_bytes() - THREADS)
        return max(0, int(SPARE * min(free)))

    def grown(self):
        """Bytes by which the peak lies above what was held at first."""
        grown = peak_bytes() - self._resident
        # an own limit counts addresses, touched or not
        limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        return max(grown, virtual_bytes() - self._virtual) if limited else grown

    @staticmethod
    @contextlib.contextmanager
    def fenced(room):
        """Inside, an allocation beyond `room` more bytes fails, instead of making the machine swap."""
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        fence = virtual_bytes() + room
        if sys.platform != "linux" or (soft != resource.RLIM_INFINITY and soft <= fence):
            yield
            return
        resource.setrlimit(resource.RLIMIT_AS, (fence, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class DeviceMemory:
    """The same of a CUDA device: what its allocator has reserved."""

    def __init__(self, device):
        self._device = device
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        self._reserved = torch.cuda.memory_reserved(device)

    def room(self):
        return int(SPARE * torch.cuda.mem_get_info(self._device)[0])

    def grown(self):
        return torch.cuda.max_memory_reserved(self._device) - self._reserved

    def fenced(self, room):
        """Nothing to do: the device refuses by itself, and nobody else is harmed."""
        return contextlib.nullcontext()


def is_out_of_memory(error):
    """True for what an allocation that cannot be had raises."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in REFUSALS)
    )


def free_bytes():
    """Memory that the machine, or the control group of this process, can still give without swapping."""
    found = [group_free(folder, usage, limit) for folder, usage, limit in control_groups()]
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(
            1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
        )
    if not found:  # no Linux: half of what the machine has, less what this process has taken
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 - peak_bytes()]
    return min(found)


def control_groups():
    """[(folder, name of the usage file, name of the limit file)] of the groups of this process, up to the root."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root, names = (CGROUPS / "memory", ("memory.usage_in_bytes", "memory.limit_in_bytes"))
            if not kinds:
                root, names = CGROUPS, ("memory.current", "memory.max")
            folder = root / path.strip("/")
            # in a container the path is that of the host, and the root is the container's own
            found += [
                (place, *names)
                for place in (folder, *folder.parents)
                if place == root or root in place.parents
            ]
    return found


def group_free(folder, usage, limit):
    """Bytes that a group may still take; files it has read count as free, they are given back. Endless where it has no limit."""
    try:
        most = int((folder / limit).read_text())
        rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
        return max(0, most - int((folder / usage).read_text()) + cached)
    except (OSError, ValueError):
        return sys.maxsize


def _status_bytes(name):
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
    return None


def peak_bytes():
    """The most of this process that was in memory."""
    known = _status_bytes("VmHWM")
    return (
        known
        if known is not None
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
    )


def resident_bytes():
    """What of this process is in memory now; where that is not told, its peak."""
    known = _status_bytes("VmRSS")
    return known if known is not None else peak_bytes()


def virtual_bytes():
    """Addresses that this process has, touched or not; 0 where that is not told."""
    return _status_bytes("VmSize") or 0
