"""What scores cost: each task's metric beside other implementations of it, and the parts of a whole evaluation.

The metrics see made-up answers. Where another implementation is installed its numbers must be ours
to within the tolerance in the row, or the command fails; what it is set to for that stands in the
row. An evaluation runs in fp32, whatever precision a run trains in (on CUDA with matrix products in
TF32, but for --no-tf32): the last row says whether a network in bf16 gives the same scores, and how
much sooner.
"""

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
from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.commands.cli import device_option

IMAGES, FEWER_IMAGES = 5000, {"super_resolution": 100}  # as COCO's validation split; as DIV2K's
PARTS = {
    "data": "waiting for the loader, which has no process of its own here, and copying to the device",
    "forward": "the task's predict: normalising, network, answers, validation loss",
    "update": "the metric takes a batch in",
    "compute": "scores of all images",
    "intervals": "bootstrap over images, below 1000 of them",
}


@click.command(
    help="What scores cost: metrics on made-up images beside other implementations; and a whole evaluation, part by part."
)
@task_option
@click.option(
    "--images",
    type=click.IntRange(0),
    help="made up; 0: no metric alone  [default: 5000, super_resolution: 100]",
)
@click.option(
    "--image-side",
    type=click.IntRange(16),
    default=256,
    show_default=True,
    help="of made-up masks and images",
)
@click.option(
    "--classes", type=click.IntRange(2, 255), help="of made-up answers  [default: by task]"
)
@data_option
@model_option
@image_size_option
@batch_size_option(16, "images at a time")
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="of training before the evaluation; 0: no evaluation",
)
@threads_option
@repeats_option(3)
@device_option
@json_option
def evaluation(
    task_name,
    images,
    image_side,
    classes,
    data,
    model,
    image_size,
    batch_size,
    steps,
    threads,
    repeats,
    device,
    json_file,
):
    import torch

    from visionloop.engine.distributed import pick_device

    torch.set_num_threads(threads)
    place, rows = pick_device(device), []
    images = FEWER_IMAGES.get(task_name, IMAGES) if images is None else images
    if images:
        rows += measure_metric(
            task_name,
            place,
            repeats,
            images=images,
            side=image_side,
            classes=classes,
            batch_size=batch_size,
        )
    if steps:
        with tempfile.TemporaryDirectory() as scratch:
            flags = {
                "data": data,
                "model": model,
                "image_size": image_size,
                "batch_size": batch_size,
                "threads": threads,
                "steps": steps,
            }
            rows += measure_whole(task_name, place, repeats, flags, Path(scratch))
    given = {
        "data": data,
        "model": model,
        "image_size": image_size,
        "batch_size": batch_size,
        "steps": steps,
    }
    shared = describe_environment(
        {**given, "threads": threads, "repeats": repeats, "device": place.type}
    )
    for row in rows:
        append_line(json_file, benchmark="evaluation", task=task_name, **row, **shared)
    print_figures(shared)


def measure_metric(task_name, device, repeats, **sizes):
    """Rows of figures, printed too: our metric against each other side of scores/sides.py, in turn."""
    from tqdm import tqdm

    from visionloop.bin.benchmarks.scores.sides import sides_of, take, worst_difference

    batches, sides = sides_of(task_name, device, **sizes)
    taken = {name: [] for name in sides}
    for _ in tqdm(range(repeats), desc="metrics", unit="turn", disable=None):
        for name, side in sides.items():
            taken[name].append(take(side, batches, device))
    rows = [
        metric_row(name, side, taken, worst_difference, sizes["images"])
        for name, side in sides.items()
    ]
    print_table(
        [{column: value for column, value in row.items() if column != "does"} for row in rows]
    )
    print_figures({name: side.does for name, side in sides.items()})
    click.echo()
    return rows


def metric_row(name, side, taken, worst_difference, images):
    """{figure: value} of one side; the last ones against the side it is compared with."""
    update, compute = (
        statistics.median(getattr(one, part) for one in taken[name])
        for part in ("update", "compute")
    )
    row = {
        "part": "metric",
        "side": name,
        "images": images,
        "update_ms": round(1000 * update, 1),
        "compute_ms": round(1000 * compute, 1),
        "images_per_second": round(images / (update + compute), 1),
        "against": side.against,
        "times_as_long": None,
        "times_as_long_95": None,
        "largest_difference": None,
        "tolerance": side.tolerance,
        "does": side.does,
    }
    if side.against:
        own, other = (
            [one.update + one.compute for one in taken[which]] for which in (name, side.against)
        )
        ratio, interval = ratio_with_interval(own, other)
        worst = worst_difference(
            name, taken[name][-1].scores, taken[side.against][-1].scores, side.tolerance
        )
        row |= {
            "times_as_long": round(ratio, 2),
            "times_as_long_95": [round(value, 2) for value in interval],
            "largest_difference": worst,
        }
    return row


def measure_whole(task_name, device, repeats, flags, scratch):
    """Rows of figures, printed too: an evaluation's parts in fp32 and bf16, and whether both give the same scores."""
    from visionloop.bin.benchmarks.scores.whole_evaluation import compare_precisions, trained_task

    task, module, dataset = trained_task(task_name, flags, device, scratch)
    shares, agreement = compare_precisions(
        task, module, dataset, device, batch_size=flags["batch_size"], repeats=repeats
    )
    print_table(shares)
    click.echo()
    print_figures(PARTS | agreement)
    return [*shares, agreement]
