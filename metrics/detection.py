"""Scores of object detection by COCO's rules, from columns of boxes so that any sharding gives the same bits."""

import numpy as np

from visionloop.metrics.average_precision import Resampler, mean_of_known
from visionloop.metrics.coco_evaluation import SCORE_KEYS, backend_classes, evaluated, summed_up

IMAGES = {
    "sample_ids": np.int64,
    "losses": np.float64,
    "has_loss": np.bool_,
    "num_truth": np.int64,
    "num_detections": np.int64,
}
TRUTH = {
    "truth_boxes": np.float64,
    "truth_labels": np.int64,
    "truth_crowd": np.bool_,
    "truth_areas": np.float64,
}
DETECTIONS = {"boxes": np.float64, "scores": np.float64, "labels": np.int64}
# xywh in pixels; float32 would move overlaps that are exactly a threshold to its other side
COLUMNS = IMAGES | TRUTH | DETECTIONS


class DetectionMetric:
    """COCO's average precision and recall of boxes, and the validation loss.

    IoU 0.5 to 0.95 in steps of 0.05, 101 recall points, at most 100 detections per image and
    class; crowds are neither to be found nor a mistake; small ends at 32 x 32 pixels of annotated
    area, medium at 96 x 96. Images without a detection count. Equal scores stand in the order of
    sample ids, then as they came. A detection that is not finite is none: COCO would take a nan
    overlap for a match. `val_loss` is the sum of the images' losses over the number of boxes that
    are no crowd.
    """

    def __init__(self, num_classes, backend="pycocotools"):
        """backend: "pycocotools", or "faster" (the extra `fasteval`) with the same numbers. Raises ValueError where it is not installed."""
        backend_classes(backend)
        self.num_classes, self.backend = num_classes, backend
        self._batches = []  # column dicts as they came
        self._forget()

    def update(self, predictions, batch):
        """Take in a batch; costs one copy to the host.

        predictions: {"boxes": [B, K, 4] xyxy in pixels of the original image, "scores": [B, K],
        "labels": int [B, K]} and, or not, "losses": [B], each the sum over an image. batch:
        {"sample_ids": int [B], "truth": B dicts of numpy arrays with "boxes" [T, 4] xywh, "labels",
        "crowd", "areas" [T]}. Raises ValueError for other shapes and for labels that are no class.
        """
        truth, losses = batch["truth"], predictions.get("losses")
        corners, scores, labels = (
            _on_host(predictions[key]) for key in ("boxes", "scores", "labels")
        )
        if (
            corners.shape != (len(truth), *scores.shape[1:], 4)
            or not scores.shape == labels.shape == corners.shape[:2]
        ):
            raise ValueError(
                f"predictions of {len(truth)} images: boxes {corners.shape}, scores {scores.shape}, labels {labels.shape}"
            )
        sides = np.maximum(
            corners[..., 2:].astype(np.float64) - corners[..., :2], 0
        )  # inside out is without size; COCO would forget it
        boxes = np.concatenate([corners[..., :2], sides], axis=-1)
        finite = np.isfinite(boxes).all(axis=-1) & np.isfinite(scores)
        columns = {
            "sample_ids": _on_host(batch["sample_ids"]),
            "losses": np.full(len(truth), np.nan) if losses is None else _on_host(losses),
            "has_loss": np.full(len(truth), losses is not None),
            "num_truth": [len(one["boxes"]) for one in truth],
            "num_detections": finite.sum(axis=1),
            "truth_boxes": np.concatenate(
                [np.empty((0, 4)), *(np.reshape(one["boxes"], (-1, 4)) for one in truth)]
            ),
            "boxes": boxes[finite],
            "scores": scores[finite],
            "labels": labels[finite],
        }
        for column, key in (
            ("truth_labels", "labels"),
            ("truth_crowd", "crowd"),
            ("truth_areas", "areas"),
        ):
            columns[column] = np.concatenate([np.empty(0), *(one[key] for one in truth)])
        for column in ("truth_labels", "labels"):
            if not ((columns[column] >= 0) & (columns[column] < self.num_classes)).all():
                raise ValueError(
                    f"{column}: expected 0 to {self.num_classes - 1}, got {columns[column].min()} to {columns[column].max()}"
                )
        self._append(columns)

    def state(self):
        """{column: array}: one row per image sorted by sample id, then the boxes of all images one after the other."""
        return dict(self._rows())

    def merge(self, states):
        """Replace the content by that of these states, in any order."""
        self._batches = []
        self._forget()
        for state in states:
            self._append(state)

    def __len__(self):
        return sum(len(columns["sample_ids"]) for columns in self._batches)

    def compute(self, picks=None):
        """{key: float}: COCO's twelve numbers, nan where there is nothing to find, and `val_loss` when every image came with its loss.

        picks: positions in the order of sample ids, repeats count again; then `mAP`, `mAP50` and
        `val_loss` alone, quickly.
        """
        rows = self._rows()
        if picks is None:
            weights = np.ones(len(self), dtype=np.int64)
            scores = (
                dict(self.evaluation().scores)
                if len(self)
                else dict.fromkeys(SCORE_KEYS, float("nan"))
            )
        else:
            weights = np.bincount(np.asarray(picks, dtype=np.int64), minlength=len(self))
            precision = self._resampler().average_precision(weights)
            scores = {"mAP": mean_of_known(precision), "mAP50": mean_of_known(precision[0])}
        if len(self) and rows["has_loss"].all():
            drawn = weights > 0  # zero times a nan would be nan
            losses = (rows["losses"][drawn] * weights[drawn]).sum()
            scores["val_loss"] = float(losses / max(1, self._boxes_per_image() @ weights))
        return scores

    def per_class(self):
        """{"AP": float64 [C], "AP50": float64 [C], "boxes": int64 [C] that are no crowd}; nan for a class without them."""
        rows = self._rows()
        boxes = np.bincount(rows["truth_labels"][~rows["truth_crowd"]], minlength=self.num_classes)
        precision = self.evaluation().average_precision
        return {"AP": precision.mean(axis=0), "AP50": precision[0], "boxes": boxes}

    def per_image(self):
        """{"sample_ids": int64 [N], "losses": float64 [N], over the number of its boxes that are no crowd}, sorted by sample id.

        nan where an image came without its loss.
        """
        rows = self._rows()
        return {
            "sample_ids": rows["sample_ids"].copy(),
            "losses": rows["losses"] / np.maximum(1, self._boxes_per_image()),
        }

    def curves(self):
        """{"recall": [101], "precision": [C, 101], "scores": [C, 101]} at IoU 0.5.

        precision: the largest at this recall or beyond, 0 where it is not reached, nan for a class
        without truth; its mean is AP50. scores: the score down to which detections are taken for
        this recall; nan where it is not reached.
        """
        evaluation = self.evaluation()
        return {
            "recall": evaluation.recall,
            "precision": evaluation.precision,
            "scores": evaluation.thresholds,
        }

    def evaluation(self):
        """The whole `Evaluation`, kept until the content changes. Takes seconds to minutes: pycocotools matches in plain Python."""
        if self._evaluation is None:
            evaluator = evaluated(self._rows(), self.num_classes, self.backend)
            self._evaluation = summed_up(evaluator)
            if self.backend == "pycocotools":  # the matches are there already
                self._matches = Resampler(evaluator)
        return self._evaluation

    def _resampler(self):
        if self._matches is None:  # faster-coco-eval keeps its matches to itself
            self._matches = Resampler(
                evaluated(self._rows(), self.num_classes, all_areas_only=True)
            )
        return self._matches

    def _boxes_per_image(self):
        rows = self._rows()
        image_of = np.repeat(np.arange(len(self)), rows["num_truth"])
        return np.bincount(image_of[~rows["truth_crowd"]], minlength=len(self))

    def _append(self, columns):
        self._batches.append(
            {column: np.asarray(columns[column], dtype=kind) for column, kind in COLUMNS.items()}
        )
        self._forget()

    def _forget(self):
        self._table = self._evaluation = self._matches = None

    def _rows(self):
        if self._table is None:
            none_yet = {
                column: np.empty((0, 4) if column.endswith("boxes") else 0, kind)
                for column, kind in COLUMNS.items()
            }
            whole = {
                column: np.concatenate([rows, *(batch[column] for batch in self._batches)])
                for column, rows in none_yet.items()
            }
            order = np.argsort(whole["sample_ids"], kind="stable")
            rows_of = dict.fromkeys(IMAGES, order)
            rows_of |= dict.fromkeys(TRUTH, ragged_rows(whole["num_truth"], order))
            rows_of |= dict.fromkeys(DETECTIONS, ragged_rows(whole["num_detections"], order))
            self._table = {column: values[rows_of[column]] for column, values in whole.items()}
        return self._table


def ragged_rows(counts, order):
    """int64 [sum of counts]: the flat rows of images put into `order`, when image i owns the next counts[i] rows."""
    starts = np.cumsum(counts) - counts
    counts, starts = counts[order], starts[order]
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def _on_host(tensor):
    return tensor.detach().cpu().numpy()
