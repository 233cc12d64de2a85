"""Timing of a training step, whole and in parts, for several interleaved cases in one process."""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from visionloop.bin.benchmarks.measurement import interleaved, median_ms, ratio_with_interval
from visionloop.bin.benchmarks.repeated_step import RepeatedStep
from visionloop.bin.benchmarks.results import Row, Value
from visionloop.engine import step as engine_step
from visionloop.engine.precision import DTYPES, build_precision

WARM_STEPS = 3
# a product that takes longer is not followed by one of twice the side: emulated bf16 would take
# minutes
LONG_PRODUCT = 0.05  # seconds
# so large that a larger matrix would not be multiplied at a higher rate
MATRIX_SIDE = {"cpu": 2048, "mps": 4096, "cuda": 8192}
# FlopCounterMode knows the attention kernels of CUDA alone; these two are the CPU's
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda *shapes, **_: sdpa_flop_count(*shapes[:3])
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4])
    ),
}


class Case(NamedTuple):
    """One way to take the step."""

    precision: str
    recompute: bool  # activations of all blocks


class TimedCase:
    """A case with its measurements, one per round.

    facts: values of the row that are not timed; shares: of the matmul rate.
    """

    def __init__(self, case: Case, step: RepeatedStep) -> None:
        self.step = step
        self.precision = build_precision(case.precision, step.device, tf32=step.run.config.tf32)
        self.recomputed = list(step.cases)[-1 if case.recompute else 0]
        self.facts: Row = {
            "case": case.precision + " recomputed" * case.recompute, "precision": case.precision,
            "grad_checkpointing": case.recompute, "recomputed": self.recomputed, "peak_mib": None,
            "gflop": round(count_flops(self.take) / 1e9, 3),
        }  # fmt: skip
        for _ in range(WARM_STEPS):
            self.take()
        if step.device.type == "cuda":
            peak, before = step.allocated_mib(self.recomputed)
            self.facts["peak_mib"] = round(peak - before, 1)
        self.parts: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.shares: list[float] = []

    def take(self) -> float:
        """Take one step and return its seconds."""
        self.step.run = replace(self.step.run, precision=self.precision)
        return self.step.take(self.recomputed)

    def measure(self, rate: "MatmulRate") -> None:
        """Measure one round: a whole step, one in parts, one matrix product."""
        self.seconds.append(self.take())
        self.parts.append(time_parts(self.step, self.recomputed))
        self.shares.append(1e9 * self.facts["gflop"] / self.seconds[-1] / rate.measure())

    def row(self, baseline: "TimedCase", batch_size: int) -> Row:
        """Return {figure: value}; times are relative to those of `baseline`."""
        ratio, (low, high) = ratio_with_interval(self.seconds, baseline.seconds)
        medians = {f"{part}_ms": median_ms(p[part] for p in self.parts) for part in self.parts[0]}
        return self.facts | medians | {
            "step_ms": median_ms(self.seconds),
            "times_as_long": round(ratio, 3),
            "times_as_long_95": [round(low, 3), round(high, 3)],
            "samples_per_second": round(batch_size / statistics.median(self.seconds), 1),
            "share_percent": round(100 * statistics.median(self.shares), 1),
        }  # fmt: skip


def measure_cases(
    task_name: str, flags: Row, cases: Sequence[Case], repeats: int
) -> tuple[Row, list[Row]]:
    """Return (figures of all cases, one row per case). flags: settings without those of a case."""
    flags = flags | {"precision": cases[0].precision}
    with tempfile.TemporaryDirectory() as scratch:
        step = RepeatedStep(task_name, flags, Path(scratch) / "run")
    timed = [TimedCase(case, step) for case in cases]
    rates = {case.precision: MatmulRate(DTYPES[case.precision], step) for case in cases}
    for case in interleaved(timed, repeats):
        case.measure(rates[case.facts["precision"]])
    context: Row = {"device": step.device.type, "held_mib": round(step.held_mib(), 1)}
    for name, rate in rates.items():
        context[f"matmul_{name}_gflops_per_second"] = round(statistics.median(rate.rates) / 1e9, 1)
    return context, [case.row(timed[0], flags["batch_size"]) for case in timed]


class MatmulRate:
    """Times products of two square random matrices. rates: FLOP per second of each so far."""

    def __init__(self, dtype: torch.dtype, step: RepeatedStep) -> None:
        self.clock, largest = step.clock, MATRIX_SIDE[step.device.type]
        self.rates: list[float] = []
        matrix = torch.randn(largest, largest, device=step.device).to(dtype)
        self.side, seconds = largest // 32, 0.0
        while self.side < largest and seconds < LONG_PRODUCT:
            self.side *= 2
            self.matrix = matrix[: self.side, : self.side].contiguous()
            seconds = self.measure_seconds()  # also the warm-up of the side that stays

    def measure(self) -> float:
        """Return FLOP per second of one product: 2 n^3 operations divided by its time."""
        self.rates.append(2 * self.side**3 / self.measure_seconds())
        return self.rates[-1]

    def measure_seconds(self) -> float:
        """Return the seconds of one product."""
        began = self.clock()
        torch.matmul(self.matrix, self.matrix)
        return self.clock() - began


def count_flops(call: Callable[[], Value]) -> int:
    """Count the FLOP of matrix products, convolutions and attention, backward passes included."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        call()
    return counter.get_total_flops()


def time_parts(step: RepeatedStep, case: str) -> dict[str, float]:
    """Take one step with an EMA and return {part: seconds}; "rest" is the remainder.

    On CUDA the device is synchronised at the edges of each part, so the parts together take longer
    than a step without clocks inside it.
    """
    run, seconds = step.run, dict[str, float]()
    calls = {
        "forward": (run.model, "forward"), "loss": (step.task, "loss"),
        "backward": (torch.Tensor, "backward"), "clipping": (engine_step, "clip_grad_norm_"),
        "optimizer": (run.optimizer, "step"), "ema": (run.ema, "update"),
    }  # fmt: skip
    with ExitStack() as stack:
        for part, (owner, name) in calls.items():
            stack.enter_context(timed_calls(owner, name, step.clock, seconds, part))
        whole = step.take(case)
    seconds["loss"] -= seconds["forward"]  # Task.loss calls the model
    return seconds | {"rest": whole - sum(seconds.values())}


@contextmanager
def timed_calls(
    owner: Value, name: str, clock: Callable[[], float], seconds: dict[str, float], part: str
) -> Iterator[None]:
    """Add the time of calls of owner.name to seconds[part] within the block."""
    call = getattr(owner, name)
    seconds[part] = 0.0

    def timed_call(*args: Value, **kwargs: Value) -> Value:
        began = clock()
        result = call(*args, **kwargs)
        seconds[part] += clock() - began
        return result

    with patch.object(owner, name, timed_call):
        yield
