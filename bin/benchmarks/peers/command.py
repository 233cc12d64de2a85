"""The `peers` benchmark: equal data, model, batch, precision and steps, each run a process."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from visionloop.bin.benchmarks.options import JSON_FILE, POSITIVE, shared_options
from visionloop.bin.benchmarks.peers import recipes
from visionloop.bin.benchmarks.peers.runner import describe_case, peer_versions, read_rows, run_case
from visionloop.bin.benchmarks.peers.tables import group_runs, ratio_rows, run_rows
from visionloop.bin.benchmarks.results import Row, Value, append_line, print_table
from visionloop.bin.benchmarks.tasks import default_precision, sample_data

COMPARISON_HELP = (
    "same-recipe: the Trainer's recipe in all implementations; own-preset: visionloop's preset"
    " against it; speed: short runs without scores; can be repeated"
)
PRECISION_HELP = "Autocast precision (default: classification bf16 where `train` has it, else fp32)"
STEPS_HELP = "Training steps (default: by task; speed: 60)"
JSON_HELP = "File to append each run to, one JSON object per line; the same command resumes there"


@click.command(
    help="Compare visionloop with transformers' Trainer and, for classification, with a loop of"
    " timm's parts: equal data, model, batch, precision and steps, interleaved, each run in a"
    " process of its own. Needs the extra `compare`."
)
@click.option(
    "--task", "task_name", type=click.Choice([*recipes.DEFAULTS, "all"]), default="classification",
    help="Task",
)  # fmt: skip
@shared_options("data")
@click.option(
    "--sample-side", type=click.IntRange(16), help="Side of generated sample images in pixels"
)
@click.option(
    "--comparison", "comparisons", multiple=True, type=click.Choice(recipes.COMPARISONS),
    default=recipes.COMPARISONS[:2], help=COMPARISON_HELP,
)  # fmt: skip
@click.option("--repeats", type=POSITIVE, default=3, help="Runs of each implementation, by seed")
@click.option("--steps", type=click.IntRange(recipes.WARM_STEPS + 1), help=STEPS_HELP)
@click.option("--batch-size", type=POSITIVE, help="Samples per step (default: by task)")
@shared_options("image-size")
@click.option("--num-queries", type=POSITIVE, help="Queries of instance and panoptic segmentation")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help=PRECISION_HELP)
@click.option("--hflip/--no-hflip", default=True, help="Flip half of the training images")
@click.option("--workers", type=click.IntRange(0), default=0, help="Data workers")
@shared_options("threads")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Device")
@click.option("--json", "json_file", required=True, type=JSON_FILE, help=JSON_HELP)
def peers(
    task_name: str, data: str | None, sample_side: int | None, json_file: Path, **options: Value
) -> None:
    peer_versions()  # an error before any data is generated
    if data and (task_name == "all" or sample_side or not Path(data).is_dir()):
        expected = "expected an existing folder, one --task and no --sample-side"
        raise click.BadParameter(expected, param_hint="--data")
    given = {name: value for name, value in options.items() if value is not None}
    for name in recipes.DEFAULTS if task_name == "all" else [task_name]:
        with tempfile.TemporaryDirectory() as scratch:
            images = {"train": 600, "val": 60} if sample_side else None
            folder = data or sample_data(name, Path(scratch), images, sample_side)
            title = data or f"sample data, {sample_side or 'mixed'} px"
            shared = {"steps": None} | given
            if "precision" not in given | recipes.DEFAULTS[name]:
                is_bf16 = default_precision(name, "tiny", options["device"]) == "bf16"
                shared["precision"] = "bf16" if is_bf16 else "fp32"  # the others have no fp16 here
            cases = recipes.plan_cases(name, **shared)
            print_runs(name, run_cases(cases, title, str(Path(folder).resolve()), json_file))


def run_cases(cases: Sequence[recipes.Case], title: str, data: str, json_file: Path) -> list[Row]:
    """Return the row of each case: from the file, or run now and appended to it."""
    from tqdm import tqdm

    recorded, rows = read_rows(json_file), []
    for case in tqdm(cases, desc="runs", unit="run", disable=None):
        described = describe_case(case, title)  # with the load before the run
        identity = {name: value for name, value in described.items() if name != "load"}
        row = next((row for row in recorded if row | identity == row), None)
        if row is None:
            with tempfile.TemporaryDirectory() as folder:
                row = described | run_case(case, data, Path(folder))
            append_line(json_file, row)
            tqdm.write(f"{case.title}, seed {case.seed}: {row['samples_per_second']} samples/s")
        rows.append(row | {"title": case.title})
    return rows


def print_runs(task_name: str, rows: Sequence[Row]) -> None:
    """Print the tables of the scored runs and of the speed runs of a task."""
    for is_speed in (False, True):
        chosen = [row for row in rows if (row["comparison"] == recipes.SPEED) == is_speed]
        if not chosen:
            continue
        first, groups = chosen[0], group_runs(chosen)
        size = f"{first['steps']} steps of {first['batch_size']}, {first['image_size']} px"
        click.echo(f"\n{task_name}: {size}, {first['data']}\n")
        print_table(run_rows(task_name, groups))
        click.echo()
        print_table(ratio_rows(task_name, groups))
        same = [row["differs"] for row in chosen if row["comparison"] == recipes.SAME_RECIPE]
        for difference in dict.fromkeys(same):
            click.echo(f"same recipe except: {difference}")
