"""COCO's scores of boxes by others: pycocotools fed by hand, faster-coco-eval, torchmetrics.

All of them count by COCO's rules; boxes lie on quarters of a pixel, so that float32 and float64
hold the same ones.
"""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import torch

from visionloop.bin.benchmarks.scores.sides import Own, Side, as_it_is
from visionloop.metrics.coco_evaluation import SCORE_KEYS
from visionloop.metrics.detection import DetectionMetric

CLASSES = 80
DETECTIONS, MOST_OBJECTS, SIDE = 100, 14, 640
THEIR_KEYS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
THEIR_KEYS += ("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large")


@dataclass(frozen=True)
class Answers:
    """Up to 14 objects an image; a detection near each, the rest of the 100 anywhere, with lower scores."""

    device: torch.device
    start: int
    count: int
    classes: int
    side: int

    def make(self):
        """(predictions, batch) as DetectionMetric takes them."""
        generator = np.random.default_rng(self.start)
        truth, boxes, scores, labels = [], [], [], []
        for _ in range(self.count):
            objects = random_boxes(generator, generator.integers(1, MOST_OBJECTS + 1))
            ids = generator.integers(0, self.classes, len(objects))
            area = objects[:, 2] * objects[:, 3]
            truth.append(
                {
                    "boxes": objects,
                    "labels": ids,
                    "crowd": generator.random(len(objects)) < 0.02,
                    "areas": area,
                }
            )
            near = objects + generator.integers(-24, 25, objects.shape) / 4
            near[:, 2:] = near[:, 2:].clip(1)
            found = np.concatenate([near, random_boxes(generator, DETECTIONS - len(near))])
            boxes.append(np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1))
            labels.append(
                np.concatenate([ids, generator.integers(0, self.classes, DETECTIONS - len(ids))])
            )
            scores.append(
                np.concatenate(
                    [
                        generator.uniform(0.3, 1, len(ids)),
                        generator.uniform(0, 0.4, DETECTIONS - len(ids)),
                    ]
                )
            )
        found = {"boxes": np.stack(boxes), "scores": np.stack(scores)}
        predictions = {
            name: torch.from_numpy(values).float().to(self.device) for name, values in found.items()
        }
        predictions["labels"] = torch.from_numpy(np.stack(labels)).to(self.device)
        return predictions, {
            "truth": truth,
            "sample_ids": torch.arange(self.start, self.start + self.count),
        }


def random_boxes(generator, count):
    """float64 [count, 4] xywh on quarters of a pixel, inside of an image."""
    sides = generator.integers(32, SIDE * 2, (count, 2))
    corners = (generator.random((count, 2)) * (4 * SIDE - sides)).astype(int)
    return np.concatenate([corners, sides], axis=1) / 4


def sides(classes, libraries):
    """{name: Side}."""
    found = {
        "ours": Side(
            "ours: columns, pycocotools",
            lambda: Own(DetectionMetric(classes)),
            as_it_is,
            against=None,
            tolerance=None,
        ),
        "pycocotools": Side(
            "pycocotools: fed by hand, one dict a box", lambda: ByHand(classes), as_it_is
        ),
    }
    if "faster_coco_eval" in libraries:
        own = Side(
            "ours, faster: columns, faster-coco-eval",
            lambda: Own(DetectionMetric(classes, "faster")),
            as_it_is,
        )
        found["ours, faster"] = own
    if "torchmetrics" in libraries:
        does = (
            "torchmetrics: MeanAveragePrecision with {}; crowds, areas and float64 thresholds given"
        )
        found["torchmetrics"] = Side(
            does.format("pycocotools"), lambda: Torchmetrics("pycocotools"), as_tensors
        )
    if libraries == {"torchmetrics", "faster_coco_eval"}:
        other = Side(
            does.format("faster-coco-eval"),
            lambda: Torchmetrics("faster_coco_eval"),
            as_tensors,
            against="ours, faster",
        )
        found["torchmetrics, faster"] = other
    return found


class ByHand:
    """pycocotools as its demo feeds it: one dict for each object and each detection."""

    def __init__(self, classes):
        self.categories, self.images, self.truth, self.found = (
            [{"id": label} for label in range(classes)],
            [],
            [],
            [],
        )

    def update(self, prepared):
        predictions, batch = prepared
        columns = (
            predictions[name].cpu().double().numpy() for name in ("boxes", "scores", "labels")
        )
        for image, truth, boxes, scores, labels in zip(
            batch["sample_ids"].tolist(), batch["truth"], *columns, strict=True
        ):
            self.images.append({"id": image})
            for box, label, crowd, area in zip(
                *(truth[name].tolist() for name in ("boxes", "labels", "crowd", "areas")),
                strict=True,
            ):
                row = {"bbox": box, "category_id": label, "iscrowd": int(crowd), "area": area}
                self.truth.append({"id": len(self.truth) + 1, "image_id": image, **row})
            for (x1, y1, x2, y2), score, label in zip(
                boxes.tolist(), scores.tolist(), labels.tolist(), strict=True
            ):
                self.found.append(
                    {
                        "image_id": image,
                        "category_id": int(label),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "score": score,
                    }
                )

    def compute(self):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "images": self.images,
                "categories": self.categories,
                "annotations": self.truth,
            }
            truth.createIndex()
            evaluator = COCOeval(truth, truth.loadRes(self.found), "bbox")
            for step in (evaluator.evaluate, evaluator.accumulate, evaluator.summarize):
                step()
        return or_nan(dict(zip(SCORE_KEYS, evaluator.stats, strict=True)))


class Torchmetrics:
    """MeanAveragePrecision by one of its backends."""

    def __init__(self, backend):
        from torchmetrics.detection import MeanAveragePrecision

        # its own thresholds are made in float32: a recall of exactly 0.1 does not reach 0.1 then,
        # and mAP is some 0.001 lower
        thresholds = {
            "iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(),
            "rec_thresholds": np.linspace(0, 1, 101).tolist(),
        }
        self.metric = MeanAveragePrecision(backend=backend, **thresholds)
        self.metric.warn_on_many_detections = False

    def update(self, prepared):
        self.metric.update(*prepared)

    def compute(self):
        scores = self.metric.compute()
        return or_nan(
            {
                ours: float(scores[theirs])
                for ours, theirs in zip(SCORE_KEYS, THEIR_KEYS, strict=True)
            }
        )


def as_tensors(predictions, batch):
    """([{"boxes" xyxy, "scores", "labels"}], [{"boxes" xyxy, "labels", "iscrowd", "area"}]) of the images."""
    found = [
        dict(zip(predictions, row, strict=True)) for row in zip(*predictions.values(), strict=True)
    ]
    wanted = []
    for truth in batch["truth"]:
        boxes = np.concatenate(
            [truth["boxes"][:, :2], truth["boxes"][:, :2] + truth["boxes"][:, 2:]], axis=1
        )
        columns = {
            "boxes": boxes.astype(np.float32),
            "labels": truth["labels"],
            "iscrowd": truth["crowd"],
            "area": truth["areas"],
        }
        wanted.append(
            {
                name: torch.from_numpy(values).to(found[0]["boxes"].device)
                for name, values in columns.items()
            }
        )
    return found, wanted


def or_nan(scores):
    return {name: score if score > -1 else float("nan") for name, score in scores.items()}
