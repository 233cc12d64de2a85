"""The `predict` benchmark: latency and throughput of `predict` from image files to result files."""

import tempfile
from itertools import product, starmap
from pathlib import Path

import click

from visionloop.bin.benchmarks.measurement import default_precisions, in_new_process
from visionloop.bin.benchmarks.options import POSITIVE, PRECISION, PRECISIONS_HELP, shared_options
from visionloop.bin.benchmarks.results import Value, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import sample_data

COLUMNS = {
    "batch_ms": "from the first file of a batch to its last result written, median",
    "batch_p95_ms": "95th percentile of the same",
    "reading_ms": "of it: files decoded, resized and moved to the device, median",
    "model_ms": "of it: model and predictions in the image's own coordinates, median",
    "writing_ms": "of it: results described, drawn and written, median",
    "images_per_second": "of a whole run with its contact sheet, without loading the model; median",
    "inputs_per_image": "of the model: windows of segmentation, tiles of super-resolution",
    "resident_mib": "CPU: peak resident memory of a new process after one run beyond its peak with"
    " the model loaded",
    "allocated_mib": "CUDA: peak of the allocator during a run, weights included",
}
# where the sample data of a task has its validation images
IMAGES = {
    "classification": "val", "detection": "val", "segmentation": "images/val",
    "super_resolution": "val/LR_x2",
}  # fmt: skip


@click.command(
    help="Measure latency and throughput of `predict` by batch size and precision, split into"
    " reading, model and writing; super-resolution also with tiles."
)
@shared_options("task")
@click.option(
    "--model", default="tiny", help="Architecture, with random weights, or a folder for `predict`"
)
@click.option("--input", "input_path", help="Image or folder of images (default: sample data)")
@click.option(
    "--batch-size", "batch_sizes", type=POSITIVE, multiple=True,
    help="Images per batch, can be repeated (default: 1, 8, 32; super_resolution: 1)",
)  # fmt: skip
@click.option(
    "--precision", "precisions", type=PRECISION, multiple=True,
    help=f"{PRECISIONS_HELP}; `predict` itself always uses fp32",
)  # fmt: skip
@click.option(
    "--tile", "tiles", type=click.IntRange(0), multiple=True,
    help="super_resolution: side of a tile in pixels as in `predict`, measured in addition to"
    " whole images, can be repeated (default: 128)",
)  # fmt: skip
@shared_options("threads", "device", "json", repeats=3)
def predict(
    task_name: str, model: str, input_path: str | None, batch_sizes: tuple[int, ...],
    precisions: tuple[str, ...], tiles: tuple[int, ...], repeats: int, json_file: Path | None,
    **options: Value,
) -> None:  # fmt: skip
    single = task_name == "super_resolution"  # takes images one by one
    if tiles and not single:
        raise click.BadParameter("--tile: only super_resolution has tiles")
    from visionloop.bin.benchmarks import predict_timing as timing

    sizes = sorted(set(batch_sizes or ((1,) if single else (1, 8, 32))))
    precisions = precisions or default_precisions(task_name, "tiny", options["device"])
    sides = sorted({0, *(tiles or (128,))}) if single else [None]
    cases = list(starmap(timing.Case, product(dict.fromkeys(precisions), sides, sizes)))
    with tempfile.TemporaryDirectory() as name:
        scratch, folder = Path(name), Path(model)
        # super-resolution: so large that tiles save memory, since the model takes as many at once
        # as 384 x 384 pixels hold
        counts = {"train": 8, "val": 1 if single else max(sizes)}
        data = sample_data(task_name, scratch, counts, 1024 if single else None)
        images = Path(input_path) if input_path else Path(data) / IMAGES[task_name]
        if not folder.is_dir():
            folder = scratch / "model"
            in_new_process(timing.write_random_model, task_name, model, data, folder)
        setup = timing.Setup(task_name, folder, images, scratch / "output", **options)
        device, number, rows = in_new_process(timing.measure_cases, setup, cases, repeats)
        for case, row in zip(cases, rows, strict=True) if device == "cpu" else ():
            row["resident_mib"] = in_new_process(timing.measure_resident_mib, setup, case)
    context = describe_environment(
        task=task_name, **options, model=model, repeats=repeats, input=input_path
    )
    context |= {"device": device, "images": number}
    keys = cases[0].columns()
    write_results("predict", rows, json_file, keys, COLUMNS, context)
