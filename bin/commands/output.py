"""Output folders of commands: written whole, and only where nothing of the user's is replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_folder
from visionloop.engine.errors import UserError


def check_output_folder(output: Path, own_file: str) -> None:
    """Raise a UserError unless the folder may be written.

    It may be absent, empty, or an earlier output of the same command, with `own_file` in it.
    """
    if output.exists() and not output.is_dir():
        why = "is a file, expected a folder"
        raise UserError(f"--output {output}: {why}", field="output", file=str(output))
    if output.is_dir() and any(output.iterdir()) and not (output / own_file).is_file():
        why = f"not empty and not written by this command (no {own_file} in it)"
        raise UserError(f"--output {output}: {why}", field="output", file=str(output))


@contextmanager
def output_folder(output: str | Path, own_file: str) -> Iterator[Path]:
    """Give a new folder to fill, which takes the place of `output` when the block ends well.

    own_file: a file whose presence marks an existing `output` as an earlier one of the same
    command, which may be replaced.
    """
    output = Path(output)
    check_output_folder(output, own_file)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_folder(output) as folder:
        yield folder
