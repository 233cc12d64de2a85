"""Write a small, deterministic dataset for a task.

python bin/sample_data.py classification DIR [--seed N]
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import click

from visionloop.engine.errors import USER_ERROR, UserError
from visionloop.engine.types import JsonObject

MARKER = "sample_data.json"
SHORT_NAMES = {"instance": "instance_segmentation", "panoptic": "panoptic_segmentation"}
VERSION = 1  # raised when the same seed gives other data


@click.command(
    help="Write the sample data of TASK into DIR, which must be absent, empty, or hold this data."
)
@click.argument("task")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="seed of the images",
)
def command(task: str, folder: Path, seed: int) -> None:
    from visionloop.datasets.synthetic.writers import WRITERS  # here: `--help` must be quick

    task = task.replace("-", "_")
    task = SHORT_NAMES.get(task, task)
    if task not in WRITERS:
        raise UserError(
            f"no sample data for task {task!r}; there is {', '.join(sorted(WRITERS))}", field="task"
        )
    description = {"task": task, "seed": seed, "version": VERSION}
    try:
        if is_written(folder, description):
            click.echo(f"{folder}: the {task} sample data with seed {seed} is already there")
            return
        write(folder, description, WRITERS[task])
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}",
            file=str(error.filename or folder),
        ) from None
    click.echo(f"{folder}: wrote the {task} sample data with seed {seed}")


def is_written(folder: Path, description: JsonObject) -> bool:
    """Return True if the folder holds the described data, False if it may be written.

    Raises UserError if it holds anything else.
    """
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise UserError(f"{folder}: exists and is not a folder", file=str(folder))
    if not any(folder.iterdir()):
        return False
    existing = read_marker(folder / MARKER)
    if existing is None:
        raise UserError(
            f"{folder}: not empty and no sample data; nothing was written",
            file=str(folder),
        )
    differing = [
        f"{key} {existing.get(key)!r}, not {value!r}"
        for key, value in description.items()
        if existing.get(key) != value
    ]
    if differing:
        raise UserError(
            f"{folder}: holds sample data with {'; '.join(differing)}; "
            "remove it or choose another folder",
            file=str(folder),
        )
    return True


def read_marker(path: Path) -> JsonObject | None:
    """Return the content of a marker file, or None if it is not one."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and "task" in content else None


def write(folder: Path, description: JsonObject, writer: Callable[[Path, int], None]) -> None:
    """Write next to the folder and rename: a killed command leaves no incomplete dataset."""
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.unfinished-{os.getpid()}"
    unfinished.mkdir()
    try:
        writer(unfinished, description["seed"])
        (unfinished / MARKER).write_text(json.dumps(description) + "\n")
        unfinished.rename(folder)  # takes the place of an empty folder too
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def main() -> None:
    try:
        command()
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
