"""Output folders that are written whole: beside, then renamed. A folder that is not our own is never touched."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from visionloop.engine.errors import UserError


def check_own(output, mark):
    """Raises UserError unless the folder is absent, empty, or our own earlier work, which has a file `mark` in it."""
    if output.exists() and not output.is_dir():
        raise UserError(
            f"--output {output}: is a file, expected a folder", field="output", file=str(output)
        )
    if output.is_dir() and any(output.iterdir()) and not (output / mark).is_file():
        raise UserError(
            f"--output {output}: not empty and not written by this command (no {mark} in it)",
            field="output",
            file=str(output),
        )


@contextmanager
def whole_folder(output, mark):
    """A new folder to fill; it takes the place of `output` when the block ends well.

    mark: a file whose presence tells that an existing `output` is our own earlier work and may be
    replaced.
    """
    output = Path(output)
    check_own(output, mark)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield part
        part.chmod(0o777 & ~_umask())  # mkdtemp makes it private
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if output.is_dir():
        shutil.rmtree(output)
    part.rename(output)


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current
