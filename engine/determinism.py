"""`--deterministic`: the same bytes from run to run on CUDA."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.backends import cuda

from visionloop.engine.errors import UserError

# torch names the operation first
NO_KERNEL = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Use deterministic algorithms inside the context, and restore torch's switches after it.

    Enter it before the process group: NCCL reads its environment once, and its NVLS reductions
    (in NVSwitch) have no fixed order.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    kernels = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    try:
        if enabled:
            use_deterministic_algorithms()
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned_only)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
        enable_fused_attention(*kernels)


def use_deterministic_algorithms() -> None:
    """Switch deterministic algorithms on; an operation without one raises from here on."""
    os.environ.setdefault("NCCL_ALGO", "^NVLS")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # a debugging aid, which writes to all memory once more
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def permit_nondeterministic(operations: Sequence[str], device: torch.device) -> None:
    """Let operations without a deterministic backward run, and nothing else besides them.

    torch cannot permit a single operation. Where all of them only warn, the fused kernels of
    attention keep their non-deterministic backward, so attention is computed without them.

    Args:
        operations: of `Task.nondeterministic_ops`.
        device: of the run; the fused attention of the CPU is deterministic.
    """
    if operations:
        torch.use_deterministic_algorithms(True, warn_only=True)
        if device.type == "cuda":
            enable_fused_attention(flash=False, mem_efficient=False, cudnn=False)


def enable_fused_attention(flash: bool, mem_efficient: bool, cudnn: bool) -> None:
    """Switch the fused kernels of scaled dot product attention."""
    cuda.enable_flash_sdp(flash)
    cuda.enable_mem_efficient_sdp(mem_efficient)
    cuda.enable_cudnn_sdp(cudnn)


def nondeterministic_operation(error: BaseException) -> UserError | None:
    """Return the UserError for an operation without a deterministic implementation, else None."""
    match = NO_KERNEL.search(str(error)) if isinstance(error, RuntimeError) else None
    if match is None:
        return None
    return UserError(
        f"--deterministic: this training needs {match[1]}, which has no deterministic "
        f"implementation in torch {torch.__version__} here; train without --deterministic",
        code="nondeterministic_operation",
        field="deterministic",
    )
