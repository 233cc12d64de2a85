"""The `memory` benchmark: what a training step keeps in memory, with and without recomputation."""

import tempfile
from pathlib import Path

import click

from visionloop.bin.benchmarks.measurement import (
    in_new_process,
    interleaved,
    median_ms,
    ratio_with_interval,
)
from visionloop.bin.benchmarks.options import shared_options
from visionloop.bin.benchmarks.results import Row, Value, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import sample_data

COLUMNS = {
    "saved_mib": "saved by autograd from the forward to the backward pass, without weights",
    "resident_mib": "CPU: peak resident memory of a new process after three steps beyond its peak"
    " before the first",
    "allocated_mib": "CUDA: peak of the allocator during a step, weights and optimizer included",
    "held_mib": "CUDA: of that, held before the step: weights, optimizer state, batch",
    "step_ms": "median of interleaved rounds",
    "times_as_long": "step time relative to no recomputation, median over rounds",
}
# a gradient summed by CUDA's atomics has no fixed order
LARGEST_DIFFERENCE = {"cpu": 0.0, "cuda": 1e-2, "mps": 1e-2}


@click.command(
    help="Measure memory and time of a training step with gradient checkpointing of no blocks, of"
    " the first class of blocks, and of all blocks; gradients must be equal."
)
@shared_options("task", "data", "model", "image-size", batch_size=8, precision="fp32")
@shared_options("threads", "device", "json", repeats=5)
def memory(
    task_name: str, data: str | None, repeats: int, json_file: Path | None, **options: Value
) -> None:
    from visionloop.bin.benchmarks.repeated_step import measure_resident_mib

    with tempfile.TemporaryDirectory() as scratch:
        flags = options | {"data": data or sample_data(task_name, Path(scratch))}
        context, rows = in_new_process(measure_cases, task_name, flags, repeats)
        for row in rows if context["device"] == "cpu" else ():
            case = row["recomputed"]
            row["resident_mib"] = in_new_process(measure_resident_mib, task_name, flags, case)
    context |= describe_environment(task=task_name, **options, repeats=repeats)
    write_results("memory", rows, json_file, ["recomputed"], COLUMNS, context)


def measure_cases(task_name: str, flags: Row, repeats: int) -> tuple[Row, list[Row]]:
    """Return (figures of all cases, one row per case) without the resident memory."""
    from visionloop.bin.benchmarks.repeated_step import RepeatedStep, largest_difference

    with tempfile.TemporaryDirectory() as scratch:
        step = RepeatedStep(task_name, flags, Path(scratch) / "run")
    rows: dict[str, Row] = {}
    plain, difference = step.gradients("none"), 0.0
    for case in step.cases:
        difference = max(difference, largest_difference(plain, step.gradients(case)))
        rows[case] = {"recomputed": case, "saved_mib": round(step.saved_mib(case), 1)}
        if step.device.type == "cuda":
            peak, before = step.allocated_mib(case)
            rows[case] |= {"allocated_mib": round(peak, 1), "held_mib": round(before, 1)}
    limit = LARGEST_DIFFERENCE[step.device.type]
    assert difference <= limit, f"recomputed gradients differ by {difference:.2g}"
    seconds: dict[str, list[float]] = {case: [] for case in rows}
    for case in interleaved(rows, repeats):
        seconds[case].append(step.take(case))
    for case, row in rows.items():
        row["step_ms"] = median_ms(seconds[case], 1)
        row["times_as_long"] = round(ratio_with_interval(seconds[case], seconds["none"])[0], 2)
    gradients = "equal" if difference == 0 else f"equal to {difference:.1g}"
    context = {"device": step.device.type, "weights_mib": round(step.weights_mib(), 1)}
    return context | {"gradients": gradients}, list(rows.values())
