"""`predict`, the same for every task: any number of images into one folder, by any number of processes, in any number of starts."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from visionloop.bin.commands.predict_files import (
    LINES,
    SHEET,
    ImageFiles,
    PredictionWriter,
    write_sheets,
)
from visionloop.bin.commands.predict_resume import (
    UnfinishedPredictions,
    fingerprint_of_model,
    folder_of,
)
from visionloop.engine.checkpoints.writer import is_disk_error
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.distributed import (
    World,
    barrier,
    broadcast_object,
    join_world,
    leave_world,
    lost_process,
    lost_why,
)
from visionloop.engine.errors import FINISHED, STOPPED, USER_ERROR, LostProcess, UserError
from visionloop.engine.logging.console import is_watched
from visionloop.engine.predict import answer, num_batches, places_in, read_batches
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.tasks.input_images import find_images, fingerprint

# What `predict` says while it works: its bar, the lines in input order, the images that cannot be
# read.


class Told:
    """Tells the lines of each batch once all before it are done, whoever answered it and in whichever start.

    unfinished: an UnfinishedPredictions; root: of the images; silent: in all processes but one.
    """

    def __init__(self, unfinished, root, num_images, *, as_json, silent):
        self.unfinished, self.root, self.as_json, self.silent = unfinished, root, as_json, silent
        self.batches = self.unreadable = 0  # told so far
        self._bar = tqdm(
            total=num_images,
            desc="predicting",
            unit="pic",
            disable=silent or not is_watched(),
            leave=False,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def advance(self):
        """Tell what is done since the last call."""
        while not self.silent and self.batches < self.unfinished.num_batches:
            try:
                self.tell_file(self.unfinished.lines_of(self.batches))
            except FileNotFoundError:
                return
            self.batches += 1

    def tell_file(self, path):
        """Tell the lines of a file."""
        with open(path) as lines:
            for line in lines:
                if self.as_json:
                    print(line, end="")
                row = (
                    json.loads(line) if '"error": ' in line else {}
                )  # within a text the quotes would be escaped
                if "error" in row:
                    self.unreadable += 1
                    tqdm.write(f"error: {self.root / row['file']}: {row['error']}", file=sys.stderr)
                self._bar.update()


@dataclass(frozen=True)
class Work:
    """What is to be answered, by whom, and where to. kinds: of drawn images, "images" and those of `Task.explain`."""

    task: Task
    module: torch.nn.Module
    root: Path
    names: list
    batch_size: int
    kinds: tuple
    world: World
    unfinished: UnfinishedPredictions


def run_predict(
    task_class,
    *,
    model,
    input_path,
    output,
    batch_size,
    device,
    as_json,
    explanations,
    settings,
    workers=0,
    images=True,
):
    """Write predictions.jsonl, the task's own files, images/, contact_sheet.png and a folder per explanation. Returns the exit code.

    Where answers are images themselves, they lie in folders of the task's naming, as PNG.
    settings: {name: value} of the task's own, for `Task.load_trained`; images: False leaves out
    images/ and its sheet. All ranks.

    An image that cannot be read is named on stderr and has a line {"file", "error"}; the others go
    on, and the exit code is 2. After a stop it is 75, and the same call goes on.
    """
    stop = StopFlag(ends_process=True)
    stop.install()
    if workers:
        # before the process group, whose threads a worker must not be forked beside
        start_fork_server()
    unfinished = None
    try:
        world = join_world(device)
        root, names = find_images(
            input_path, without=(os.path.abspath(output), str(folder_of(output)))
        )
        task, module = task_class.load_trained(model, **settings)
        kinds = ("images",) * images + tuple(explanations)
        facts = {
            "task": task.name,
            "model": fingerprint_of_model(model),
            "input": fingerprint(root, names),
        }
        facts |= {
            "batch_size": batch_size,
            "images": images,
            "explanations": sorted(explanations),
            **settings,
        }
        unfinished = UnfinishedPredictions(output, facts, num_batches(len(names), batch_size))
        work = Work(
            task, module.to(world.device), root, names, batch_size, kinds, world, unfinished
        )
        numbers = begin(work)
        with Told(unfinished, root, len(names), as_json=as_json, silent=not world.is_main) as told:
            predict_batches(work, numbers, told, workers=workers, stop=stop)
            return end(work, told)
    except Exception as error:
        plain = explained(error, output)
        raise plain from (None if plain is error else error)
    finally:
        if unfinished:
            unfinished.release()
        leave_world()
        stop.uninstall()


def begin(work):
    """[number of each batch to answer]. All ranks. Raises on all what the main rank finds wrong with the folder."""
    found = None
    if work.world.is_main:
        try:
            found = work.unfinished.begin()
        except UserError as error:
            found = error
    found = broadcast_object(work.world, found)
    if isinstance(found, UserError):
        raise found
    if not work.unfinished.folder.exists():
        why = "this process does not see the folder that the first one made; all need the same file system"
        raise UserError(
            f"--output {work.unfinished.shown}: {why}",
            field="output",
            file=str(work.unfinished.shown),
        )
    done = len(work.names) - count_in(work, found)
    if done and work.world.is_main:
        print(
            f"going on: {done} of {len(work.names)} images are answered already, in {work.unfinished.shown}",
            file=sys.stderr,
        )
    return found


def count_in(work, numbers):
    """The images of these batches."""
    return sum(len(places_in(number, work.batch_size, len(work.names))) for number in numbers)


def predict_batches(work, numbers, told, *, workers, stop):
    """Answer the batches that no other rank takes. All ranks; each ends when none is left, or at a batch border after a stop."""
    files, unfinished = ImageFiles(work.unfinished.answers, work.names), work.unfinished
    if work.world.size > 1:
        numbers = filter(unfinished.take, numbers)
    reads = read_batches(
        work.task,
        work.root,
        work.names,
        batch_size=work.batch_size,
        numbers=numbers,
        workers=workers,
        stop=stop,
    )
    for read in reads:
        answers = answer(
            work.task, work.module, read, work.root, work.names, work.world.device, kinds=work.kinds
        )
        files.write(answers)
        unfinished.write(read.number, answers.rows)
        told.advance()


def end(work, told):
    """Put the folder together and in its place, if all is answered. All ranks. Returns the exit code."""
    barrier(work.world)
    unfinished, total = work.unfinished, len(work.names)
    left = broadcast_object(work.world, unfinished.missing() if work.world.is_main else None)
    if left:
        done = total - count_in(work, left)
        if work.world.is_main:
            print(
                f"stopped: {done} of {total} images are answered, in {unfinished.shown}; the same command goes on",
                file=sys.stderr,
            )
        return STOPPED
    if not work.world.is_main:
        return FINISHED
    if not unfinished.is_in_place:
        told.advance()
        unfinished.join_lines()
        work.task.write_predictions(
            unfinished.answers, PredictionWriter(unfinished.answers / LINES)
        )
        write_sheets(unfinished.answers, work.kinds, work.task.sheet_side)
    else:
        told.tell_file(unfinished.output / LINES)
    unfinished.finish()
    sheets = [
        path for path in (unfinished.output / LINES, unfinished.output / SHEET) if path.exists()
    ]
    print(
        f"{total - told.unreadable} of {total} images answered: {', '.join(map(str, sheets))}",
        file=sys.stderr,
    )
    return USER_ERROR if told.unreadable else FINISHED


def explained(error, output):
    """The one line for what the machine is to blame for, as an error to raise; any other error as it is."""
    if is_disk_error(error, os.path.abspath(output)):
        why = f"cannot write ({error.strerror}); what is answered is kept: once there is room, the same command goes on"
        return UserError(
            f"--output {output}: {why}", code="cannot_write", file=str(output), field="output"
        )
    if lost_process(error):
        why = f"another process is gone or does not answer ({lost_why(error)}); the same command goes on with what is not answered yet"
        return LostProcess(why, code="lost_process")
    return error
