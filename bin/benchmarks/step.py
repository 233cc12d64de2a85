"""Where the time of a training step goes, and how far the step is from what this machine can compute."""

import multiprocessing
import tempfile
from pathlib import Path

import click

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.memory import measure_resident
from visionloop.bin.benchmarks.options import (
    batch_size_option,
    data_option,
    image_size_option,
    json_option,
    model_option,
    repeats_option,
    task_option,
    threads_option,
)
from visionloop.bin.benchmarks.processes import in_new_process
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import sample_data
from visionloop.bin.commands.cli import device_option

COLUMNS = {
    "forward_ms": "the network",
    "loss_ms": "the rest of the task's loss: pixels made ready, criterion",
    "backward_ms": "activations recomputed included",
    "clipping_ms": "norm of the gradients, and their clipping",
    "optimizer_ms": "its step",
    "average_ms": "the weights' moving average",
    "rest_ms": "of a step: batch to the device, seeds, BatchNorm statistics and gradients put away, non-finite steps",
    "step_ms": "a whole step that nothing is timed within; all times are medians, in turn",
    "times_as_long": "as the first case, median over turns",
    "samples_per_second": "of whole steps, data and logging left out",
    "peak_mib": "memory of a step beyond what is held before it. CPU: resident, of a new process; CUDA: of the allocator",
    "gflop": "10^9 operations of matrix products, convolutions and attention in a step, recomputed ones included; others are not counted",
    "share_percent": "gflop by step_ms, of the rate at which this machine multiplies large matrices in this precision, measured in turn",
}


@click.command(
    help="The parts of a training step, EMA included, in each precision, with activations kept and recomputed."
)
@task_option
@data_option
@model_option
@image_size_option
@batch_size_option(8)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    multiple=True,
    default=["fp32", "bf16"],
    show_default=True,
)
@click.option(
    "--grad-checkpointing/--no-grad-checkpointing",
    default=None,
    help="one case alone (default: both)",
)
@click.option(
    "--compile",
    "with_compiled",
    is_flag=True,
    help="compiled steps too, and their graph breaks; takes minutes on a CPU",
)
@threads_option
@repeats_option(7)
@device_option
@json_option
def step(
    task_name, data, precisions, grad_checkpointing, with_compiled, repeats, json_file, **options
):
    import tqdm

    from visionloop.bin.benchmarks.step_cases import measure_cases

    recomputations = [False, True] if grad_checkpointing is None else [grad_checkpointing]
    cases = [
        (precision, again, False)
        for precision in dict.fromkeys(precisions)
        for again in recomputations
    ]
    cases += [(precision, again, True) for precision, again, _ in cases if with_compiled]
    with tempfile.TemporaryDirectory() as scratch:
        flags = {**options, "ema": True, "data": data or sample_data(task_name, Path(scratch))}
        shared, rows = in_new_process("spawn", measure_cases, task_name, flags, cases, repeats)
        if shared["device"] == "cpu":
            multiprocessing.set_forkserver_preload(
                [f"visionloop.tasks.{task_name}.task", "visionloop.bin.benchmarks.same_step"]
            )
            # the compiler's own memory would hide that of a compiled step
            for row in tqdm.tqdm(
                [row for row in rows if not row["compiled"]], desc="memory", disable=None
            ):
                own_flags = flags | {"precision": row["precision"]}
                row["peak_mib"] = in_new_process(
                    "forkserver", measure_resident, task_name, own_flags, row["recomputed"]
                )
    print_table([{name: row[name] for name in ("case", *COLUMNS)} for row in rows])
    shared |= describe_environment({**options, "repeats": repeats})
    for row in rows:
        append_line(json_file, benchmark="step", task=task_name, **row, **shared)
    print_figures(COLUMNS | shared)
    for row in rows:
        if row["compiled"]:
            print_figures(
                {name: row[name] for name in ("case", "compile_s", "graphs", "graph_breaks")}
            )
            for reason, times in row["break_reasons"].items():
                click.echo(f"  {times} x {reason}")
