"""What the CPU's allocator does with memory that a step frees."""

import ctypes

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = 2**31 - 1  # mallopt takes an int
MOST_OF_OLD_GLIBC = 32 * 2**20  # up to 2.34


def keep_freed_memory():
    """Keep what a step frees for the next one, which asks for the same, instead of handing it back to the system page by page.

    By default glibc gives large tensors back, and each step touches some thousand new pages: 2 to 8 % of the time of a step of the tiny
    models on a CPU (measured; `bin/benchmark.py step`). ViT-B's peak at batch 4 is 1 % lower with it, ViT-Ti's at batch 64 is 2 % higher.
    Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and (mallopt(M_MMAP_THRESHOLD, MOST) or mallopt(M_MMAP_THRESHOLD, MOST_OF_OLD_GLIBC)):
        mallopt(M_TRIM_THRESHOLD, MOST)


def give_back_freed_memory():
    """Hand what is free now back to the system, also in a process that keeps freed memory: what no step will ask for again."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)
