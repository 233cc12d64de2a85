"""Memory of a training process: available bytes and peak usage, for `--micro-batch auto`.

The reuse of freed memory by the allocator is set here as well.
"""

import contextlib
import ctypes
import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

# options of mallopt, from glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAX_THRESHOLD = 2**31 - 1  # mallopt takes an int
MAX_THRESHOLD_OLD_GLIBC = 32 * 2**20  # up to 2.34

USABLE_SHARE = 0.8  # of free memory: workers, cached images and evaluations need some too
THREAD_STACKS = 512 * 2**20  # addresses that a run's threads reserve, counted by RLIMIT_AS
# ALLOC_FAILED: cuBLAS and cuDNN, whose workspaces do not fit
OUT_OF_MEMORY_TEXTS = ("allocate memory", "bad_alloc", "out of memory", "ALLOC_FAILED")
# oneDNN and Python's threads give no reason; where addresses are limited, it is that
NO_ADDRESSES_TEXTS = ("could not create a primitive", "can't start new thread")
MMAP_BYTES = 2**20  # where addresses are limited, larger tensors are given back when freed
CGROUPS = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Let glibc keep memory that a step frees for the next step, which allocates the same.

    By default glibc gives large tensors back to the system page by page, and each step touches some
    thousand new pages: 2 to 8 % of the time of a step of the tiny models on a CPU (measured;
    `bin/benchmark.py step`). ViT-B's peak at batch 4 is 1 % lower with it, ViT-Ti's at batch 64 is
    2 % higher. Other C libraries are left alone.

    Where addresses are limited (RLIMIT_AS), freed tensors are given back instead: after a step that
    ran out of memory, kept addresses would be missing for threads, kernels and evaluations.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and has_limited_addresses():
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    elif mallopt and (
        mallopt(M_MMAP_THRESHOLD, MAX_THRESHOLD)
        or mallopt(M_MMAP_THRESHOLD, MAX_THRESHOLD_OLD_GLIBC)
    ):
        mallopt(M_TRIM_THRESHOLD, MAX_THRESHOLD)


def has_limited_addresses() -> bool:
    """Return True where RLIMIT_AS limits the address space of this process."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def give_back_freed_memory() -> None:
    """Return free memory to the system, for example after a calibration run."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)


class HostMemory:
    """Memory of this process on a CPU. Growth is measured from the construction on."""

    def __init__(self) -> None:
        self.reset_peak()
        self._resident, self._virtual = resident_bytes(), virtual_bytes()

    @staticmethod
    def reset_peak() -> None:
        """Give free memory back and let the peak count from here."""
        give_back_freed_memory()  # else what a step takes would be hidden in it
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def available_bytes(self) -> int:
        """Return the bytes that this process may still take.

        The least of what the machine, its control group and its own limit allow, shared with the
        other training processes of the machine.
        """
        free = [free_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))]
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free.append(limit - virtual_bytes() - THREAD_STACKS)
        return max(0, int(USABLE_SHARE * min(free)))

    def peak_growth(self) -> int:
        """Return the bytes by which the peak is above the usage at the construction."""
        grown = peak_bytes() - self._resident
        # RLIMIT_AS counts addresses, touched or not
        if not has_limited_addresses():
            return grown
        return max(grown, virtual_bytes() - self._virtual)

    @staticmethod
    @contextlib.contextmanager
    def limit_growth(num_bytes: int) -> Iterator[None]:
        """Make allocations beyond `num_bytes` more fail inside the context, instead of swapping."""
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = virtual_bytes() + num_bytes
        if sys.platform != "linux" or (soft != resource.RLIM_INFINITY and soft <= limit):
            yield
            return
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class DeviceMemory:
    """Memory of a CUDA device: what its caching allocator has reserved."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset_peak()
        self._reserved = torch.cuda.memory_reserved(device)

    def reset_peak(self) -> None:
        """Give free memory back and let the peak count from here.

        The peak never comes down by itself: after a try that was too large, all others would look
        as large.
        """
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def available_bytes(self) -> int:
        """Return the bytes that this process may still take."""
        return int(USABLE_SHARE * torch.cuda.mem_get_info(self._device)[0])

    def peak_growth(self) -> int:
        """Return the bytes by which the peak is above the reserved memory at the construction."""
        return torch.cuda.max_memory_reserved(self._device) - self._reserved

    def limit_growth(self, num_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Do nothing: an allocation beyond the device's memory fails by itself."""
        return contextlib.nullcontext()


class MetalMemory:
    """Memory of Metal, which is not in the process's own: what its allocator holds.

    Metal has no counter of the peak; after a step its allocator keeps about as much.
    """

    def __init__(self) -> None:
        self.reset_peak()
        self._allocated = torch.mps.driver_allocated_memory()

    @staticmethod
    def reset_peak() -> None:
        """Give the memory that is kept for reuse back."""
        torch.mps.empty_cache()

    @staticmethod
    def available_bytes() -> int:
        """Return the bytes that this process may still take."""
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, int(USABLE_SHARE * free))

    def peak_growth(self) -> int:
        """Return the bytes by which the allocator has grown since the construction."""
        return torch.mps.driver_allocated_memory() - self._allocated

    @staticmethod
    def limit_growth(num_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Do nothing: an allocation beyond Metal's own limit fails by itself."""
        return contextlib.nullcontext()


def release_memory(device: torch.device) -> None:
    """Give back what the allocator of a device keeps for reuse."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    give_back_freed_memory()


def memory_of(device: torch.device) -> HostMemory | DeviceMemory | MetalMemory:
    """Return the memory that a training step on this device takes."""
    if device.type == "cuda":
        return DeviceMemory(device)
    return MetalMemory() if device.type == "mps" else HostMemory()


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error that a failed allocation raises."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # of a fork or a mapped file
        return error.errno == errno.ENOMEM
    texts = OUT_OF_MEMORY_TEXTS + (NO_ADDRESSES_TEXTS if has_limited_addresses() else ())
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def free_bytes() -> int:
    """Return what the machine and the control groups of this process can give without swapping."""
    free = [group_free(folder, usage, limit) for folder, usage, limit in control_groups()]
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        free.append(1024 * int(available.split()[1]))
    if not free:  # no Linux: half of the machine's memory, less what this process has taken
        free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 - peak_bytes()]
    return min(free)


def control_groups() -> list[tuple[Path, str, str]]:
    """List (folder, usage file, limit file) of this process's control groups, up to the root."""
    groups: list[tuple[Path, str, str]] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            if controllers:  # version 1
                root = CGROUPS / "memory"
                usage, limit = "memory.usage_in_bytes", "memory.limit_in_bytes"
            else:
                root, usage, limit = CGROUPS, "memory.current", "memory.max"
            folder = root / path.strip("/")
            # in a container the path is that of the host, and the root is the container's own
            groups += [
                (place, usage, limit)
                for place in (folder, *folder.parents)
                if place == root or root in place.parents
            ]
    return groups


def group_free(folder: Path, usage: str, limit: str) -> int:
    """Return the bytes that a control group may still take; sys.maxsize where it has no limit.

    The cache of files that it has read counts as free, since the kernel takes it back.
    """
    try:
        most = int((folder / limit).read_text())
        rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
        return max(0, most - int((folder / usage).read_text()) + cached)
    except (OSError, ValueError):
        return sys.maxsize


def _status_bytes(name: str) -> int | None:
    """Read a field of /proc/self/status in bytes; None where there is no such file or field."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
    return None


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Return the resident memory of this process, or its peak where that is not available."""
    resident = _status_bytes("VmRSS")
    return peak_bytes() if resident is None else resident


def virtual_bytes() -> int:
    """Return the size of this process's address space; 0 where the system does not report it."""
    return _status_bytes("VmSize") or 0
