"""The start of a run: its folder, its first checkpoint, and settings that must not change."""

import time
from collections.abc import Callable
from pathlib import Path

from visionloop.engine.checkpoints.folder import (
    STEP_FOLDER,
    finish_rewrite,
    finish_rewrites,
    latest_valid,
    problems,
    step_folders,
)
from visionloop.engine.checkpoints.manifest import is_visible
from visionloop.engine.config.options import flag_of
from visionloop.engine.distributed import World, gather_objects
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

CALIBRATION_FOLDER = ".calibration"  # in the folder of the run; removed when it has been measured
# the time for which NFS may keep that a folder is missing, and some more
VISIBLE_SECONDS = 90.0
# what a start that failed or was killed leaves behind before there is a settings.json
OWN_FILES = (
    ".lock",
    "status.json",
    ".status.json",
    ".settings.json",
    ".environment.json",
    "budget.json",
    ".budget.json",
    "micro_batches.json",
    ".micro_batches.json",
    CALIBRATION_FOLDER,
)


def check_output(output: Path) -> None:
    """Raise UserError for a folder that is neither empty nor the folder of a run."""
    if output.exists() and not output.is_dir():
        raise UserError(
            f"--output {output}: is a file, expected a folder", file=str(output), field="output"
        )
    if output.is_dir() and not (output / "settings.json").is_file():
        foreign = [path.name for path in output.iterdir() if not path.name.startswith(OWN_FILES)]
        if foreign:
            raise UserError(
                f"--output {output}: not empty and not the folder of a run (found {min(foreign)})",
                file=str(output),
                field="output",
            )


def find_start(output: Path, resume: str | None, warn: Callable[[str], object]) -> Path | None:
    """Choose the checkpoint folder to resume from, or None.

    In this order: 1 the newest valid checkpoint of this run, 2 --resume; otherwise the task's
    weights are used, 3 those of --model or 4 random ones. Raises UserError for a --resume that is
    not a complete checkpoint.
    """
    finish_rewrite(output / "best")
    checkpoints = output / "checkpoints"
    finish_rewrites(checkpoints)
    folder = latest_valid(checkpoints, warn)
    if folder is None and step_folders(checkpoints):
        warn(f"{checkpoints}: no checkpoint there is complete")
    if folder is None and resume:
        folder = Path(resume)
        if not folder.is_dir():
            why = "is a file" if folder.exists() else "no such folder"
            raise UserError(
                f"--resume {folder}: {why}, expected a checkpoint such as "
                "runs/NAME/checkpoints/step_00000100; to go on with the run in --output, repeat "
                "its command without --resume",
                file=str(folder),
                field="resume",
            )
        damage = problems(folder)
        if damage:
            raise UserError(
                f"--resume {folder}: not a complete checkpoint ({damage[0]})",
                file=str(folder),
                field="resume",
            )
    return folder


def wait_until_visible(world: World, folder: Path) -> None:
    """Wait until every rank sees a checkpoint that the main rank has found. All ranks.

    On a network file system another node may see a new folder up to a minute later.

    Raises:
        UserError: a rank does not see it; on all ranks.
    """
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not (visible := world.is_main or is_visible(folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    blind = [rank for rank, sees in enumerate(gather_objects(world, visible)) if not sees]
    if blind:
        raise UserError(
            f"{folder}: process 0 reads this checkpoint, process {blind[0]} did not see it for "
            f"{VISIBLE_SECONDS:.0f} s; all processes need one file system",
            code="bad_checkpoint",
            file=str(folder),
        )


def branch_text(checkpoint: Path) -> str:
    """Return the RUN@STEP of a checkpoint folder."""
    step = STEP_FOLDER.match(checkpoint.name)
    return f"{checkpoint.parent.parent}@{int(step[1])}" if step else "RUN@STEP"


def check_unchanged(old: JsonObject, new: JsonObject, folder: Path) -> None:
    """Raise UserError for the first setting that differs from the checkpoint's.

    Args:
        old: {name: value} in the checkpoint.
        new: the same of this command.
        folder: the checkpoint, for the message.
    """
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise UserError(
                f"{flag_of(name)}: the run in {folder} has {old.get(name)}, this command has "
                f"{new.get(name)}; a resumed run keeps its value: begin another one from this "
                f"checkpoint with --branch {branch_text(folder)}, or anew with --output",
                code="changed_setting",
                field=name,
            )
