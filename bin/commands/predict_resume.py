"""Unfinished predictions: `OUTPUT.part`, in which the same command resumes until it becomes OUTPUT.

    out.part/progress.json      the inputs of the predictions: model, images, settings. A command
                                with others is refused
    out.part/batches/00000012   the lines of a batch, written after its images: the batch is done
    out.part/claimed/00000012   a process works on this batch; only with several, while they run
    out.part/predictions/       the content of the output

A batch is a slice of the sorted list of images, and its predictions depend on nothing else, so any
number of processes may resume.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from visionloop.bin.commands.output import check_output_folder
from visionloop.bin.commands.predict_files import LINES
from visionloop.engine.checkpoints.files import move_folder, replace_file
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.config.options import flag_of
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

PROGRESS, SCHEMA = "progress.json", 1
# inputs that have no flag of their own
INPUT_NAMES = {
    "schema": "version of visionloop",
    "images": "choice of --no-images",
    "explanations": "kind of drawing",
}
FIRST_INPUTS = ("schema", "task", "model", "input", "images")  # named first in messages


def fingerprint_of_model(folder: str | Path) -> str:
    """Hash the files that a model is read from: its configuration and weights, not its card."""
    digest = hashlib.sha256()
    suffixes = (".json", ".safetensors", ".txt")
    for path in sorted(path for path in Path(folder).iterdir() if path.suffix in suffixes):
        with open(path, "rb") as file:
            file_hash = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{file_hash}\0".encode())
    return digest.hexdigest()


def unfinished_folder(output: str | Path) -> Path:
    """Return the absolute path of OUTPUT.part."""
    path = Path(os.path.abspath(output))
    return path.with_name(f"{path.name}.part")


class UnfinishedPredictions:
    """The folder OUTPUT.part.

    inputs: {name: json value} of all that decides the predictions; num_batches: of the whole list.
    """

    def __init__(self, output: str | Path, inputs: JsonObject, num_batches: int) -> None:
        self.output, self.num_batches = Path(output), num_batches
        self.inputs = inputs | {"schema": SCHEMA}
        self.folder = unfinished_folder(output)
        self.display_path = self.output.with_name(self.folder.name)  # for messages
        self.predictions = self.folder / "predictions"
        self.batches = self.folder / "batches"
        self.claimed = self.folder / "claimed"
        self._lock: RunLock | None = None

    @property
    def is_in_place(self) -> bool:
        """True when the predictions have become the output: only this folder is to be removed."""
        return not self.predictions.exists()

    # main process --------------------
    def begin(self) -> list[int]:
        """Make the folder, or read it, and return the number of each batch that is not done.

        Raises UserError for a folder that is not ours, one of other predictions, and one that
        another process works in.
        """
        check_output_folder(self.output, LINES)
        stored = self._read_progress()
        self._lock = RunLock(self.folder)
        if stored is not None and stored != self.inputs and self.is_in_place:
            self.remove()  # other predictions, which are complete and in their place
            self._lock, stored = RunLock(self.folder), None
        if stored is None:
            for folder in (self.predictions, self.batches):
                folder.mkdir(exist_ok=True)
            content = json.dumps(self.inputs, indent=1, sort_keys=True) + "\n"
            replace_file(self.folder / PROGRESS, content)
        elif stored != self.inputs:
            self._refuse(stored)
        shutil.rmtree(self.claimed, ignore_errors=True)
        self.claimed.mkdir(exist_ok=True)
        return self.missing()

    def _read_progress(self) -> JsonObject | None:
        """Return the inputs of the predictions in the folder, None where there are none yet."""
        try:
            content: JsonObject = json.loads((self.folder / PROGRESS).read_text())
            return content
        except FileNotFoundError:
            if not self.folder.exists() or all(map(self._is_from_start, self.folder.iterdir())):
                return None
        except (OSError, ValueError):
            pass
        why = (
            f"{self.display_path} is in the way: it holds no unfinished predictions of this "
            f"command (no readable {PROGRESS} in it)"
        )
        raise UserError(
            f"--output {self.output}: {why}", field="output", file=str(self.display_path)
        )

    def _is_from_start(self, path: Path) -> bool:
        """True for what a start that was cut short leaves: empty folders, a lock, half a file."""
        own_folders = (self.predictions, self.batches)
        empty = path in own_folders and path.is_dir() and not any(path.iterdir())
        return path.name.startswith(".") or empty

    def _refuse(self, stored: JsonObject) -> None:
        """Raise the UserError of predictions with other inputs."""
        names = [*FIRST_INPUTS, *sorted({*stored, *self.inputs} - {*FIRST_INPUTS})]
        changed = [name for name in names if stored.get(name) != self.inputs.get(name)]
        other = ", ".join(INPUT_NAMES.get(name, flag_of(name)) for name in changed)
        why = (
            f"{self.display_path} holds unfinished predictions with another {other}; repeat that "
            "command to resume them, or remove this folder to start again"
        )
        raise UserError(
            f"--output {self.output}: {why}", field="output", file=str(self.display_path)
        )

    def missing(self) -> list[int]:
        """Return the number of each batch that is not done.

        An empty file does not count: a machine that went down may leave it.
        """
        if self.is_in_place:
            return []
        done = {entry.name for entry in os.scandir(self.batches) if entry.stat().st_size}
        numbers: Sequence[int] = range(self.num_batches)
        return [number for number in numbers if self.lines_of(number).name not in done]

    def join_lines(self) -> None:
        """Write all lines, in the order of the list, as predictions.jsonl. No batch is missing."""
        with open(self.predictions / LINES, "wb") as joined:
            for number in range(self.num_batches):
                joined.write(self.lines_of(number).read_bytes())

    def finish(self) -> None:
        """Move the predictions to the output, in place of earlier ones.

        Where it is cut short, the same command completes it.
        """
        if not self.is_in_place:
            move_folder(self.predictions, self.output, trash=self.folder / "replaced")
        self.remove()

    def remove(self) -> None:
        """Remove the folder, progress.json last: half a removal is still recognised as ours."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        self.release()
        for name in (".lock", PROGRESS):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def release(self) -> None:
        """Release the lock of the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # any process --------------------
    def lines_of(self, number: int) -> Path:
        """Return the path of the lines of a batch."""
        return self.batches / f"{number:08d}"

    def claim(self, number: int) -> bool:
        """Return True in the first process that claims the batch.

        By a file, which any shared file system makes once.
        """
        try:
            path = self.claimed / f"{number:08d}"
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def write(self, number: int, rows: Sequence[JsonObject]) -> None:
        """Write the lines of a batch whose images are written: it is done."""
        replace_file(self.lines_of(number), "".join(json.dumps(row) + "\n" for row in rows))
