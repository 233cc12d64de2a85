"""Answers on their way: `<output>.part`, in which the same command goes on, until it takes the place of `<output>`.

    answers.part/progress.json        what decides the answers: model, images, settings. A command
    with others is refused. answers.part/batches/00000012     the lines of a batch, written when its
    images are; with it the batch is done answers.part/begun/00000012       a process has taken
    this batch; only with several, and only while they run answers.part/answers/             what
    becomes the output

A batch is a slice of the sorted list, and what is said of it depends on nothing else: any number of
processes may go on.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from visionloop.bin.commands.output import check_own
from visionloop.bin.commands.predict_files import LINES
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.config.options import flag_of
from visionloop.engine.errors import UserError

PROGRESS, SCHEMA = "progress.json", 1


def fingerprint_of_model(folder):
    """Of the files that a model is read from: its configuration and weights, not its card."""
    digest = hashlib.sha256()
    for path in sorted(
        path for path in Path(folder).iterdir() if path.suffix in (".json", ".safetensors", ".txt")
    ):
        with open(path, "rb") as file:
            digest.update(
                f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode()
            )
    return digest.hexdigest()


def folder_of(output):
    """Absolute path of the folder above for an --output."""
    whole = Path(os.path.abspath(output))
    return whole.with_name(f"{whole.name}.part")


class UnfinishedPredictions:
    """The folder above. facts: {name: json-able value} of what decides the answers; num_batches: that they consist of."""

    def __init__(self, output, facts, num_batches):
        self.output, self.facts, self.num_batches = (
            Path(output),
            facts | {"schema": SCHEMA},
            num_batches,
        )
        self.folder = folder_of(output)
        self.shown = self.output.with_name(self.folder.name)
        self.answers, self.batches, self.begun = (
            self.folder / name for name in ("answers", "batches", "begun")
        )
        self._lock = None

    @property
    def is_in_place(self):
        """Whether the answers have become the output: then only this folder is to be removed."""
        return not self.answers.exists()

    # main process --------------------
    def begin(self):
        """Make the folder, or find what is in it: [number of each batch that is still to be answered].

        Raises UserError for a folder that is not ours, one of other answers, and one that another
        process works in.
        """
        check_own(self.output, LINES)
        stored = self._read_progress()
        self._lock = RunLock(self.folder)
        if stored is not None and stored != self.facts and self.is_in_place:
            self.remove()  # other answers, which are whole: they only were not cleared away
            self._lock, stored = RunLock(self.folder), None
        if stored is None:
            for folder in (self.answers, self.batches):
                folder.mkdir(exist_ok=True)
            replace_file(
                self.folder / PROGRESS, json.dumps(self.facts, indent=1, sort_keys=True) + "\n"
            )
        elif stored != self.facts:
            self._refuse(stored)
        shutil.rmtree(self.begun, ignore_errors=True)
        self.begun.mkdir(exist_ok=True)
        return self.missing()

    def _read_progress(self):
        """The facts of what is in the folder, None where there is nothing yet."""
        try:
            return json.loads((self.folder / PROGRESS).read_text())
        except FileNotFoundError:
            if not self.folder.exists() or all(
                self._is_from_start(path) for path in self.folder.iterdir()
            ):
                return None
        except (OSError, ValueError):
            pass
        why = f"{self.shown} is in the way: it does not hold unfinished answers of this command (no readable {PROGRESS} in it)"
        raise UserError(f"--output {self.output}: {why}", field="output", file=str(self.shown))

    def _is_from_start(self, path):
        """Whether a start that was cut short may have left this: its empty folders, its lock, half a progress.json."""
        return path.name.startswith(".") or (
            path in (self.answers, self.batches) and path.is_dir() and not any(path.iterdir())
        )

    def _refuse(self, stored):
        known = ("schema", "task", "model", "input", "images")
        words = {
            "schema": "version of visionloop",
            "images": "choice of --no-images",
            "explanations": "kind of drawing",
        }
        names = [name for name in known if stored.get(name) != self.facts.get(name)]
        names += sorted(
            name
            for name in {*stored, *self.facts} - {*known}
            if stored.get(name) != self.facts.get(name)
        )
        other = ", ".join(words.get(name, flag_of(name)) for name in names)
        why = f"{self.shown} holds unfinished answers with another {other}; go on with that command, or remove this folder to begin anew"
        raise UserError(f"--output {self.output}: {why}", field="output", file=str(self.shown))

    def missing(self):
        """[number of each batch without lines]. An empty file is what a machine that went down may leave."""
        if self.is_in_place:
            return []
        done = {entry.name for entry in os.scandir(self.batches) if entry.stat().st_size}
        return [
            number for number in range(self.num_batches) if self.lines_of(number).name not in done
        ]

    def join_lines(self):
        """All lines in the order of the list, as predictions.jsonl. No batch is missing."""
        with open(self.answers / LINES, "wb") as whole:
            for number in range(self.num_batches):
                whole.write(self.lines_of(number).read_bytes())

    def finish(self):
        """Put the answers in their place, instead of earlier ones. Cut short anywhere, the same command ends it."""
        if not self.is_in_place:
            replaced = self.folder / "replaced"
            if self.output.exists():
                self.output.rename(replaced)
            shutil.rmtree(replaced, ignore_errors=True)
            self.answers.rename(self.output)
        self.remove()

    def remove(self):
        """The folder with all in it, progress.json last: half a removal is still ours."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        self.release()
        for name in (".lock", PROGRESS):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def release(self):
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # any process --------------------
    def lines_of(self, number):
        """Path of the lines of a batch."""
        return self.batches / f"{number:08d}"

    def take(self, number):
        """Whether this process is the first to take the batch. By a file, which any shared file system makes once."""
        try:
            os.close(os.open(self.begun / f"{number:08d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def write(self, number, rows):
        """The lines of a batch whose images are written: it is done."""
        replace_file(self.lines_of(number), "".join(json.dumps(row) + "\n" for row in rows))
