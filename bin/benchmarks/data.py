"""What making training batches costs, stage by stage and by number of workers, beside other pipelines on the same files.

All of it is per core: one process with one thread, or as many workers as stand in the row.
Ours leaves floats and normalising to the device (`to_input`); where it is compared with others that
stage is counted, on the CPU, so that nobody wins by computing less. Every image is read and
decoded each time, unless --set turns one of the task's caches on.
"""

import statistics
import tempfile
import warnings
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
from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.tables import print_figures, print_table

STAGES = {
    "read": "the files' bytes, decoded to uint8 (segmentation: the mask too, super-resolution: the small image too)",
    "transform": "augmentation, to uint8 of the training size",
    "collate": "samples to a batch",
    "to_input": "uint8 to normalised float, on the device in a run",
}
WORKERS, INDEX_WORKERS = (0, 1, 2), (0, 2, 4)


@click.command(
    help="Samples per second and core of making training batches, ours and others'; or with --index-size what an index keeps in memory."
)
@task_option
@data_option
@click.option(
    "--image-side",
    type=click.IntRange(16),
    help="instead of --data: sample images of this side in pixels",
)
@model_option
@image_size_option
@batch_size_option(32, "samples of a batch, the same ones in each turn")
@click.option(
    "--workers",
    type=click.IntRange(0),
    multiple=True,
    help="workers, may be given again  [default: 0 1 2; index: 0 2 4]",
)
@click.option(
    "--batches",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="of the loader in each turn",
)
@click.option(
    "--warm-up",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="batches before them, of each worker",
)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="a setting of `train`, e.g. cache=disk; may be given again",
)
@click.option(
    "--index-size",
    type=click.IntRange(1),
    help="measure the memory of an index of so many made-up entries, and nothing else",
)
@threads_option
@repeats_option(9)
@json_option
def data(task_name, data, image_side, workers, index_size, threads, json_file, **options):
    warnings.filterwarnings(
        "ignore", message="This DataLoader will create"
    )  # more processes than cores are asked for here
    if index_size:
        rows = measure_index(task_name, index_size, workers or INDEX_WORKERS)
        options = {}
    else:
        if data and image_side:
            raise click.BadParameter(
                "--image-side makes sample images, --data names images that are there: one of the two"
            )
        with tempfile.TemporaryDirectory() as scratch:
            rows = measure(
                task_name, data, image_side, workers or WORKERS, threads, Path(scratch), **options
            )
    shared = describe_environment(
        {**options, "data": data, "image_side": image_side, "threads": threads}
    )
    for row in rows:
        append_line(json_file, benchmark="data", task=task_name, **row, **shared)
    print_figures(shared)


def measure_index(task_name, index_size, workers):
    """Rows of figures by number of workers, printed too; see pipelines/index_memory.py."""
    from visionloop.bin.benchmarks.pipelines.index_memory import COLUMNS, measure_index_memory

    rows = measure_index_memory(task_name, index_size, workers)
    print_table(rows)
    print_figures({name: COLUMNS[name] for name in rows[0] if name in COLUMNS})
    return rows


def measure(
    task_name,
    data,
    image_side,
    workers,
    threads,
    scratch,
    *,
    model,
    image_size,
    batch_size,
    batches,
    warm_up,
    given,
    repeats,
):
    """Rows of figures, printed too: the stages of ours, the whole loader by number of processes, and each other pipeline against ours."""
    import torch
    from tqdm import tqdm

    from visionloop.bin.benchmarks.pipelines.settings import (
        build_training,
        cache_beside,
        write_sample,
    )
    from visionloop.bin.benchmarks.pipelines.sides import pipelines_of
    from visionloop.bin.benchmarks.pipelines.stages import LoaderTurns, StageTurns, mean_side
    from visionloop.bin.benchmarks.tasks import load_task_class
    from visionloop.engine.data.forkserver import start_fork_server
    from visionloop.engine.train import evenly_spaced

    torch.set_num_threads(threads)
    load_task_class(task_name)
    if any(workers):
        start_fork_server()  # once everything is imported, before this process has threads
    with cache_beside(scratch, own=not data):
        data = data or write_sample(task_name, scratch, max(64, 2 * batch_size), image_side)
        flags = {"data": data, "model": model, "image_size": image_size, "batch_size": batch_size}
        task, dataset, config = build_training(task_name, flags, given)
        indices = evenly_spaced(len(dataset), batch_size).tolist()
        stages, loaders = (
            StageTurns(task, dataset),
            LoaderTurns(task, dataset, config, batches, warm_up),
        )
        others, does = pipelines_of(task_name, task, dataset)
        by_workers = {number: [] for number in workers}
        for turn in tqdm(range(repeats + 1), desc="turns", unit="turn", disable=None):
            stages.take(indices, turn)
            for other in others.values():
                other.take(indices, turn)
            for number, seconds in by_workers.items():
                if turn:  # the first one warms the files up, which takes no loader
                    seconds.append(loaders.take(number))
    shared = {
        "batch_size": len(indices),
        "image_mean_side": mean_side(dataset, indices),
        "cache": task.config.cache,
    }
    tables = [
        [stage_row(stages.seconds, len(indices))],
        [loader_row(number, seconds, batch_size) for number, seconds in by_workers.items()],
        [
            other_row(name, does[name], other.seconds[1:], stages.whole[1:], len(indices))
            for name, other in others.items()
        ],
    ]
    for table in filter(None, tables):
        print_table(
            [{name: value for name, value in row.items() if name != "does"} for row in table]
        )
        click.echo()
    print_figures({**STAGES, **does, **shared})
    return [row | shared for table in tables for row in table]


def stage_row(seconds, samples):
    """{figure: value} of ours. seconds: {stage: [of a batch of so many samples]}, the first turn a warm-up."""
    medians = {stage: statistics.median(values[1:]) / samples for stage, values in seconds.items()}
    whole = (
        statistics.median(map(sum, zip(*(values[1:] for values in seconds.values()), strict=True)))
        / samples
    )
    rates = {f"{stage}_per_second": round(1 / value) for stage, value in medians.items()}
    times = {f"{stage}_ms": round(1000 * value, 3) for stage, value in medians.items()}
    return {
        "part": "stages",
        **rates,
        "samples_per_second": round(1 / whole, 1),
        **times,
        "sample_ms": round(1000 * whole, 3),
    }


def loader_row(workers, seconds, batch_size):
    """{figure: value} of the engine's TrainingData. seconds: [of a batch]; batches come uint8, without `to_input`."""
    rate = batch_size / statistics.median(seconds)
    per_core = rate / max(1, workers)
    return {
        "part": "loader",
        "workers": workers,
        "samples_per_second": round(rate, 1),
        "samples_per_second_and_core": round(per_core, 1),
    }


def other_row(name, does, seconds, own_seconds, samples):
    """{figure: value} of another pipeline. seconds, own_seconds: [of the same batches, files to normalised floats]."""
    ratio, (low, high) = ratio_with_interval(seconds, own_seconds)
    return {
        "part": "pipeline",
        "pipeline": name,
        "samples_per_second": round(samples / statistics.median(seconds), 1),
        "ours_per_second": round(samples / statistics.median(own_seconds), 1),
        "times_faster": round(ratio, 2),
        "times_faster_95": [round(low, 2), round(high, 2)],
        "does": does,
    }
