"""Start of a command: imports that take seconds, CPU threads, and the time it began. No torch."""

import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Turn the garbage collector off for the block, which imports torch and transformers.

    Of the 700 000 objects made there nearly all stay, and going through them takes a sixth of the
    time of these imports, and 0.2 s each time that the collector does it in mid-training; what is
    garbage and stays takes 8 MiB (measured). Where torch is there already, as in a test, nothing is
    changed: objects of others must not be kept for good.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def use_threads(count: int | None) -> None:
    """Compute with `count` CPU threads; None: as many as torch takes by itself."""
    if count:
        import torch

        torch.set_num_threads(count)


def command_began() -> float:
    """Return when this command was started, on the clock of time.monotonic().

    Under torchrun: when torchrun was, unless it has started its processes again.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        process = os.getppid() if os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0" else "self"
        stat = Path(f"/proc/{process}/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])  # since the machine was started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - age
    return time.monotonic()
