"""Write a small, deterministic dataset for a task.

python bin/sample_data.py classification DIR [--seed N]
"""

import json
import os
import shutil
import sys
from pathlib import Path

import click

from visionloop.engine.errors import USER_ERROR, UserError

MARKER = "sample_data.json"
VERSION = 1  # raised when the same seed would give other data


@click.command(
    help="Write the sample data of TASK into DIR, which must not exist, or be empty, or hold just this data already."
)
@click.argument("task")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="other images of the same kind",
)
def command(task, folder, seed):
    from visionloop.datasets.synthetic.writers import WRITERS  # here: `--help` must be quick

    task = task.replace("-", "_")
    if task not in WRITERS:
        raise UserError(
            f"no sample data for task {task!r}; there is {', '.join(sorted(WRITERS))}", field="task"
        )
    wanted = {"task": task, "seed": seed, "version": VERSION}
    try:
        if is_written(folder, wanted):
            click.echo(f"{folder}: the {task} sample data with seed {seed} is already there")
            return
        write(folder, wanted, WRITERS[task])
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}",
            file=str(error.filename or folder),
        ) from None
    click.echo(f"{folder}: wrote the {task} sample data with seed {seed}")


def is_written(folder, wanted):
    """True if the folder holds exactly the wanted data, False if it may be written, UserError if it holds anything else."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise UserError(f"{folder}: exists and is not a folder", file=str(folder))
    if not any(folder.iterdir()):
        return False
    found = read_marker(folder / MARKER)
    if found is None:
        raise UserError(
            f"{folder}: not empty, and not sample data of ours; nothing was written",
            file=str(folder),
        )
    differing = [
        f"{key} {found.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if differing:
        raise UserError(
            f"{folder}: holds sample data with {'; '.join(differing)}; remove it or choose another folder",
            file=str(folder),
        )
    return True


def read_marker(path):
    """The marker's content, or None where there is none of ours."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and "task" in content else None


def write(folder, wanted, writer):
    """Write beside the folder and rename when whole: a killed command leaves no half dataset under its name."""
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.unfinished-{os.getpid()}"
    unfinished.mkdir()
    try:
        writer(unfinished, wanted["seed"])
        (unfinished / MARKER).write_text(json.dumps(wanted) + "\n")
        unfinished.rename(folder)  # takes the place of an empty folder too
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def main():
    try:
        command()
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
