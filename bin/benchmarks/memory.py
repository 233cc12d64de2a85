"""What one training step keeps in memory, and what recomputing activations saves and costs."""

import multiprocessing
import statistics
import tempfile
from pathlib import Path

import click

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
from visionloop.bin.benchmarks.processes import in_new_process, peak_resident
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import sample_data
from visionloop.bin.commands.cli import device_option

COLUMNS = {
    "saved_mib": "kept by autograd from the forward to the backward pass, besides weights",
    "resident_mib": "CPU: peak resident memory of a new process after three steps, beyond its peak before the first",
    "allocated_mib": "CUDA: most that the allocator held during a step, weights and moments included",
    "held_mib": "CUDA: of that, held before the step: weights, moments, batch",
    "step_ms": "median, in turn",
    "times_as_long": "as a step that recomputes nothing, median over turns",
}
# a gradient summed by CUDA's atomics has no fixed order
MOST_DIFFERENCE = {"cpu": 0.0, "cuda": 1e-2, "mps": 1e-2}


@click.command(
    help="Memory and time of a training step: nothing recomputed, the first kind of blocks, all blocks that can be."
)
@task_option
@data_option
@model_option
@image_size_option
@batch_size_option(8)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@threads_option
@repeats_option(5, "timed steps of each case")
@device_option
@json_option
def memory(task_name, data, repeats, json_file, **options):
    with tempfile.TemporaryDirectory() as scratch:
        flags = {**options, "data": data or sample_data(task_name, Path(scratch))}
        shared, cases = in_new_process("spawn", measure_cases, task_name, flags, repeats)
        if shared["device"] == "cpu":
            # forked by a server that has imported all of it: quicker, and a peak of its own. That
            # of a spawned one begins at our peak
            multiprocessing.set_forkserver_preload(
                [f"visionloop.tasks.{task_name}.task", "visionloop.bin.benchmarks.same_step"]
            )
            for case, figures in cases.items():
                figures["resident_mib"] = in_new_process(
                    "forkserver", measure_resident, task_name, flags, case
                )
    shared |= describe_environment({**options, "repeats": repeats})
    columns = [name for name in COLUMNS if name in cases["none"]]
    print_table(
        [
            {"recomputed": case} | {name: figures[name] for name in columns}
            for case, figures in cases.items()
        ]
    )
    for case, figures in cases.items():
        append_line(json_file, benchmark="memory", task=task_name, case=case, **figures, **shared)
    print_figures({name: COLUMNS[name] for name in columns} | shared)


def measure_cases(task_name, flags, repeats):
    """({figure of all cases: value}, {case: {figure: number}}), all but the resident memory, in one process."""
    from visionloop.bin.benchmarks.same_step import SameStep, largest_difference

    with tempfile.TemporaryDirectory() as scratch:
        step = SameStep(task_name, flags, Path(scratch) / "run")
    cases, plain, apart = {}, step.gradients("none"), 0.0
    for case in step.cases:
        apart = max(apart, largest_difference(plain, step.gradients(case)))
        cases[case] = {"saved_mib": round(step.saved_mib(case), 1)}
        if step.device.type == "cuda":
            most, before = step.allocated_mib(case)
            cases[case] |= {"allocated_mib": round(most, 1), "held_mib": round(before, 1)}
    assert apart <= MOST_DIFFERENCE[step.device.type], (
        f"gradients differ by {apart:.2g}: recomputing did not compute the same"
    )
    del plain
    seconds = {case: [] for case in cases}
    for _ in range(repeats):
        for case, taken in seconds.items():
            taken.append(step.take(case))
    for case, taken in seconds.items():
        ratios = [own / other for own, other in zip(taken, seconds["none"], strict=True)]
        cases[case] |= {
            "step_ms": round(1000 * statistics.median(taken), 1),
            "times_as_long": round(statistics.median(ratios), 2),
        }
    gradients = "equal" if apart == 0 else f"equal to {apart:.1g}"
    return {
        "device": step.device.type,
        "weights_mib": round(step.weights_mib(), 1),
        "gradients": gradients,
    }, cases


def measure_resident(task_name, flags, case):
    """MiB by which three steps raise the peak of this process, which has taken none before. Optimizer state is there before."""
    from visionloop.bin.benchmarks.same_step import SameStep

    with tempfile.TemporaryDirectory() as scratch:
        step = SameStep(task_name, flags, Path(scratch) / "run")
    before = peak_resident()
    for _ in range(3):
        step.take(case)
    return round(peak_resident() - before, 1)
