"""What a run may change when it goes on, where it starts, and what is resolved once and kept."""

from pathlib import Path

from visionloop.engine.checkpoints.folder import (
    finish_rewrites,
    finish_swap,
    latest_valid,
    problems,
    step_folders,
)
from visionloop.engine.config.options import flag_of
from visionloop.engine.errors import UserError

CALIBRATION_FOLDER = ".calibration"  # the folder, below the run's


def check_output(output):
    """UserError when the folder is not empty and not a run of ours."""
    if output.exists() and not output.is_dir():
        raise UserError(
            f"--output {output}: is a file, expected a folder", file=str(output), field="output"
        )
    if output.is_dir() and not (output / "settings.json").is_file():
        # a start that failed or was killed before it was a run leaves these behind
        ours = (
            ".lock",
            "status.json",
            ".status.json",
            ".settings.json",
            ".environment.json",
            "budget.json",
            ".budget.json",
            CALIBRATION_FOLDER,
        )
        foreign = [path.name for path in output.iterdir() if not path.name.startswith(ours)]
        if foreign:
            why = f"not empty and not a run of ours (found {sorted(foreign)[0]})"
            raise UserError(f"--output {output}: {why}", file=str(output), field="output")


def find_start(output, resume, say):
    """The checkpoint folder to go on from, or None. Policy: 1 this run's newest whole one, 2 --resume, 3 and 4 the task's weights."""
    finish_swap(output / "best")
    finish_rewrites(output / "checkpoints")
    found = latest_valid(output / "checkpoints", say)
    if found is None and step_folders(output / "checkpoints"):
        say(f"{output / 'checkpoints'}: no checkpoint there is whole")
    if found is None and resume:
        found = Path(resume)
        wrong = problems(found)
        if wrong:
            raise UserError(
                f"--resume {found}: not a whole checkpoint ({wrong[0]})",
                file=str(found),
                field="resume",
            )
    return found


def check_unchanged(old, new, folder):
    """UserError naming the first setting that differs from the checkpoint's, old and new value."""
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise UserError(
                f"{flag_of(name)}: the run in {folder} has {old.get(name)}, this command has {new.get(name)}; "
                "a run that continues keeps it (start another with --output)",
                code="changed_setting",
                field=name,
            )
