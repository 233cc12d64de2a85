"""Choices between forms of a computation by how fast a machine does each, never by its name.

The precision is measured when a run begins. The other choices follow from device and dtype alone,
so a resumed run makes them again: each form was the fastest on one core with AVX-512 and bf16 units
in fp32 and bf16 and on the same core with AVX2 alone in fp32 (`ATEN_CPU_CAPABILITY=avx2
ONEDNN_MAX_CPU_ISA=AVX2`; torch 2.14.1, CPU time of the thread), unless a figure there says
otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

# a lead that is also there while other programs take the cores, so that every start chooses alike
MIN_SPEEDUP = 1.2
ROUNDS = 11
# multiply-adds of a layer at the first look and in the measurement: 0.05 and 0.5 ms in fp32 on one
# core. Emulated bf16 has a speedup of 0.1 at the first look, 2 ms (AVX2); native bf16 of at least
# 0.5, since calls cost as much as the layer
LOOK, MEASURED = 2**19, 2**23
LOOK_ROUNDS, HOPELESS = 3, 0.25  # a speedup below is not measured further
MAX_LINEAR, MAX_CONV = 256, 64  # wider layers gain more and would take longer to measure


@dataclass(frozen=True)
class LayerWidths:
    """Channels of the layers that most of a training step goes into.

    Attributes:
        linear: of linear layers and 1 x 1 convolutions.
        conv: of 3 x 3 convolutions; None: the model has none that count.
    """

    linear: int = MAX_LINEAR
    conv: int | None = MAX_CONV


def choose_precision(device: torch.device, widths: LayerWidths) -> tuple[str, str]:
    """Choose what `--precision auto` is on a device; changes no generator and no thread setting.

    CUDA: bf16 where the GPU computes in it (compute capability 8), else fp16. CPU and MPS: bf16
    where a matrix product and a convolution of the model's widths, forward and backward, are at
    least MIN_SPEEDUP times as fast as in fp32, else fp32.

    Args:
        device: of the training.
        widths: of the model.

    Returns:
        (name of the precision, the reason in words).
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU computes in bf16"
        return "fp16", "this GPU computes in fp16 and only emulates bf16"
    kind = "CPU" if device.type == "cpu" else "GPU"
    try:
        speedups = bf16_speedups(device, widths)
    except (RuntimeError, TypeError):  # no kernel for it, or no such type
        return "fp32", f"bf16 does not run on this {kind}"
    slowest = min(speedups, key=lambda name: speedups[name])
    if speedups[slowest] < MIN_SPEEDUP:
        speedup = f"{speedups[slowest]:.2f}x"
        return "fp32", (
            f"{slowest} in bf16 are {speedup} as fast on this {kind}, {MIN_SPEEDUP}x is needed"
        )
    figures = ", ".join(f"{name} {speedup:.1f}x" for name, speedup in speedups.items())
    return "bf16", f"{figures} as fast as in fp32 on this {kind}"


def bf16_speedups(device: torch.device, widths: LayerWidths) -> dict[str, float]:
    """Measure how many times as fast as in fp32 a layer is under autocast in bf16.

    Returns:
        {"matrix products": factor, "convolutions": factor}, without those that follow the first
        factor below MIN_SPEEDUP.
    """
    layers = {"matrix products": partial(linear_step, min(widths.linear, MAX_LINEAR), device)}
    if widths.conv is not None:
        layers["convolutions"] = partial(conv_step, min(widths.conv, MAX_CONV), device)
    speedups: dict[str, float] = {}
    with one_thread(), torch.enable_grad():
        for name, make_step in layers.items():
            for multiply_adds, rounds in ((LOOK, LOOK_ROUNDS), (MEASURED, ROUNDS)):
                speedups[name] = bf16_speedup(make_step(multiply_adds), device, rounds)
                if speedups[name] < HOPELESS:
                    break
            if speedups[name] < MIN_SPEEDUP:
                break
    return speedups


def bf16_speedup(step: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return how many times as fast a call is under autocast: by its shortest times.

    Other programs only ever slow a call down. The rounds alternate between the two.
    """
    shortest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for i in range(1 + rounds):
        for dtype in shortest:
            began = time.perf_counter()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype != torch.float32):
                step()
            if device.type == "mps":
                torch.mps.synchronize()
            if i > 0:  # the first call allocates and compiles
                shortest[dtype] = min(shortest[dtype], time.perf_counter() - began)
    return shortest[torch.float32] / shortest[torch.bfloat16]


def linear_step(width: int, device: torch.device, multiply_adds: int) -> Callable[[], object]:
    """Return a forward and backward of a linear layer with `width` inputs and outputs."""
    rows = min(4096, max(16, multiply_adds // width**2))
    x = torch.ones(rows, width, device=device, requires_grad=True)
    weight = torch.ones(width, width, device=device, requires_grad=True)
    return lambda: torch.autograd.grad(F.linear(x, weight).sum(), (x, weight))


def conv_step(channels: int, device: torch.device, multiply_adds: int) -> Callable[[], object]:
    """Return a forward and backward of a 3 x 3 convolution, channels last."""
    side = min(64, max(4, round((multiply_adds / 9) ** 0.5 / channels)))
    x = torch.ones(1, channels, side, side, device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.ones(channels, channels, 3, 3, device=device, requires_grad=True)
    return lambda: torch.autograd.grad(F.conv2d(x, weight, padding=1).sum(), (x, weight))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within the block: others would wait for a core that is taken."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# forms that depend on device and dtype --------------------


def is_half_on_cpu(tensor: torch.Tensor) -> bool:
    """Return True for bf16 and fp16 on a CPU, where torch's fused attention is slow.

    Forward and backward of 65 tokens (8 images, 3 heads), 197 (4, 6) and 601 (2, 6) in bf16 take
    3.0, 13.7 and 49 ms with it, 0.9, 10.5 and 43 ms in fp32, and 0.6, 3.4 and 16 ms as plain
    products in bf16. In fp32 it takes 0.9 to 1.2 times as long as plain products up to 577 tokens,
    and half to 0.9 times from there on.
    """
    return tensor.device.type == "cpu" and tensor.dtype in (torch.bfloat16, torch.float16)


def multiplies_for_transposed_conv(device: torch.device) -> bool:
    """Return True where a product is faster than a transposed convolution of stride and kernel 2.

    With 96 and 384 channels the product takes 0.7 and 0.8 times as long as the convolution in bf16.
    In fp32 it takes 1.5 times as long with AVX-512, and 1.0 and 0.85 times with AVX2.
    """
    return torch.is_autocast_enabled(device.type)


def layout_for_convolutions(pixels: torch.Tensor, *, everywhere: bool = False) -> torch.Tensor:
    """Return images [B, C, H, W] in the memory layout that a convolutional network is fast in.

    On CUDA that is channels last. On a CPU it depends on the network: with channels last steps take
    0.65 (depthwise convolutions) to 1.8 times as long (blocks of two wide ones).

    Args:
        pixels: of any dtype; uint8 costs least.
        everywhere: channels last on every device, for a network that gains on a CPU.
    """
    if everywhere or pixels.device.type == "cuda":
        return pixels.contiguous(memory_format=torch.channels_last)
    return pixels
