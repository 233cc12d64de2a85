"""Detections that exist already: read from json lines or a COCO results json, scored without a model and without the images."""

import json
from pathlib import Path

import numpy as np

from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.layout import require_detection_split
from visionloop.datasets.io.json_columns import column, look_up, number_lists, numbers, show
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.engine.errors import UserError
from visionloop.metrics.detection import DetectionMetric
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.saved_predictions import (
    find_images,
    predictions_error,
    read_entries,
    read_lines,
    require_images,
)

RESULTS = "coco_results.json"


def score_saved_predictions(cls, path, *, data, split):
    """(task, DetectionMetric) of a file of detections; see `Task.score_saved_predictions`.

    path: predictions.jsonl of `predict` (any name that ends in .jsonl), or a COCO results json;
    data: a data folder, or a COCO json of annotations, then `split` has no meaning. Classes and
    their order are those of the annotations.
    """
    index = read_truth(data, split)
    detections = (read_predictions if Path(path).suffix == ".jsonl" else read_results)(path, index)
    metric = DetectionMetric(len(index.classes))
    metric.merge([score_columns(index, *detections)])
    return cls(DetectionConfig(data=str(data)), index.classes), metric


def read_truth(data, split):
    """The DetectionIndex to compare with. Raises UserError."""
    try:
        if Path(data).suffix == ".json" and Path(data).is_file():
            return read_coco(data, Path(data).parent, need_images=False)
        return require_detection_split(data, split, need_images=False)
    except DataLayoutError as error:
        raise UserError(str(error), code="bad_layout", file=error.path, field="data") from None


def read_results(path, index):
    """(images int64 [N], labels int64 [N], boxes float64 [N, 4] xywh, scores float64 [N]) of a COCO results json. Raises UserError.

    Images and classes are found by "image_id" and "category_id"; where all entries have them, by
    "file_name" and "category_name": a model's answers are numbered by themselves.
    """
    rows = read_entries(path)
    entries = [entry for _, entry in rows]
    image_key, class_key = "image_id", "category_id"
    if all("file_name" in entry and "category_name" in entry for entry in entries):
        image_key, class_key = "file_name", "category_name"
        images = find_images(column(entries, image_key), [index.name(i) for i in range(len(index))])
        labels = look_up(
            {name: label for label, name in enumerate(index.classes)}, column(entries, class_key)
        )
    else:
        images = look_up(
            {key: row for row, key in enumerate(index.image_ids.tolist())},
            column(entries, image_key),
        )
        labels = look_up(
            {key: label for label, key in enumerate(index.category_ids)}, column(entries, class_key)
        )
    refuse_first(path, rows, images < 0, image_key, f"no image of {index.source}")
    return images, *read_boxes(path, rows, labels, (class_key, "bbox"), index)


def read_predictions(path, index):
    """Like `read_results`, of the json lines that `predict` writes. A line about an image that could not be read has no detections."""
    lines = read_lines(path)
    rows, images = [], []
    for (place, line), image in zip(
        lines, require_images(path, lines, index).tolist(), strict=True
    ):
        check_size(path, place, line, index.sizes_hw[image].tolist())
        found = line.get("detections", [] if "error" in line else None)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise predictions_error(
                path, f"{place}: detections is {show(found)}, expected a list of objects"
            )
        rows += [(f"{place}: detection {i}", one) for i, one in enumerate(found)]
        images += [image] * len(found)
    labels = look_up(
        {name: label for label, name in enumerate(index.classes)},
        column([one for _, one in rows], "label"),
    )
    return np.array(images, dtype=np.int64), *read_boxes(
        path, rows, labels, ("label", "box"), index
    )


def check_size(path, place, line, size_hw):
    """Raises UserError when a line says another size of its image than the annotations: then it is another image."""
    told = [line.get("height"), line.get("width")]
    if None not in told and all(size_hw) and told != size_hw:
        why = f"height is {show(told[0])} and width {show(told[1])}, the annotations say {size_hw[0]} and {size_hw[1]}"
        raise predictions_error(path, f"{place}: {why}")


def read_boxes(path, rows, labels, keys, index):
    """(labels, boxes, scores) of rows [(position, object)]. keys: of the class, for the message, and of the box. Raises UserError."""
    entries = [entry for _, entry in rows]
    boxes, is_box = number_lists(column(entries, keys[1]), 4)
    scores, is_score = numbers(column(entries, "score"))
    refuse_first(path, rows, labels < 0, keys[0], f"no class of {index.source}")
    refuse_first(path, rows, ~is_box, keys[1], "not four finite numbers")
    refuse_first(path, rows, ~is_score, "score", "not a finite number")
    return labels, boxes, scores


def refuse_first(path, rows, wrong, key, why):
    """UserError for the first of the rows that is `wrong`, a bool array; the others are counted."""
    if wrong.any():
        place, entry = rows[wrong.argmax()]
        more = f" ({wrong.sum()} such)" if wrong.sum() > 1 else ""
        raise predictions_error(path, f"{place}: {key} is {show(entry.get(key))}, {why}{more}")


def score_columns(index, images, labels, boxes, scores):
    """A state of `DetectionMetric` with all images of the index, in float64 as read, no losses.

    Equal scores stand in the order of image ids, then as in the file, as in pycocotools: scores in
    files are often rounded.
    """
    order = np.argsort(images, kind="stable")
    boxes = boxes[order]
    boxes[:, 2:] = boxes[:, 2:].clip(0)
    return {
        "sample_ids": np.argsort(np.argsort(index.image_ids, kind="stable")),  # the rank of each
        "losses": np.full(len(index), np.nan),
        "has_loss": np.zeros(len(index), dtype=bool),
        "num_truth": np.diff(index.offsets),
        "num_detections": np.bincount(images, minlength=len(index)),
        "truth_boxes": index.boxes,
        "truth_labels": index.labels,
        "truth_crowd": index.crowd,
        "truth_areas": index.areas,
        "boxes": boxes,
        "scores": scores[order],
        "labels": labels[order],
    }


def save_scored_predictions(metric, dataset, path):
    """The detections of an evaluation as a COCO results json with the ids of the data, not rounded: scored again, the same numbers.

    A detection of a class that the annotations do not know has no id there, takes no part in the
    scores, and is left out.
    """
    columns, index = metric.state(), dataset.index
    stops = columns["num_detections"].cumsum()
    image_ids = index.image_ids.tolist()

    def rows():
        for image, start, stop in zip(
            columns["sample_ids"].tolist(), [0, *stops[:-1].tolist()], stops.tolist(), strict=True
        ):
            here = [columns[name][start:stop].tolist() for name in ("labels", "boxes", "scores")]
            for label, box, score in zip(*here, strict=True):
                category_id = index.category_ids[label]
                if category_id is not None:
                    yield {
                        "image_id": image_ids[image],
                        "category_id": category_id,
                        "bbox": box,
                        "score": score,
                    }

    write_rows(path, rows())


def write_predictions(folder, answers):
    """`coco_results.json` beside predictions.jsonl: [{"image_id", "file_name", "category_id", "category_name", "bbox", "score"}].

    image_id: the file's name without its suffix as a number, where every file has one of its own
    (as in COCO); else 1, 2, .. in the order of predictions.jsonl. category_id: the label's id in
    the model's config.json, from 0 on. A dataset may number otherwise, hence the names, which
    `score_saved_predictions` goes by.
    """
    files = [answer["file"] for answer in answers]
    stems = [Path(file).stem for file in files]
    numbered = all(stem.isascii() and stem.isdigit() for stem in stems) and len(
        set(map(int, stems))
    ) == len(stems)
    image_ids = [int(stem) if numbered else i for i, stem in enumerate(stems, 1)]

    def rows():
        for image_id, answer in zip(image_ids, answers, strict=True):
            for one in answer["detections"]:
                kind = {"category_id": one["id"], "category_name": one["label"]}
                yield (
                    {"image_id": image_id, "file_name": answer["file"]}
                    | kind
                    | {"bbox": one["box"], "score": one["score"]}
                )

    write_rows(Path(folder) / RESULTS, rows())


def write_rows(path, rows):
    """A json list, an object a line. rows: any iterable of dicts; nothing is held."""
    with open(path, "w") as file:
        file.write("[")
        for i, row in enumerate(rows):
            file.write((",\n" if i else "\n") + json.dumps(row))
        file.write("\n]\n")
