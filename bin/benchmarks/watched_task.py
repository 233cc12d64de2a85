"""A trained task as `predict` asks for one, with a clock at the borders of its work."""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from visionloop.bin.benchmarks.turns import synchronised
from visionloop.bin.commands.predict import run_predict
from visionloop.bin.commands.predict_files import LINES, PredictionWriter
from visionloop.engine.distributed import pick_device
from visionloop.engine.precision import build_precision
from visionloop.tasks.super_resolution.result_images import RESULTS


class Batch(NamedTuple):
    """Clock times in seconds: the first file is opened, the network begins, it is done, the answers are written."""

    began: float
    read: float
    answered: float
    written: float


class WatchedTask:
    """What `run_predict` takes for a task class: it loads what is loaded already. Hangs on the socket, so `run_predict` is run as it is.

    folder: of `predict --model`; settings: of the task's own, see `Task.load_trained`.
    """

    def __init__(self, task_class, folder, device_name, settings):
        self.folder, self.device_name, self.device = (
            str(folder),
            device_name,
            pick_device(device_name),
        )
        self.task, self.module = task_class.load_trained(self.folder, **settings)
        self.sheet_side = self.task.sheet_side
        self._read, self._predict, self._write = (
            self.task.read_sample,
            self.task.predict,
            self.task.write_predictions,
        )
        self.task.read_sample, self.task.predict, self.task.write_predictions = (
            self.read_sample,
            self.predict,
            self.write_predictions,
        )
        self._forward, self.module.forward = self.module.forward, self.forward
        self.marks, self.inputs, self.precision = [], 0, None

    def load_trained(self, folder):
        return self.task, self.module

    def run(self, images, output, batch_size, precision):
        """A run of `predict`: (exit code, [Batch], seconds but for the loading, inputs of the network: windows and tiles count)."""
        self.marks, self.inputs, self.precision = [], 0, build_precision(precision, self.device)
        began = synchronised(self.device)
        with redirect_stderr(io.StringIO()):  # its bar and its last line
            code = run_predict(
                self, model=self.folder, input_path=images, output=output, batch_size=batch_size, device=self.device_name, as_json=False,
                explanations=(), settings={},
            )  # fmt: skip
        seconds = synchronised(self.device) - began
        *marks, (end,) = self.marks
        ends = [mark[0] for mark in (*marks[1:], (end,))]
        batches = [
            Batch(*mark, written)
            for mark, written in zip(marks, ends, strict=True)
            if len(mark) == 3
        ]  # else no file was readable
        return code, batches, seconds, self.inputs

    def read_sample(self, path):
        if not self.marks or len(self.marks[-1]) == 3:  # the first of a batch
            self.marks.append([synchronised(self.device)])
        return self._read(path)

    def predict(self, module, batch):
        self.marks[-1].append(synchronised(self.device))
        predictions = self._predict(module, batch)
        self.marks[-1].append(synchronised(self.device))
        return predictions

    def write_predictions(self, folder, answers):
        self.marks.append([synchronised(self.device)])
        self._write(folder, answers)

    def forward(self, *args, **named):
        self.inputs += len(args[0] if args else named["pixel_values"])
        with (
            self.precision.autocast()
        ):  # around the network alone: what is made of its answers is fp32 in any precision
            return self._forward(*args, **named)


def results_of(output):
    """([result of each image, uint8 array], whether every one is the whole image's) of super-resolution."""
    names = sorted(path for path in (Path(output) / RESULTS).rglob("*") if path.is_file())
    return [np.asarray(Image.open(name)) for name in names], all(
        row["exact"] for row in PredictionWriter(Path(output) / LINES)
    )


def largest_difference(first, second):
    """Between two lists of images, of 255."""
    return max(
        int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(first, second, strict=True)
    )
