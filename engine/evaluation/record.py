"""The record of an evaluation: record.json and images in evaluations/step_<step>/, for reports.

record.json is one JSON object, in which nan and inf are null:

- schema: 1
- step, epoch: int. Optimizer steps done, and the epoch that the next one belongs to.
- scores: {metric key: number}, of the weights that best/ may hold.
- raw_scores: the same of the training weights, null without EMA.
- intervals: {metric key: [low, high]}, 95 %, of fewer than 1000 images.
- reference: {label: number}, scores of a trivial predictor.
- classes: null or {"columns": [{"key", "format": "percent" | "float" | "integer"}],
  "rows": [{"name", "values": [number]}]}.
- confusion: null or {"classes": [name], "counts": [[int]], "unit": "images" | "pixels" | ..}, with
  the ground truth in rows; null above 200 classes.
- curves: [{"title", "x": label, "y": label,
  "lines": [{"name", "x": [number], "y": [number]}]}].
- sample_score: null or {"label", "format", "higher_is_better", "description"} of "score" below.
- fixed, worst: [{"name", "image", "score"}]. Samples spread over the validation images, the same
  every time; and those with the worst score, worst first. name is the path in the data folder;
  image the name of a JPEG beside the record, prediction beside ground truth, or null where none was
  drawn: images are at the first evaluation of a run, at the last, and at about ten between.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from visionloop.engine.checkpoints.files import finite, fsync, replace_folder
from visionloop.engine.checkpoints.folder import step_folder_name, step_folders
from visionloop.engine.checkpoints.writer import is_disk_error
from visionloop.engine.evaluation.samples import EvalSample, SelectedSamples
from visionloop.engine.metric import Metric
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject, Scores

FOLDER = "evaluations"
MAX_CONFUSION_CLASSES = 200
JPEG_QUALITY = 85
CURVE_DIGITS = 5


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation; the module docstring describes the fields.

    Attributes:
        per_class: the result of `Task.per_class_scores`.
        samples: the fixed and the worst samples.
    """

    step: int
    epoch: int
    scores: Scores
    raw_scores: Scores | None
    intervals: Mapping[str, tuple[float, float]]
    reference: Scores
    per_class: Mapping[str, Mapping[str, float]]
    samples: SelectedSamples


def make_record(task: Task, metric: Metric, evaluation: Evaluation) -> JsonObject:
    """Return the content of record.json. Its images are named as `write_record` names them."""
    spec = task.sample_score
    score_fields = ("label", "format", "higher_is_better", "description")
    return {
        "schema": 1,
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "scores": evaluation.scores,
        "raw_scores": evaluation.raw_scores,
        "intervals": evaluation.intervals,
        "reference": evaluation.reference,
        "classes": class_table_of(evaluation.per_class, task.metrics[0].format),
        "confusion": confusion_of(task, metric),
        "curves": [curve_of(curve) for curve in task.curves(metric)],
        "sample_score": spec and {name: getattr(spec, name) for name in score_fields},
        **{
            kind: [sample_row(kind, place, sample) for place, sample in enumerate(samples)]
            for kind, samples in evaluation.samples.items()
        },
    }


def sample_row(kind: str, place: int, sample: EvalSample) -> JsonObject:
    """Return a row of "fixed" or "worst"."""
    image = None if sample.image is None else image_name(kind, place)
    return {"name": sample.name, "image": image, "score": sample.score}


def class_table_of(
    per_class: Mapping[str, Mapping[str, float]], score_format: str
) -> JsonObject | None:
    """Return "classes" of a record. A column that holds whole numbers alone is one of integers.

    per_class: the result of `Task.per_class_scores`.
    """
    if not per_class:
        return None
    columns = []
    for key in next(iter(per_class.values())):
        is_integer = all(isinstance(row[key], int) for row in per_class.values())
        columns.append({"key": key, "format": "integer" if is_integer else score_format})
    rows = [{"name": name, "values": list(row.values())} for name, row in per_class.items()]
    return {"columns": columns, "rows": rows}


def confusion_of(task: Task, metric: Metric) -> JsonObject | None:
    """Return "confusion" of a record."""
    confusion = task.confusion(metric)
    if confusion is None or len(confusion[0]) > MAX_CONFUSION_CLASSES:
        return None
    classes, counts, unit = confusion
    return {"classes": list(classes), "counts": counts.tolist(), "unit": unit}


def curve_of(curve: JsonObject) -> JsonObject:
    """Return a curve rounded to the digits that are visible in a chart."""
    lines = [
        {"name": line["name"]}
        | {
            axis: [round(float(number), CURVE_DIGITS) for number in line[axis]]
            for axis in ("x", "y")
        }
        for line in curve["lines"]
    ]
    return curve | {"lines": lines}


def image_name(kind: str, place: int) -> str:
    """Return the file name of the image at a place of "fixed" or "worst"."""
    return f"{kind}_{place:02}.jpg"


def write_record(output: Path, record: JsonObject, samples: SelectedSamples) -> str | None:
    """Write a record with its images atomically. Main rank only.

    Returns:
        A warning when the disk refuses, else None: a run does not fail for a missing record.
    """
    target = output / FOLDER / step_folder_name(record["step"])
    try:
        with replace_folder(target) as folder:
            for kind, listed in samples.items():
                for place, sample in enumerate(listed):
                    if sample.image is not None:
                        path = folder / image_name(kind, place)
                        Image.fromarray(sample.image).save(path, quality=JPEG_QUALITY)
            text = json.dumps(finite(record), allow_nan=False) + "\n"
            (folder / "record.json").write_text(text)
            fsync(folder / "record.json")
            fsync(folder)
    except OSError as error:
        if not is_disk_error(error):
            raise
        return f"{target}: cannot write ({error.strerror}); the run continues without this record"
    return None


def cut_records(output: Path, evaluated_at: int) -> None:
    """Remove half-written records, and those after `evaluated_at`, which will be written again."""
    folder = output / FOLDER
    for step, path in step_folders(folder):
        if step > evaluated_at:
            shutil.rmtree(path, ignore_errors=True)
    for rest in folder.glob(".step_*"):
        shutil.rmtree(rest, ignore_errors=True)
