"""How long `predict` takes, and where: the command's own way from files to files, with a model that is loaded already."""

import itertools
import multiprocessing
import tempfile
from pathlib import Path

import click

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import (
    json_option,
    repeats_option,
    task_option,
    threads_option,
)
from visionloop.bin.benchmarks.predict_cases import (
    Case,
    gather_images,
    measure_cases,
    measure_resident,
    write_random,
)
from visionloop.bin.benchmarks.processes import in_new_process
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import sample_data
from visionloop.bin.commands.cli import device_option

COLUMNS = {
    "batch_ms": "from a batch's first file to its last answer written: median over full batches",
    "batch_p95_ms": "95th percentile of the same",
    "reading_ms": "of it: files decoded and resized, moved to the device; median",
    "network_ms": "of it: the network, and answers in the image's own coordinates; median",
    "answers_ms": "of it: described, drawn, written; median",
    "images_per_second": "of a whole run without the loading of the model, with the contact sheet; median",
    "inputs_per_image": "of the network: windows of segmentation, tiles of super-resolution",
    "resident_mib": "CPU: peak resident memory of a new process after one run, beyond its peak with the model loaded",
    "allocated_mib": "CUDA: most that the allocator held in a run, weights included",
    "largest_difference": "of 255, between the results and those of the first row",
    "exact": "whether tiles see far enough for the whole image's result, but for rounding",
}
# super-resolution takes images one by one
BATCH_SIZES, BATCH_SIZES_ONE_BY_ONE = (1, 8, 32), (1,)
IMAGES, IMAGES_ONE_BY_ONE = 32, 1
# so large that tiles save memory: as many as 384 x 384 pixels hold go through the network at once
LARGE, TILES = (576, 448), (128,)


class ImageSize(click.ParamType):
    name = "WIDTHxHEIGHT"

    def convert(self, value, param, ctx):
        sides = value.split("x")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
            self.fail(f"expected WIDTHxHEIGHT, got {value!r}", param, ctx)
        return tuple(map(int, sides))


@click.command(
    help="Latency and throughput of `predict` by batch size and precision, split into reading, network and answers; tiles too."
)
@task_option
@click.option(
    "--model",
    default="tiny",
    show_default=True,
    help="an architecture, with random weights, or a folder that `predict` takes",
)
@click.option(
    "--input", "input_path", help="an image, or a folder of them (default: the task's sample data)"
)
@click.option(
    "--images",
    type=click.IntRange(1),
    help="so many, at even distances  [default: 32; super_resolution: 1]",
)
@click.option(
    "--image-size",
    type=ImageSize(),
    help="to resize them to  [super_resolution's default: 576x448]",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1),
    multiple=True,
    help="[default: 1, 8, 32; super_resolution: 1]",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "bf16"]),
    multiple=True,
    help="of the network; `predict` itself has fp32 alone  [default: both; super_resolution: fp32]",
)
@click.option(
    "--tile",
    "tiles",
    type=click.IntRange(0),
    multiple=True,
    help="super_resolution: as of `predict`, beside the whole  [default: 128]",
)
@threads_option
@repeats_option(3, "timed runs of each case")
@device_option
@json_option
def predict(
    task_name,
    json_file,
    model,
    input_path,
    images,
    image_size,
    batch_sizes,
    precisions,
    tiles,
    repeats,
    **options,
):
    one_by_one = task_name == "super_resolution"
    if tiles and not one_by_one:
        raise click.BadParameter("--tile: super_resolution alone has tiles")
    batch_sizes = batch_sizes or (BATCH_SIZES_ONE_BY_ONE if one_by_one else BATCH_SIZES)
    number = images or max(IMAGES_ONE_BY_ONE if one_by_one else IMAGES, *batch_sizes)
    if max(batch_sizes) > number:
        raise click.BadParameter(
            f"--batch-size {max(batch_sizes)}: no batch is full with --images {number}"
        )
    # fp32 first, and of it the whole image, which the others are compared with
    precisions = precisions or (["fp32"] if one_by_one else ["fp32", "bf16"])
    tiles = sorted({0, *(tiles or TILES)}) if one_by_one else [None]
    image_size = image_size or (LARGE if one_by_one else None)
    cases = [
        Case(*case)
        for case in itertools.product(
            sorted(set(precisions), reverse=True), tiles, sorted(set(batch_sizes))
        )
    ]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        data, folder = sample_data(task_name, scratch), Path(model)
        gather_images(input_path or data, scratch / "images", number, image_size)
        if not folder.is_dir():
            folder = scratch / "model"
            in_new_process("spawn", write_random, task_name, model, data, folder)
        device, rows = in_new_process(
            "spawn", measure_cases, task_name, folder, scratch, cases, repeats, options
        )
        if device == "cpu":
            # as in memory.py: a spawned process begins at this one's peak
            multiprocessing.set_forkserver_preload(
                [f"visionloop.tasks.{task_name}.task", "visionloop.bin.benchmarks.watched_task"]
            )
            for case, figures in zip(cases, rows, strict=True):
                figures["resident_mib"] = in_new_process(
                    "forkserver", measure_resident, task_name, folder, scratch, case, options
                )
    shared = {
        "device": device,
        "images": number,
        "image_size": image_size,
        **describe_environment({"model": model, "repeats": repeats, **options}),
    }
    columns = [column for column in COLUMNS if column in rows[0]]
    print_table(
        [
            case.named() | {column: figures[column] for column in columns}
            for case, figures in zip(cases, rows, strict=True)
        ]
    )
    for case, figures in zip(cases, rows, strict=True):
        append_line(
            json_file, benchmark="predict", task=task_name, **case.named(), **figures, **shared
        )
    print_figures({column: COLUMNS[column] for column in columns} | shared)
