"""The `data` benchmark: training batches per second by stage and workers, also for torchvision.

Figures are per core: one process with one thread, or as many data workers as a row says. The engine
leaves normalization to the device (`to_input`); for the comparison with torchvision it is counted,
on the CPU, so that neither side wins by computing less.
"""

import os
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from visionloop.bin.benchmarks.measurement import interleaved, ratio_with_interval
from visionloop.bin.benchmarks.options import POSITIVE, shared_options
from visionloop.bin.benchmarks.results import Row, Value, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import load_task_class, sample_data

COLUMNS = {
    "samples_per_second": "median of interleaved rounds",
    "sample_ms": "per sample",
    "read": "of it: files read and decoded to uint8 (segmentation: masks too, super-resolution:"
    " low-resolution images too)",
    "transform": "of it: augmentation to uint8 images of the training size",
    "collate": "of it: samples stacked to a batch",
    "to_input": "of it: uint8 to normalized floats, on the device in a run",
    "times_the_stages": "CPU time relative to the engine's stages for the same batches (loaders:"
    " wall-clock time, without to_input), median",
    "interval": "its 95 % interval",
}
CACHE_HELP = "Cache of decoded images, as in `train`; none: every image is read each time"


@click.command(
    help="Measure samples per second and core of making training batches: each stage, the whole"
    " loader by number of data workers, and torchvision's transforms for the same images."
)
@shared_options("task", "data", "model", "image-size", batch_size=32)
@click.option(
    "--workers", type=click.IntRange(0), multiple=True, default=(0, 1, 2),
    help="Data workers of the loader, can be repeated",
)  # fmt: skip
@click.option("--batches", type=POSITIVE, default=8, help="Batches of the loader per round")
@click.option(
    "--cache", type=click.Choice(["none", "ram", "disk"]), default="none", help=CACHE_HELP
)
@shared_options("threads", "json", repeats=9)
def data(task_name: str, data: str | None, json_file: Path | None, **options: Value) -> None:
    # more processes than cores are asked for here on purpose
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    with tempfile.TemporaryDirectory() as scratch:
        if not data:  # nobody needs the cached images of sample data
            os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        images = {"train": max(64, 2 * options["batch_size"]), "val": 8}
        folder = data or sample_data(task_name, Path(scratch), images)
        rows, context = measure(task_name, data=folder, **options)
    context |= describe_environment(task=task_name, data=data, **options)
    write_results("data", rows, json_file, ["part"], COLUMNS, context)


def measure(
    task_name: str, *, workers: tuple[int, ...], batches: int, repeats: int, **flags: Value
) -> tuple[list[Row], Row]:
    """Return (rows of the stages, the loader and torchvision, figures of all rows)."""
    import torch

    torch.set_num_threads(flags["threads"])
    load_task_class(task_name)
    from visionloop.bin.benchmarks import data_pipelines as pipelines
    from visionloop.engine.data.forkserver import start_fork_server
    from visionloop.engine.train import evenly_spaced

    if any(workers):
        start_fork_server()  # after the imports, before this process has threads
    task, dataset, config = pipelines.build_training_data(task_name, flags)
    indices = evenly_spaced(len(dataset), config.batch_size).tolist()
    make = pipelines.MAKE_SAMPLES[task_name](task, dataset)
    timers = {
        "stages": partial(pipelines.time_stages, task, dataset, indices),
        "torchvision": partial(pipelines.time_samples, make, indices),
    }
    for timer in timers.values():  # warms the files up, which takes no loader
        timer(0)
    for number in workers:
        timer = partial(pipelines.time_loader, task, dataset, config, number, batches)
        timers[f"loader, {number} workers"] = timer
    measured: dict[str, list[Row]] = {part: [] for part in timers}
    for turn, part in enumerate(interleaved(timers, repeats)):
        measured[part].append(timers[part](1 + turn // len(timers)))
    stages = [sum(seconds.values()) for seconds in measured["stages"]]
    size = config.batch_size
    rows = [{"part": part} | figures(own, size, stages) for part, own in measured.items()]
    return rows, {"cache": task.config.cache, "torchvision": pipelines.DOES[task_name]}


def figures(seconds: Sequence[Row], samples: int, stages: Sequence[float]) -> Row:
    """Return {figure: value}.

    seconds: {stage: seconds} of one batch per round; stages: those of the engine in each round.
    """
    totals = [sum(stages.values()) for stages in seconds]
    median = statistics.median(totals) / samples
    ratio, (low, high) = ratio_with_interval(totals, stages)
    row: Row = {"samples_per_second": round(1 / median, 1), "sample_ms": round(1000 * median, 3)}
    for stage in ("read", "transform", "collate", "to_input"):
        times = [batch[stage] for batch in seconds if stage in batch]
        row[stage] = round(1000 * statistics.median(times) / samples, 3) if times else None
    return row | {"times_the_stages": round(ratio, 2), "interval": f"{low:.2f} to {high:.2f}"}
