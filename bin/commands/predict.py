"""`predict`, the same for every task: predictions for any number of images in one folder.

Any number of processes share the work, in any number of starts; the folder is the same, byte for
byte.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from torch import nn
from tqdm.auto import tqdm

from visionloop.bin.commands.predict_files import (
    LINES,
    SHEET,
    ImageWriter,
    PredictionRows,
    write_sheets,
)
from visionloop.bin.commands.predict_resume import (
    UnfinishedPredictions,
    fingerprint_of_model,
    unfinished_folder,
)
from visionloop.engine.checkpoints.writer import is_disk_error
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.distributed import (
    World,
    barrier,
    broadcast_object,
    is_lost_process,
    join_world,
    leave_world,
    lost_process_reason,
)
from visionloop.engine.errors import FINISHED, STOPPED, USER_ERROR, LostProcess, UserError
from visionloop.engine.logging.console import is_watched
from visionloop.engine.predict import num_batches, places_in, predict_batch, read_batches
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject
from visionloop.tasks.input_images import find_images, fingerprint

RESUMES = "the same command resumes"


@dataclass(frozen=True)
class PredictOptions:
    """The options of `predict`.

    explanations: kinds of `Task.explain` that are drawn; settings: {name: value} of the task's own,
    for `Task.load_trained`; images: False leaves out images/ and its contact sheet.
    """

    model: str | Path
    input_path: str | Path
    output: str | Path
    batch_size: int
    device: str | None
    as_json: bool
    explanations: Sequence[str]
    settings: JsonObject
    workers: int = 0
    images: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of drawn images: "images" and those of `Task.explain`."""
        return ("images",) * self.images + tuple(self.explanations)


class ProgressReporter:
    """Progress bar, lines of --json in input order, and errors of unreadable images.

    The lines of a batch are reported once all batches before it are done, whichever process and
    start has predicted it. root: folder of the images; silent: for all ranks but the main one.
    """

    def __init__(
        self,
        unfinished: UnfinishedPredictions,
        root: Path,
        num_images: int,
        *,
        as_json: bool,
        silent: bool,
    ) -> None:
        self.unfinished, self.root, self.as_json, self.silent = unfinished, root, as_json, silent
        self.num_batches = self.num_unreadable = 0  # reported so far
        self._bar = tqdm(
            total=num_images,
            desc="predicting",
            unit="img",
            disable=silent or not is_watched(),
            leave=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Report the batches that were finished since the last call."""
        while not self.silent and self.num_batches < self.unfinished.num_batches:
            try:
                self.report_file(self.unfinished.lines_of(self.num_batches))
            except FileNotFoundError:
                return
            self.num_batches += 1

    def report_file(self, path: Path) -> None:
        """Report every line of a file."""
        with open(path) as lines:
            for line in lines:
                if self.as_json:
                    print(line, end="")
                # within a text the quotes would be escaped
                row = json.loads(line) if '"error": ' in line else {}
                if "error" in row:
                    self.num_unreadable += 1
                    tqdm.write(f"error: {self.root / row['file']}: {row['error']}", file=sys.stderr)
                self._bar.update()


@dataclass(frozen=True)
class PredictJob:
    """A loaded model, the images to predict and the folder to write.

    names: of the image files below `root`, in order; kinds: of drawn images.
    """

    task: Task
    module: nn.Module
    root: Path
    names: list[str]
    batch_size: int
    kinds: tuple[str, ...]
    world: World
    unfinished: UnfinishedPredictions


def run_predict(task_class: type[Task], options: PredictOptions) -> int:
    """Write predictions.jsonl, the task's own files, images/, contact sheets and explanations.

    All ranks. Predictions that are images are written to folders that the task names, as PNG. An
    image that cannot be read is named on stderr and has a line {"file", "error"}. Returns the exit
    code: 2 with an unreadable image, 75 after a stop, when the same call resumes.
    """
    stop = StopFlag(ends_process=True)
    stop.install()
    if options.workers:
        # before the process group, whose threads a worker must not be forked beside
        start_fork_server()
    unfinished = None
    try:
        job = prepare_job(task_class, options)
        unfinished, silent = job.unfinished, not job.world.is_main
        numbers = begin(job)
        with ProgressReporter(
            unfinished, job.root, len(job.names), as_json=options.as_json, silent=silent
        ) as reporter:
            predict_batches(job, numbers, reporter, workers=options.workers, stop=stop)
            return end(job, reporter)
    except Exception as error:
        explained = explain_error(error, options.output)
        raise explained from (None if explained is error else error)
    finally:
        if unfinished:
            unfinished.release()
        leave_world(failed=sys.exc_info()[0] is not None)
        stop.uninstall()


def prepare_job(task_class: type[Task], options: PredictOptions) -> PredictJob:
    """Join the process group, find the images and load the model. All ranks."""
    world = join_world(options.device)
    output = options.output
    own_folders = (os.path.abspath(output), str(unfinished_folder(output)))
    warn = partial(print, "warning:", file=sys.stderr) if world.is_main else None
    root, names = find_images(str(options.input_path), without=own_folders, warn=warn)
    task, module = task_class.load_trained(options.model, **options.settings)
    if world.is_main:
        for note in task.prediction_notes():
            print(note, file=sys.stderr)
    # what decides the predictions: nothing else may resume them
    inputs = {
        "task": task.name,
        "model": fingerprint_of_model(options.model),
        "input": fingerprint(root, names),
        "batch_size": options.batch_size,
        "images": options.images,
        "explanations": sorted(options.explanations),
        **options.settings,
    }
    unfinished = UnfinishedPredictions(output, inputs, num_batches(len(names), options.batch_size))
    return PredictJob(
        task=task,
        module=module.to(world.device),
        root=root,
        names=names,
        batch_size=options.batch_size,
        kinds=options.kinds,
        world=world,
        unfinished=unfinished,
    )


def begin(job: PredictJob) -> list[int]:
    """Return the number of each batch that is not predicted yet. All ranks.

    Raises on all ranks the UserError of the main one, about a folder it may not write to.
    """
    result: list[int] | UserError = []
    if job.world.is_main:
        try:
            result = job.unfinished.begin()
        except UserError as error:
            result = error
    result = broadcast_object(job.world, result)
    if isinstance(result, UserError):
        raise result
    folder = job.unfinished.display_path
    if not job.unfinished.folder.exists():
        why = "rank 0 made this folder and this process does not see it: all need one file system"
        raise UserError(f"--output {folder}: {why}", field="output", file=str(folder))
    done = len(job.names) - count_images(job, result)
    if done and job.world.is_main:
        print(f"resuming: {done} of {len(job.names)} images are done, in {folder}", file=sys.stderr)
    return result


def count_images(job: PredictJob, numbers: Iterable[int]) -> int:
    """Return the number of images in these batches."""
    return sum(len(places_in(number, job.batch_size, len(job.names))) for number in numbers)


def predict_batches(
    job: PredictJob,
    numbers: Iterable[int],
    reporter: ProgressReporter,
    *,
    workers: int,
    stop: StopFlag,
) -> None:
    """Predict the batches that no other rank takes. All ranks; each ends at a batch border."""
    writer, unfinished = ImageWriter(job.unfinished.predictions, job.names), job.unfinished
    if job.world.size > 1:
        numbers = filter(unfinished.claim, numbers)
    batches = read_batches(
        job.task,
        job.root,
        job.names,
        batch_size=job.batch_size,
        numbers=numbers,
        workers=workers,
        stop=stop,
    )
    for batch in batches:
        predicted = predict_batch(
            job.task, job.module, batch, job.root, job.names, job.world.device, kinds=job.kinds
        )
        writer.write(predicted)
        unfinished.write(batch.number, predicted.rows)
        reporter.advance()


def end(job: PredictJob, reporter: ProgressReporter) -> int:
    """Complete the folder if every batch is predicted. All ranks. Returns the exit code."""
    barrier(job.world)
    unfinished, total = job.unfinished, len(job.names)
    missing = broadcast_object(job.world, unfinished.missing() if job.world.is_main else [])
    if missing:
        done = total - count_images(job, missing)
        if job.world.is_main:
            where = f"in {unfinished.display_path}; {RESUMES}"
            print(f"stopped: {done} of {total} images are done, {where}", file=sys.stderr)
        return STOPPED
    if not job.world.is_main:
        return FINISHED
    if not unfinished.is_in_place:
        reporter.advance()
        unfinished.join_lines()
        job.task.write_predictions(
            unfinished.predictions, PredictionRows(unfinished.predictions / LINES)
        )
        write_sheets(unfinished.predictions, job.kinds, job.task.sheet_side)
    else:
        reporter.report_file(unfinished.output / LINES)
    unfinished.finish()
    files = [unfinished.output / LINES, unfinished.output / SHEET]
    written = ", ".join(str(path) for path in files if path.exists())
    done = total - reporter.num_unreadable
    print(f"predicted {done} of {total} images: {written}", file=sys.stderr)
    return USER_ERROR if reporter.num_unreadable else FINISHED


def explain_error(error: Exception, output: str | Path) -> Exception:
    """Return an error of the disk or of a lost process as one line; any other error as it is."""
    if is_disk_error(error, Path(os.path.abspath(output))):
        assert isinstance(error, OSError)
        why = f"cannot write ({error.strerror}); no prediction is lost: free some space, {RESUMES}"
        return UserError(
            f"--output {output}: {why}", code="cannot_write", file=str(output), field="output"
        )
    if is_lost_process(error):
        reason = lost_process_reason(error)
        why = f"another process is gone or does not respond ({reason}); {RESUMES}"
        return LostProcess(why, code="lost_process")
    return error
