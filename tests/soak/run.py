r"""Kill training runs at random moments and compare what they write with undisturbed runs.

python tests/soak/run.py soak/ --kills 50
python tests/soak/run.py soak/ --task detection --processes 2 --workers 0 --kills 10
python tests/soak/run.py soak/ --task classification --processes 2 --workers 0 --shard full \
    --kills 200

The folder holds sample data, the undisturbed runs and the record of all rounds. Each call adds to
the record, so a call that was interrupted is repeated as it is.
"""

import importlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kill_rounds import KillTest
    from killed_runs import Case

TASKS = (
    "classification",
    "detection",
    "segmentation",
    "instance_segmentation",
    "panoptic_segmentation",
    "super_resolution",
)
IMAGES = {"train": 24, "val": 2}


@click.command(help="Kill training runs in FOLDER and compare their files with undisturbed runs.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--task",
    "tasks",
    type=click.Choice(TASKS),
    multiple=True,
    help="Task to train; may be repeated (default: all four).",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 8),
    multiple=True,
    default=(1, 2),
    show_default=True,
    help="Training processes of a run; may be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    multiple=True,
    default=(0, 2),
    show_default=True,
    help="Data workers of each process; may be repeated.",
)
@click.option(
    "--shard",
    type=click.Choice(("none", "full")),
    default="none",
    show_default=True,
    help="Divide weights, gradients, moments and EMA over the processes of a run.",
)
@click.option(
    "--kills",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Stops of each combination, those on record included.",
)
@click.option("--data", help="Data folder of the one task (default: sample data of a few images).")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of the moments; a call that adds to a record draws other moments.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def main(
    folder: Path,
    tasks: tuple[str, ...],
    processes: tuple[int, ...],
    workers: tuple[int, ...],
    shard: str,
    kills: int,
    data: str | None,
    seed: int,
    as_json: bool,
) -> None:
    tasks = tasks or TASKS
    if data and len(tasks) != 1:
        raise click.UsageError("--data is for one task; name it with --task")
    from kill_report import make_report, passes, report_lines
    from kill_rounds import KillTest
    from killed_runs import Case
    from small_disk import small_disk

    from visionloop.engine.errors import DEFECT, FINISHED

    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        preload(task)
    cases = [
        Case(task, *sizes, data or sample_data(folder, task), shard)
        for task, *sizes in itertools.product(tasks, processes, workers)
    ]
    with small_disk(folder / "runs") as fillable:
        kill_until(KillTest(folder, seed, fillable=fillable), cases, kills)
    report = make_report(folder / "rounds.jsonl")
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    click.echo(json.dumps(report) if as_json else "\n".join(report_lines(report)))
    raise SystemExit(FINISHED if passes(report) else DEFECT)


def kill_until(test: "KillTest", cases: Sequence["Case"], kills: int) -> None:
    """Take a round of each case in turn until each was stopped `kills` times.

    A record that is cut short then covers every case.
    """
    from kill_report import make_report

    def missing(case: "Case") -> int:
        return kills - make_report(test.records)["by_case"].get(case.name, 0)

    while unfinished := [case for case in cases if missing(case) > 0]:
        for case in unfinished:
            record = test.round(case, missing(case))
            stops = sum(start["stopped"] for start in record["starts"])
            result = ", ".join(record["differing"]) or "the same bytes"
            click.echo(f"{case.name}: stopped {stops} times, {result}", err=True)


def sample_data(folder: Path, task: str) -> str:
    """Return the folder of the task's sample data, written at the first call."""
    from visionloop.datasets.synthetic.writers import WRITERS

    target = folder / "data" / task
    if not target.exists():
        target.mkdir(parents=True)
        WRITERS[task](target, 0, images=IMAGES)
    return str(target)


def preload(task: str) -> None:
    """Import what a worker needs, so that a fork has it. Nothing here may start a thread."""
    import torch._dynamo  # by fully_shard
    import torch.utils.tensorboard

    torch.set_num_threads(1)
    importlib.import_module(f"visionloop.tasks.{task}.task")


if __name__ == "__main__":
    main()
