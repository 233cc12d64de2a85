"""Where in the code the host waits for the device."""

import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch

from visionloop.bin.benchmarks import reads

ROOT = Path(__file__).parents[2]
# frames that are not the caller's: of torch, and of those who watch
PASSED_OVER = (str(Path(torch.__file__).parent), __file__, reads.__file__, warnings.__file__)


@contextmanager
def counted_waits(device):
    """Yields {"file:line": number} of what makes the host wait. On CUDA torch tells it, elsewhere the operation does.

    Collectives are not among it.
    """
    if device.type != "cuda":
        with reads.counted_reads(label=lambda operation: caller()) as found:
            yield found
        return
    found = Counter()

    def note(message, *_args, **_more):
        if "synchronizing CUDA operation" in str(message):
            found[caller()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def caller():
    """The innermost "file:line" outside of torch, from the checkout or the packages on."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PASSED_OVER):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    if "site-packages" in path.parts:
        path = Path(*path.parts[path.parts.index("site-packages") + 1 :])
    elif path.is_relative_to(ROOT):
        path = path.relative_to(ROOT)
    return f"{path.as_posix()}:{frame.f_lineno}"
