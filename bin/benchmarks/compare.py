"""The library's Trainer, parts of timm, and visionloop: same data, model, batch, precision and steps, each run in a process of its own."""

import os
import tempfile
from pathlib import Path

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.comparisons.cases import (
    DEFAULTS,
    PRECISIONS,
    SPEED_STEPS,
    WARM,
    scored_cases,
    speed_cases,
)
from visionloop.bin.benchmarks.comparisons.comparison_tables import ratio_rows, side_rows
from visionloop.bin.benchmarks.comparisons.record import Record, fingerprint, peer_versions
from visionloop.bin.benchmarks.comparisons.runs import FailedRun, run_case
from visionloop.bin.benchmarks.options import data_option, image_size_option, threads_option
from visionloop.bin.benchmarks.tables import print_table
from visionloop.bin.benchmarks.tasks import sample_data
from visionloop.engine.errors import UserError

IMAGES = {"train": 600, "val": 60}  # of a side of one's own


@click.command(
    help="The Trainer of transformers, parts of timm, and visionloop. Needs the extra `compare`."
)
@click.option(
    "--task",
    "task_name",
    type=click.Choice([*DEFAULTS, "all"]),
    default="classification",
    show_default=True,
)
@data_option
@click.option(
    "--image-side",
    type=click.IntRange(16),
    help="classification: sample data of JPEG files with sides of so many pixels",
)
@click.option(
    "--comparison", "comparisons", multiple=True, type=click.Choice(["same", "ours", "speed"]), default=("same", "ours"), show_default=True,
    help="same: the Trainer's recipe on both sides; ours: our preset against it; speed: short runs, nothing is scored; may be repeated",
)  # fmt: skip
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="same, ours: runs of each side, from seed 0 on",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="speed: runs of each side",
)
@click.option(
    "--best-flags",
    is_flag=True,
    help="speed: also every side with fp32 and bf16, compiled or not; ours keeps images then",
)
@click.option(
    "--give-up",
    type=click.IntRange(1),
    default=900,
    show_default=True,
    help="speed: seconds after which a run has failed",
)
@click.option(
    "--steps", type=click.IntRange(WARM + 1), help=f"default: by task; speed: {SPEED_STEPS}"
)
@click.option("--batch-size", type=click.IntRange(1), help="default: by task")
@image_size_option
@click.option("--precision", type=click.Choice(PRECISIONS), help="default: by task")
@click.option(
    "--hflip/--no-hflip",
    default=True,
    show_default=True,
    help="mirror half of the training images, on every side",
)
@click.option(
    "--mixup",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="classification, speed: alpha, timm and ours",
)
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="workers")
@threads_option
@click.option("--core", type=click.IntRange(0), help="pin every run to this core")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--json", "json_file", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="append each run to this file, one object a line; the same command goes on from there",
)  # fmt: skip
def compare(task_name, data, image_side, core, json_file, give_up, **options):
    peer_versions()  # told before any data is made
    names = list(DEFAULTS) if task_name == "all" else [task_name]
    check_options(names, data, image_side, options)
    pin(core)
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            folder, title = find_data(name, data, image_side, Path(scratch))
            record = Record(json_file, {"data": title, "data_fingerprint": fingerprint(folder)})
            cases = plan(name, core=core, **options)
            rows = run_cases(cases, record, folder, Path(scratch), give_up)
        for comparison in dict.fromkeys(row["comparison"] == "speed" for row in rows):
            tell(name, [row for row in rows if (row["comparison"] == "speed") == comparison])


def check_options(names, data, image_side, options):
    """Raises click.BadParameter for options that do not go together."""
    if data and len(names) > 1:
        raise click.BadParameter("is one task's; name it with --task", param_hint="--data")
    if data and not Path(data).is_dir():
        raise click.BadParameter(f"{data}: no such folder", param_hint="--data")
    if image_side and (data or names != ["classification"]):
        raise click.BadParameter("for the sample data of classification", param_hint="--image-side")
    if options["mixup"] and (
        names != ["classification"] or set(options["comparisons"]) != {"speed"}
    ):
        raise click.BadParameter("for classification with --comparison speed", param_hint="--mixup")


def pin(core):
    """From here on this process and those that it starts run on one core; None: on any."""
    if core is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise click.BadParameter("this system cannot pin a process", param_hint="--core")
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        raise click.BadParameter(f"{core}: {error.strerror}", param_hint="--core") from None


def find_data(task_name, data, image_side, scratch):
    """(absolute path of the data, what to call it)."""
    if data:
        return str(Path(data).resolve()), Path(data).resolve().name
    if image_side is None:
        return sample_data(task_name, scratch), "sample data"
    from visionloop.datasets.synthetic.writers import write_classification

    folder = scratch / "data"
    folder.mkdir()
    write_classification(folder, 0, images=IMAGES, sides=(image_side, image_side))
    return str(folder), f"sample data of {image_side} px"


def plan(
    task_name,
    *,
    comparisons,
    seeds,
    repeats,
    best_flags,
    steps,
    batch_size,
    image_size,
    precision,
    **shared,
):
    """[Case] of one task in the order in which they run."""
    own_steps, own_batch, own_size, own_precision = DEFAULTS[task_name]
    shared |= {
        "batch_size": batch_size or own_batch,
        "size": image_size or own_size,
        "precision": precision or own_precision,
    }
    whole = [name for name in ("same", "ours") if name in comparisons]
    cases = (
        scored_cases(task_name, whole, seeds, steps=steps or own_steps, **shared) if whole else []
    )
    if "speed" in comparisons:
        cases += speed_cases(task_name, repeats, best_flags, steps=steps or SPEED_STEPS, **shared)
    return cases


def run_cases(cases, record, data, scratch, give_up):
    """The row of each Case: from the record, or run now and written down."""
    rows = []
    for case in tqdm(cases, desc="runs", unit="run", disable=None):
        row = record.find(case)
        if row is None:
            described = record.describe(case)  # with the load of the machine before the run
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                row = record.add(described, run_or_note(case, data, Path(folder), give_up))
            tqdm.write(
                f"{case.title}: " + row.get("error", f"{row.get('samples_per_second')} samples/s")
            )
        rows.append(row)
    return rows


def run_or_note(case, data, folder, give_up):
    """The figures of a run; where only speed is asked for, what went wrong is one of them: some flags are not for every side."""
    if case.scored:
        return run_case(case, data, folder)
    try:
        return run_case(case, data, folder, longest=give_up)
    except (UserError, FailedRun) as error:
        return {"error": str(error).strip().splitlines()[-1]}


def tell(task_name, rows):
    """Tables of runs of one kind."""
    click.echo(
        f"\n{task_name}: {rows[0]['steps']} steps of {rows[0]['batch_size']}, {rows[0]['size']} px, {rows[0]['data']}"
    )
    for table in (side_rows(task_name, rows), ratio_rows(task_name, rows)):
        if table:
            click.echo()
            print_table(table)
    for row in rows:
        if "error" in row:
            click.echo(f"failed: {row['side']}, {row['flags']}: {row['error']}")
    differences = dict.fromkeys(
        row["differs"] for row in rows if row["comparison"] == "same" and "differs" in row
    )
    for difference in differences:
        click.echo(f"same recipe but for: {difference}")
