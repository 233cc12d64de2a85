"""Scores of object detection by COCO's rules, computed from columns of boxes."""

import numpy as np

from visionloop.metrics.coco_metric import CocoMetric, to_host
from visionloop.metrics.rows import Array, Inputs

# boxes are xywh in pixels; float32 would move overlaps that are exactly a threshold to its other
# side
NO_BOXES = {
    "ground_truth_boxes": np.empty((0, 4), np.float64),
    "boxes": np.empty((0, 4), np.float64),
}
COUNT_COLUMNS = {"ground_truth_boxes": "num_ground_truth", "boxes": "num_detections"}


class DetectionMetric(CocoMetric):
    """Average precision and recall of boxes by COCO's rules, and the validation loss.

    See `CocoMetric` for the rules. A detection that is not finite is dropped: COCO would take a nan
    overlap for a match. `val_loss` is the sum of the losses of all images over the number of boxes
    that are not crowd.
    """

    iou_type, objects = "bbox", "boxes"

    def __init__(self, num_classes: int, backend: str = "pycocotools") -> None:
        """Make an empty metric.

        Args:
            num_classes: number of classes; labels are 0 to num_classes - 1.
            backend: "pycocotools", or "faster" (the extra `fasteval`) with the same numbers.

        Raises:
            ValueError: where the backend is not installed.
        """
        super().__init__(num_classes, backend, NO_BOXES, COUNT_COLUMNS)

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Add the images of a batch, with one copy to the host for each tensor.

        Args:
            predictions: {"boxes": float [B, K, 4] xyxy in pixels of the original image, "scores":
                [B, K], "labels": int [B, K]}; optionally "losses": [B], each the sum over an image.
            batch: {"sample_ids": int [B], "ground_truth": B dicts of numpy arrays with "boxes"
                [T, 4] xywh, "labels", "crowd", "areas" [T]}.

        Raises:
            ValueError: for other shapes and for labels that are no class.
        """
        ground_truth = batch["ground_truth"]
        boxes, scores, labels, finite = finite_detections(predictions, len(ground_truth))
        columns = {
            "num_detections": finite.sum(axis=1),
            "ground_truth_boxes": np.concatenate(
                [np.empty((0, 4)), *(np.reshape(image["boxes"], (-1, 4)) for image in ground_truth)]
            ),
            "boxes": boxes[finite],
            "scores": scores[finite],
            "labels": labels[finite],
        }
        self.append(predictions, batch, columns)

    def _loss_divisors(self) -> Array:
        """Return the number of boxes that are not crowd, int64 [N]."""
        columns = self._table.sorted_columns()
        image_of = np.repeat(np.arange(len(self)), columns["num_ground_truth"])
        return np.bincount(image_of[~columns["ground_truth_crowd"]], minlength=len(self))


def finite_detections(predictions: Inputs, num_images: int) -> tuple[Array, Array, Array, Array]:
    """Copy detections to the host as (boxes float64 [B, K, 4] xywh, scores, labels, finite [B, K]).

    Raises:
        ValueError: for other shapes.
    """
    corners, scores, labels = (to_host(predictions[key]) for key in ("boxes", "scores", "labels"))
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
