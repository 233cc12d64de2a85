r"""Kill training runs at random moments, in many ways, and prove that they end with the bytes of a run that was left alone.

python bin/soak.py soak/ --kills 50
python bin/soak.py soak/ --task detection --processes 2 --workers 0 --kills 10

Everything lies in the folder: sample data, the undisturbed runs, and the record of all rounds, to
which each call adds.
"""

import itertools
import json
import sys
from pathlib import Path

import click

from visionloop.bin.commands.cli import json_option, run_commands, traceback_option
from visionloop.engine.errors import DEFECT, FINISHED, UserError

TASKS = ("classification", "detection", "segmentation", "super_resolution")
IMAGES = {"train": 24, "val": 2}


@click.command(
    "soak",
    help="Kill runs at random and compare what they end with. FOLDER keeps the record; each call adds to it.",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--task",
    "tasks",
    type=click.Choice(TASKS),
    multiple=True,
    help="default: all four; may be given more than once",
)
@click.option(
    "--processes", type=click.IntRange(1, 8), multiple=True, default=(1, 2), show_default=True
)
@click.option("--workers", type=click.IntRange(0), multiple=True, default=(0, 2), show_default=True)
@click.option(
    "--kills",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="of each combination, those on record included",
)
@click.option("--data", help="data folder of the one task; default: sample data of a few images")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="of the moments; a call that adds to a record goes on from there",
)
@json_option("print the certificate as one json object")
@traceback_option
def command(folder, tasks, processes, workers, kills, data, seed, as_json):
    from visionloop.bin.soaks.certificate import holds, lines_of, make_certificate
    from visionloop.bin.soaks.rounds import Soak
    from visionloop.bin.soaks.runs import Kind
    from visionloop.bin.soaks.small_disk import small_disk

    tasks = tasks or TASKS
    if data and len(tasks) != 1:
        raise UserError("--data: is for one task; name it with --task", field="data")
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        preload(task)
    kinds = [
        Kind(task, *rest, data or sample_data(folder, task))
        for task, *rest in itertools.product(tasks, processes, workers)
    ]
    with small_disk(folder / "runs") as fillable:
        records = kill_until(Soak(folder, seed, fillable=fillable), kinds, kills)
    certificate = make_certificate(records)
    (folder / "certificate.json").write_text(json.dumps(certificate, indent=1) + "\n")
    print(json.dumps(certificate) if as_json else "\n".join(lines_of(certificate)))
    raise SystemExit(FINISHED if holds(certificate) else DEFECT)


def kill_until(soak, kinds, kills):
    """Rounds of each kind in turn, so that a record that is cut short holds of everything. Returns the record's file."""
    from visionloop.bin.soaks.certificate import make_certificate

    def missing_of(kind):
        return kills - make_certificate(soak.records)["by_kind_of_run"].get(kind.name, 0)

    while wanting := [kind for kind in kinds if missing_of(kind) > 0]:
        for kind in wanting:
            record = soak.round(kind, missing_of(kind))
            told = ", ".join(record["differing"]) or "the same bytes"
            stops = sum(start["killed"] for start in record["starts"])
            print(f"{kind.name}: stopped {stops} times, {told}", file=sys.stderr, flush=True)
    return soak.records


def sample_data(folder, task):
    """The folder of the task's sample data, written at the first call."""
    from visionloop.datasets.synthetic.writers import WRITERS

    target = folder / "data" / task
    if not target.exists():
        target.mkdir(parents=True)
        WRITERS[task](target, 0, images=IMAGES)
    return str(target)


def preload(task):
    """Import what a trainee needs, so that a forked one has it. Nothing here may start a thread."""
    import importlib

    import torch.utils.tensorboard

    torch.set_num_threads(1)
    importlib.import_module(f"visionloop.tasks.{task}.task")


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
