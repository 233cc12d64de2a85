"""The `step` benchmark: parts of a training step, and its share of the machine's matmul rate."""

import tempfile
from itertools import product, starmap
from pathlib import Path

import click

from visionloop.bin.benchmarks.measurement import default_precisions, in_new_process
from visionloop.bin.benchmarks.options import PRECISION, PRECISIONS_HELP, shared_options
from visionloop.bin.benchmarks.results import Value, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import sample_data

COLUMNS = {
    "forward_ms": "forward pass of the model",
    "loss_ms": "the rest of Task.loss: input preparation and criterion",
    "backward_ms": "backward pass, recomputed activations included",
    "clipping_ms": "norm and clipping of the gradients",
    "optimizer_ms": "optimizer step",
    "ema_ms": "update of the EMA weights",
    "rest_ms": "copy to the device, seeds, BatchNorm statistics, zeroed gradients, non-finite step",
    "step_ms": "a whole step without clocks inside it; all times are medians of interleaved rounds",
    "times_as_long": "step time relative to the first case, median over rounds",
    "samples_per_second": "of whole steps, without data loading and logging",
    "peak_mib": "memory of a step beyond what is held before it; CPU: resident memory of a new"
    " process, CUDA: of the allocator",
    "gflop": "10^9 operations of matrix products, convolutions and attention per step, recomputed"
    " ones included; others are not counted",
    "share_percent": "gflop / step_ms relative to this machine's rate of large matrix products in"
    " this precision, measured in the same round",
}


@click.command(
    help="Time the parts of a training step (forward, loss, backward, clipping, optimizer, EMA) in"
    " each precision, with and without gradient checkpointing, and compare the step with the rate"
    " at which this machine multiplies large matrices."
)
@shared_options("task", "data", "model", "image-size", batch_size=8)
@click.option("--precision", "precisions", type=PRECISION, multiple=True, help=PRECISIONS_HELP)
@click.option(
    "--grad-checkpointing/--no-grad-checkpointing", "recomputation", default=None,
    help="Measure one of the two alone (default: both)",
)  # fmt: skip
@shared_options("threads", "device", "json", repeats=7)
def step(
    task_name: str, data: str | None, precisions: tuple[str, ...], recomputation: bool | None,
    repeats: int, json_file: Path | None, **options: Value,
) -> None:  # fmt: skip
    from visionloop.bin.benchmarks.repeated_step import measure_resident_mib
    from visionloop.bin.benchmarks.step_timing import Case, measure_cases

    recomputations = [False, True] if recomputation is None else [recomputation]
    precisions = precisions or default_precisions(task_name, options["model"], options["device"])
    cases = list(starmap(Case, product(dict.fromkeys(precisions), recomputations)))
    with tempfile.TemporaryDirectory() as scratch:
        flags = options | {"ema": True, "data": data or sample_data(task_name, Path(scratch))}
        context, rows = in_new_process(measure_cases, task_name, flags, cases, repeats)
        for row in rows if context["device"] == "cpu" else ():
            own = flags | {"precision": row["precision"]}
            case = row["recomputed"]
            row["peak_mib"] = in_new_process(measure_resident_mib, task_name, own, case)
    context |= describe_environment(task=task_name, **options, repeats=repeats)
    write_results("step", rows, json_file, ["case"], COLUMNS, context)
