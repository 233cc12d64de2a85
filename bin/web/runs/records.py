"""Records of evaluations and their images, read from the folder of a run alone."""

import errno
import os
import re
import stat
from io import BufferedReader
from pathlib import Path

from visionloop.bin.reports.records import RECORD, media_type_of
from visionloop.bin.reports.run_folder import read_object
from visionloop.bin.web.problems import Problem
from visionloop.engine.types import JsonObject

EVALUATIONS = "evaluations"
MAX_IMAGE_BYTES = 16 << 20
STEP_FOLDER = re.compile(r"step_([0-9]{1,15})$", re.ASCII)


def step_of(name: str) -> int | None:
    """Return the step of the folder of an evaluation, None for another name."""
    match = STEP_FOLDER.match(name)
    return int(match[1]) if match else None


def evaluated_steps(run: Path) -> list[int]:
    """Return the steps with a record."""
    try:
        names = os.listdir(run / EVALUATIONS)
    except OSError:
        return []
    return sorted(step for name in names if (step := step_of(name)) is not None)


def evaluation_folder(run: Path, step: int) -> Path:
    """Return the folder of an evaluation. Raises Problem (404) without one, and for a link."""
    parent = run / EVALUATIONS
    folder = parent / f"step_{step:08d}"
    if parent.is_symlink() or folder.is_symlink() or not folder.is_dir():
        raise Problem(
            404,
            "no_evaluation",
            f"step {step}: no record of an evaluation",
            field="step",
            hint="GET /api/v1/runs/{id} lists the steps of the evaluations",
        )
    return folder


def read_record(run: Path, step: int) -> JsonObject:
    """Return a record. Raises Problem (404) without a readable one."""
    folder, notes = evaluation_folder(run, step), list[str]()
    record = read_object(folder / RECORD, notes)
    if notes:
        raise Problem(404, "no_evaluation", f"step {step}: {notes[0]}", field="step")
    return record


def read_image(run: Path, step: int, name: str) -> tuple[bytes, str]:
    """Return (content, media type) of an image of an evaluation.

    Raises Problem (404) for a name that is no image in the folder of the record, links included.
    """
    folder = evaluation_folder(run, step)
    media_type = None if "\0" in name else media_type_of(folder, name)
    if media_type is None:
        raise Problem(404, "no_image", "not an image of this record", field="name")
    return read_regular_file(folder / name, MAX_IMAGE_BYTES), media_type


def read_regular_file(path: Path, most: int) -> bytes:
    """Read a file. Raises Problem: 404 for a link and what is no file, 413 above `most` bytes."""
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except OSError:
        raise Problem(404, "no_image", "no such image", field="name") from None
    if len(content) > most:
        raise Problem(413, "too_large", f"image: more than {most} bytes", field="name")
    return content


def open_regular(path: Path) -> BufferedReader:
    """Open a file. Raises OSError for a link, a folder, a pipe or a device."""
    # without blocking: a pipe would wait for its other end
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")
