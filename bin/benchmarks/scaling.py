"""What a second process brings, and what the processes' talking costs."""

import tempfile
from pathlib import Path

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.environment import append_line, describe_environment
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
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import sample_data
from visionloop.bin.commands.cli import device_option
from visionloop.engine.errors import UserError

COLUMNS = {
    "step_ms": "mean of a turn's steps, median over turns",
    "samples_per_second": "of all processes",
    "efficiency_percent": "samples per second, of the processes times what one alone has",
    "efficiency_without_collectives_percent": "the same of steps without collectives: what the machine gives to so many at once",
    "collectives_percent": "of the step: what it takes beyond the same step of the slowest process without collectives",
    "waiting_percent": "of the step: what the slowest process takes beyond the mean of them",
}
SHARED = {
    "agree_ms": "the collective of counts and flags, by itself",
    "all_reduce_ms": "summing a buffer of the gradients' size, by itself",
}


@click.command(
    help="1, 2, .. processes: strong scaling (the batch is divided) and weak (each has as much), against one process alone."
)
@task_option
@data_option
@model_option
@image_size_option
@batch_size_option(16, "samples of a step of one process; of strong scaling, of all")
@click.option(
    "--processes", type=click.IntRange(1), multiple=True, default=[1, 2], show_default=True
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), default=4, show_default=True, help="of each kind in a turn"
)
@threads_option
@repeats_option(10, "turns")
@device_option
@json_option
def scaling(task_name, data, batch_size, processes, steps, repeats, device, json_file, **options):
    import torch

    from visionloop.bin.benchmarks.scaling_ranks import batch_sizes, figures_of, measure_rank
    from visionloop.engine.testing.short_runs import on_ranks

    processes = sorted(set(processes))
    if batch_size < processes[-1]:
        raise click.BadParameter(
            f"--batch-size {batch_size}: less than one sample for each of --processes {processes[-1]}"
        )
    enough = torch.cuda.device_count() >= processes[-1]
    if device == "cuda" and not enough:
        raise click.BadParameter(
            f"--processes {processes[-1]}: {torch.cuda.device_count()} GPUs are visible"
        )
    flags = {**options, "device": device or ("cuda" if enough else "cpu")}
    shared = {**flags, "batch_size": batch_size, "steps": steps, "repeats": repeats}
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        flags["data"] = data or sample_data(task_name, Path(scratch))
        for number in tqdm(processes, unit="start", disable=None, leave=False):
            sizes = batch_sizes(number, batch_size)
            found, *_ = on_ranks(number, measure_rank, task_name, flags, sizes, steps, repeats)
            if "error" in found:
                raise UserError(found["error"])
            turns = found.pop("turns")
            for mode in sizes:
                row = {
                    "processes": number,
                    "scaling": mode,
                    **figures_of(turns, mode, sizes),
                    **found,
                }
                table.append(row)
                append_line(
                    json_file,
                    benchmark="scaling",
                    task=task_name,
                    **row,
                    **describe_environment(shared),
                )
    print_table([{name: row[name] for name in ("processes", "scaling", *COLUMNS)} for row in table])
    if processes[-1] > 1:
        print_figures(
            {name: table[-1][name] for name in ("collectives_95_percent", "gradient_mib", *SHARED)}
        )
    print_figures(COLUMNS | SHARED | describe_environment(shared))
