"""The record of an evaluation: evaluations/step_<step>/record.json and the images beside it, for whoever reports on a run.

record.json is one object; nan and inf are null in it.

schema          1
step, epoch     int: optimizer steps done, the epoch that the next one belongs to
scores          {metric key: number}: of the weights that best/ may hold
raw_scores      the same of the training weights, null without an average of weights
intervals       {metric key: [low, high]}: 95 %, of fewer than 1000 images
reference       {label: number}: scores of a trivial predictor
classes         null or {"columns": [{"key", "format": "percent" | "float" | "integer"}], "rows":
[{"name", "values": [number]}]} confusion       null or {"classes": [name], "counts": [[int]],
"unit": "images" | "pixels" | ..}, rows are the truth; null above
                200 classes
curves          [{"title", "x": label, "y": label, "lines": [{"name", "x": [number], "y":
[number]}]}] sample_score    null or {"label", "format", "higher_is_better", "description"}: what
"score" below means fixed, worst    [{"name", "image", "score"}]: samples spread over the
validation images, the same every time; those with the worst
                score, worst first. name: path in the data folder; image: name of a JPEG beside
                the record, prediction beside truth, null where none was drawn: they are at the
                first evaluation of a run, the last, and about ten between
"""

import json
import os
import shutil

from PIL import Image

from visionloop.engine.checkpoints.files import finite, fsync
from visionloop.engine.checkpoints.folder import step_folder_name, step_folders
from visionloop.engine.checkpoints.writer import is_disk_error

FOLDER = "evaluations"
MOST_CONFUSED = 200  # classes of a confusion matrix in a record
QUALITY = 85  # of JPEG
DIGITS = 5  # of the numbers of a curve


def make_record(task, metric, *, step, epoch, scores, raw, intervals, reference, per_class, chosen):
    """The content of record.json; the names of images are those that `write_record` gives them.

    per_class: of `Task.per_class_scores`; chosen: see gallery.py.
    """
    spec = task.sample_score
    listed = {
        kind: [
            {
                "name": one.name,
                "image": None if one.image is None else image_name(kind, i),
                "score": one.score,
            }
            for i, one in enumerate(samples)
        ]
        for kind, samples in chosen.items()
    }
    shown = spec and {
        name: getattr(spec, name) for name in ("label", "format", "higher_is_better", "description")
    }
    return {
        "schema": 1,
        "step": step,
        "epoch": epoch,
        "scores": scores,
        "raw_scores": raw,
        "intervals": intervals,
        "reference": reference,
        "classes": class_table_of(per_class, task.metrics[0].format),
        "confusion": confusion_of(task, metric),
        "curves": [curve_of(curve) for curve in task.curves(metric)],
        "sample_score": shown,
        **listed,
    }


def class_table_of(per_class, score_format):
    """ "classes" of a record. per_class: of `Task.per_class_scores`; a column of whole numbers alone is one of integers."""
    if not per_class:
        return None
    columns = [
        {
            "key": key,
            "format": "integer"
            if all(isinstance(row[key], int) for row in per_class.values())
            else score_format,
        }
        for key in next(iter(per_class.values()))
    ]
    return {
        "columns": columns,
        "rows": [{"name": name, "values": list(row.values())} for name, row in per_class.items()],
    }


def confusion_of(task, metric):
    """ "confusion" of a record."""
    found = task.confusion(metric)
    if found is None or len(found[0]) > MOST_CONFUSED:
        return None
    classes, counts, unit = found
    return {"classes": list(classes), "counts": counts.tolist(), "unit": unit}


def curve_of(curve):
    """The curve with as many digits as can be seen."""
    lines = [
        {"name": line["name"]}
        | {axis: [round(float(number), DIGITS) for number in line[axis]] for axis in ("x", "y")}
        for line in curve["lines"]
    ]
    return curve | {"lines": lines}


def image_name(kind, place):
    """The file name of the image at this place of "fixed" or "worst"."""
    return f"{kind}_{place:02}.jpg"


def write_record(output, record, chosen):
    """Write the record and its images on a sibling, then rename: a reader sees a whole record or none. Main rank only.

    Returns why the disk does not take it, None when it did: a run is not lost for want of a record.
    """
    target = output / FOLDER / step_folder_name(record["step"])
    temporary = target.with_name(f".{target.name}.writing")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for kind, samples in chosen.items():
            for i, one in enumerate(samples):
                if one.image is not None:
                    Image.fromarray(one.image).save(
                        temporary / image_name(kind, i), quality=QUALITY
                    )
        (temporary / "record.json").write_text(json.dumps(finite(record), allow_nan=False) + "\n")
        for path in (temporary / "record.json", temporary):
            fsync(path)
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
        fsync(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not is_disk_error(error):
            raise
        return f"{target}: cannot write ({error.strerror}); the run goes on without this record"
    return None


def cut_records(output, evaluated_at):
    """Remove the records after `evaluated_at`, which will be written again, and half-written ones."""
    folder = output / FOLDER
    for step, path in step_folders(folder):
        if step > evaluated_at:
            shutil.rmtree(path, ignore_errors=True)
    for rest in folder.glob(".step_*"):
        shutil.rmtree(rest, ignore_errors=True)
