"""Scores of object detection by COCO's rules, computed from columns of boxes."""

from collections.abc import Sequence

import numpy as np
import torch

from visionloop.metrics.average_precision import Resampler
from visionloop.metrics.coco_evaluation import (
    SCORE_KEYS,
    Evaluation,
    backend_classes,
    run_coco_eval,
    summarize,
)
from visionloop.metrics.rows import (
    Array,
    Columns,
    Inputs,
    RowTable,
    mean_ignoring_nan,
    weighted_sum,
)

# boxes are xywh in pixels; float32 would move overlaps that are exactly a threshold to its other
# side
NO_ROWS = {
    "sample_ids": np.empty(0, np.int64),
    "losses": np.empty(0, np.float64),
    "has_loss": np.empty(0, np.bool_),
    "num_ground_truth": np.empty(0, np.int64),
    "num_detections": np.empty(0, np.int64),
    "ground_truth_boxes": np.empty((0, 4), np.float64),
    "ground_truth_labels": np.empty(0, np.int64),
    "ground_truth_crowd": np.empty(0, np.bool_),
    "ground_truth_areas": np.empty(0, np.float64),
    "boxes": np.empty((0, 4), np.float64),
    "scores": np.empty(0, np.float64),
    "labels": np.empty(0, np.int64),
}
COUNT_COLUMNS = dict.fromkeys(
    (name for name in NO_ROWS if name.startswith("ground_truth_")), "num_ground_truth"
)
COUNT_COLUMNS |= dict.fromkeys(("boxes", "scores", "labels"), "num_detections")


class DetectionMetric:
    """Average precision and recall of boxes by COCO's rules, and the validation loss.

    IoU 0.5 to 0.95 in steps of 0.05, 101 recall points, at most 100 detections for each image and
    class; crowd boxes are neither required nor counted as false positives; "small" ends at 32 x 32
    pixels of annotated area, "medium" at 96 x 96. Images without a detection count. Equal scores
    are ranked in the order of sample ids, then in the order given. A detection that is not finite
    is dropped: COCO would take a nan overlap for a match. `val_loss` is the sum of the losses of
    all images over the number of boxes that are not crowd. Any distribution of the images over
    processes gives the same bits.
    """

    def __init__(self, num_classes: int, backend: str = "pycocotools") -> None:
        """Make an empty metric.

        Args:
            num_classes: number of classes; labels are 0 to num_classes - 1.
            backend: "pycocotools", or "faster" (the extra `fasteval`) with the same numbers.

        Raises:
            ValueError: where the backend is not installed.
        """
        backend_classes(backend)
        self.num_classes, self.backend = num_classes, backend
        self._table = RowTable(NO_ROWS, COUNT_COLUMNS)
        self._evaluation: Evaluation | None = None
        self._matches: Resampler | None = None

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Add the images of a batch; costs one copy to the host.

        Args:
            predictions: {"boxes": [B, K, 4] xyxy in pixels of the original image, "scores": [B, K],
                "labels": int [B, K]}; optionally "losses": [B], each the sum over an image.
            batch: {"sample_ids": int [B], "ground_truth": B dicts of numpy arrays with "boxes"
                [T, 4] xywh, "labels", "crowd", "areas" [T]}.

        Raises:
            ValueError: for other shapes and for labels that are no class.
        """
        ground_truth, losses = batch["ground_truth"], predictions.get("losses")
        count = len(ground_truth)
        boxes, scores, labels, finite = finite_detections(predictions, count)
        columns: dict[str, object] = {
            "sample_ids": _to_host(batch["sample_ids"]),
            "losses": np.full(count, np.nan) if losses is None else _to_host(losses),
            "has_loss": np.full(count, losses is not None),
            "num_ground_truth": [len(image["boxes"]) for image in ground_truth],
            "num_detections": finite.sum(axis=1),
            "ground_truth_boxes": np.concatenate(
                [np.empty((0, 4)), *(np.reshape(image["boxes"], (-1, 4)) for image in ground_truth)]
            ),
            "boxes": boxes[finite],
            "scores": scores[finite],
            "labels": labels[finite],
        }
        for key in ("labels", "crowd", "areas"):
            columns[f"ground_truth_{key}"] = np.concatenate(
                [np.empty(0), *(image[key] for image in ground_truth)]
            )
        for name in ("ground_truth_labels", "labels"):
            values = np.asarray(columns[name])
            if not ((values >= 0) & (values < self.num_classes)).all():
                raise ValueError(
                    f"{name}: expected 0 to {self.num_classes - 1}, "
                    f"got {values.min()} to {values.max()}"
                )
        self._table.append(columns)
        self._drop_evaluation()

    def state(self) -> Columns:
        """Return one row for each image, sorted by sample id, and the boxes of all images."""
        return dict(self._table.sorted_columns())

    def merge(self, states: Sequence[Columns]) -> None:
        """Replace the content by these states, in any order."""
        self._table.replace(states)
        self._drop_evaluation()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._table)

    def compute(self, picks: Array | None = None) -> dict[str, float]:
        """Compute the scores of all images, or some of the scores of the images at `picks`.

        Args:
            picks: positions in the order of sample ids, where repeats count again; then only
                `mAP`, `mAP50` and `val_loss` are computed, quickly.

        Returns:
            COCO's twelve numbers, nan where there is no ground truth, and `val_loss` when every
            image has a loss.
        """
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        if picks is None:
            scores = (
                dict(self.evaluation().scores)
                if len(self)
                else dict.fromkeys(SCORE_KEYS, float("nan"))
            )
        else:
            precision = self._resampler().average_precision(weights)
            scores = {
                "mAP": mean_ignoring_nan(precision),
                "mAP50": mean_ignoring_nan(precision[0]),
            }
        if len(self) and columns["has_loss"].all():
            num_boxes = int(self._boxes_per_image() @ weights)
            scores["val_loss"] = weighted_sum(columns["losses"], weights) / max(1, num_boxes)
        return scores

    def per_class(self) -> Columns:
        """Return "AP", "AP50" float64 [C] and "boxes" int64 [C], the boxes that are not crowd.

        nan for a class without such boxes.
        """
        columns = self._table.sorted_columns()
        boxes = np.bincount(
            columns["ground_truth_labels"][~columns["ground_truth_crowd"]],
            minlength=self.num_classes,
        )
        precision = self.evaluation().average_precision
        return {"AP": precision.mean(axis=0), "AP50": precision[0], "boxes": boxes}

    def per_image(self) -> Columns:
        """Return "sample_ids" int64 [N] and "losses" float64 [N], sorted by sample id.

        A loss is divided by the number of boxes of the image that are not crowd; nan without one.
        """
        columns = self._table.sorted_columns()
        return {
            "sample_ids": columns["sample_ids"].copy(),
            "losses": columns["losses"] / np.maximum(1, self._boxes_per_image()),
        }

    def curves(self) -> Columns:
        """Return the precision-recall curves at IoU 0.5.

        Returns:
            "recall": float64 [101]. "precision": float64 [C, 101], the largest at this recall or
            beyond, 0 where it is not reached, nan for a class without ground truth; its mean is
            AP50. "scores": float64 [C, 101], the score threshold that gives this recall; nan where
            it is not reached.
        """
        evaluation = self.evaluation()
        return {
            "recall": evaluation.recall,
            "precision": evaluation.precision,
            "scores": evaluation.thresholds,
        }

    def evaluation(self) -> Evaluation:
        """Return the whole `Evaluation`, stored until the content changes.

        Takes seconds to minutes: pycocotools matches in plain Python.
        """
        if self._evaluation is None:
            evaluator = run_coco_eval(self._table.sorted_columns(), self.num_classes, self.backend)
            self._evaluation = summarize(evaluator)
            if self.backend == "pycocotools":  # its matches serve for resampling too
                self._matches = Resampler(evaluator)
        return self._evaluation

    def _resampler(self) -> Resampler:
        if self._matches is None:  # faster-coco-eval does not expose its matches
            columns = self._table.sorted_columns()
            self._matches = Resampler(run_coco_eval(columns, self.num_classes, all_areas_only=True))
        return self._matches

    def _boxes_per_image(self) -> Array:
        """Return the number of boxes that are not crowd, int64 [N]."""
        columns = self._table.sorted_columns()
        image_of = np.repeat(np.arange(len(self)), columns["num_ground_truth"])
        return np.bincount(image_of[~columns["ground_truth_crowd"]], minlength=len(self))

    def _drop_evaluation(self) -> None:
        self._evaluation = self._matches = None


def finite_detections(predictions: Inputs, num_images: int) -> tuple[Array, Array, Array, Array]:
    """Copy detections to the host as (boxes float64 [B, K, 4] xywh, scores, labels, finite [B, K]).

    Raises:
        ValueError: for other shapes.
    """
    corners, scores, labels = (_to_host(predictions[key]) for key in ("boxes", "scores", "labels"))
    if (
        corners.shape != (num_images, *scores.shape[1:], 4)
        or not scores.shape == labels.shape == corners.shape[:2]
    ):
        raise ValueError(
            f"predictions of {num_images} images: boxes {corners.shape}, scores {scores.shape}, "
            f"labels {labels.shape}"
        )
    # a box that is inside out has no size; COCO would drop it
    sides = np.maximum(corners[..., 2:].astype(np.float64) - corners[..., :2], 0)
    boxes = np.concatenate([corners[..., :2], sides], axis=-1)
    return boxes, scores, labels, np.isfinite(boxes).all(axis=-1) & np.isfinite(scores)


def _to_host(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()
