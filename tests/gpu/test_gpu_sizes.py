"""Models at their own size on a GPU: speed and memory, and compiled ones."""

import gc
import statistics
from collections import defaultdict

import pytest
import torch
from device_commands import (
    finish,
    largest_loss_difference,
    losses_of,
    start,
    train_arguments,
)
from device_task import TASKS, on_tasks

from visionloop.bin.benchmarks.repeated_step import RepeatedStep
from visionloop.engine.errors import RunAgain
from visionloop.engine.testing.short_runs import logged

# model and samples of a step; half as many samples where the memory does not suffice
NAMED = {
    "classification": ("vit-base", 32),
    "detection": ("dfine-xlarge", 8),
    "segmentation": ("eomt-large", 8),
    "instance_segmentation": ("eomt-large", 8),
    "panoptic_segmentation": ("eomt-large", 8),
    "super_resolution": ("classical", 8),
}
SMALLEST_BATCH = 2  # for a BatchNorm that is trained


@on_tasks()
def test_a_named_model_trains_in_bf16_at_its_own_size(task_name, device, data_of, tmp_path, record):
    model, batch_size = NAMED[task_name]
    flags = {"data": str(data_of(task_name)), "model": model, "precision": "bf16", "threads": 1}
    while batch_size >= SMALLEST_BATCH:
        sizes, output = {"batch_size": batch_size, "device": device}, tmp_path / f"{batch_size}"
        try:
            step = RepeatedStep(task_name, flags | sizes, output)
            none, *_, every = step.cases
            record(model=model, batch_size=batch_size, **throughput(step, none, batch_size))
            figures = throughput(step, every, batch_size)
            record(**{f"recomputing_{name}": value for name, value in figures.items()})
            return
        except (torch.OutOfMemoryError, MemoryError, RunAgain):
            batch_size, step = batch_size // 2, None
        gc.collect()
        torch.cuda.empty_cache()
    pytest.skip(f"{model} needs more memory for {SMALLEST_BATCH} samples")


def throughput(step, case, batch_size):
    seconds = statistics.median([step.take(case) for _ in range(13)][3:])
    peak_mib, _ = step.allocated_mib(case)
    return {"samples_per_second": batch_size / seconds, "peak_gib": peak_mib / 1024}


@pytest.fixture(scope="module")
def compared_runs(data_of, tmp_path_factory):
    """{task: {"plain" and "compiled": (process, output)}}, all at once: compilation takes long."""
    folder = tmp_path_factory.mktemp("compiled")
    options = ["--precision", "fp32", "--no-tf32", "--workers", "0", "--save-every", "0"]
    options += ["--batch-size", "4", "--micro-batch", "4"]
    runs = defaultdict(dict)
    for task_name in TASKS:
        for name, more in (("plain", []), ("compiled", ["--compile"])):
            output = folder / task_name / name
            words = [*options, *more]
            arguments = train_arguments(task_name, "cuda", data_of(task_name), output, *words)
            command = ["-m", f"visionloop.bin.{task_name}", *arguments]
            runs[task_name][name] = (start(*command), output)
    yield runs
    for task_name in TASKS:
        for process, _ in runs[task_name].values():
            process.kill()


@on_tasks()
def test_the_first_loss_of_a_compiled_run_is_that_of_a_plain_run(
    task_name, device, compared_runs, record
):
    runs = compared_runs[task_name]
    for process, _ in runs.values():
        finish(process)
    rows = [logged(output) for _, output in runs.values()]
    first, compiled = (losses_of(logs)[0] for logs in rows)
    record(compiled_loss_difference=largest_loss_difference(*rows))
    assert abs(first - compiled) <= 1e-3 * first
