"""Scores of instance segmentation by COCO's rules, computed from columns of run lengths."""

from collections.abc import Sequence

import numpy as np

from visionloop.metrics.coco_metric import CocoMetric, to_host
from visionloop.metrics.rows import Array, Columns, Inputs

# the bytes of all masks follow each other; the columns of lengths divide them into masks
NO_MASKS: Columns = {
    "sizes": np.empty((0, 2), np.int64),
    "num_ground_truth_bytes": np.empty(0, np.int64),
    "num_bytes": np.empty(0, np.int64),
    "ground_truth_rles": np.empty(0, np.uint8),
    "ground_truth_rle_lengths": np.empty(0, np.int64),
    "rles": np.empty(0, np.uint8),
    "rle_lengths": np.empty(0, np.int64),
}
COUNT_COLUMNS = {
    "ground_truth_rles": "num_ground_truth_bytes",
    "ground_truth_rle_lengths": "num_ground_truth",
    "rles": "num_bytes",
    "rle_lengths": "num_detections",
}


class MaskAveragePrecision(CocoMetric):
    """Average precision and recall of masks by COCO's rules, and the validation loss.

    See `CocoMetric` for the rules. The area of a detection is that of its mask. A detection whose
    score is not finite is dropped. `val_loss` is the mean over images. Masks are kept compressed,
    about 270 bytes each.
    """

    iou_type, objects = "segm", "segments"

    def __init__(self, num_classes: int, backend: str = "pycocotools") -> None:
        """Make an empty metric.

        Args:
            num_classes: number of classes; labels are 0 to num_classes - 1.
            backend: "pycocotools", or "faster" (the extra `fasteval`) with the same numbers.

        Raises:
            ValueError: where the backend is not installed.
        """
        super().__init__(num_classes, backend, NO_MASKS, COUNT_COLUMNS)

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Add the images of a batch.

        Args:
            predictions: {"rles": B lists of K bytes, COCO's compressed run lengths of masks in
                pixels of the original image, "scores": B float [K], "labels": B int [K]};
                optionally "losses": [B].
            batch: {"sample_ids": int [B], "sizes": int [B, 2] height and width, "ground_truth": B
                dicts with "rles", a list of T bytes, and numpy arrays "labels", "crowd", "areas"
                [T]}.

        Raises:
            ValueError: for lists of different lengths and for labels that are no class.
        """
        ground_truth = batch["ground_truth"]
        truth = [image["rles"] for image in ground_truth]
        for i, (rles, image) in enumerate(zip(truth, ground_truth, strict=True)):
            check_lengths(f"ground truth of image {i}", rles, image, ("labels", "crowd", "areas"))
        rles, scores, labels = finite_masks(predictions, len(ground_truth))
        columns = {
            "sizes": to_host(batch["sizes"]).reshape(-1, 2),
            "num_detections": [len(one) for one in rles],
            "num_ground_truth_bytes": [sum(map(len, one)) for one in truth],
            "num_bytes": [sum(map(len, one)) for one in rles],
            "scores": np.concatenate([np.empty(0), *scores]),
            "labels": np.concatenate([np.empty(0), *labels]),
        }
        for prefix, images in (("ground_truth_", truth), ("", rles)):
            flat = [one for image in images for one in image]
            columns[f"{prefix}rles"] = np.frombuffer(b"".join(flat), np.uint8)
            columns[f"{prefix}rle_lengths"] = [len(one) for one in flat]
        self.append(predictions, batch, columns)

    def _loss_divisors(self) -> Array:
        """Return ones, int64 [N]: the loss of an image is a mean over its own segments."""
        return np.ones(len(self), dtype=np.int64)


def finite_masks(
    predictions: Inputs, num_images: int
) -> tuple[list[list[bytes]], list[Array], list[Array]]:
    """Return (rles, scores, labels) of each image, those with a finite score.

    Raises:
        ValueError: for lists of different lengths.
    """
    names = ("rles", "scores", "labels")
    if any(len(predictions[name]) != num_images for name in names):
        lengths = ", ".join(f"{name} of {len(predictions[name])}" for name in names)
        raise ValueError(f"predictions of {num_images} images: {lengths}")
    all_rles: list[list[bytes]] = []
    all_scores, all_labels = [], []
    for i in range(num_images):
        image = {name: to_host(predictions[name][i]) for name in ("scores", "labels")}
        rles = predictions["rles"][i]
        check_lengths(f"predictions of image {i}", rles, image, ("scores", "labels"))
        finite = np.isfinite(image["scores"])
        all_rles.append([rle for rle, kept in zip(rles, finite.tolist(), strict=True) if kept])
        all_scores.append(image["scores"][finite])
        all_labels.append(image["labels"][finite])
    return all_rles, all_scores, all_labels


def check_lengths(owner: str, rles: Sequence[bytes], image: Inputs, names: Sequence[str]) -> None:
    """Raise ValueError unless each of these arrays has one entry for each mask."""
    lengths = {name: len(image[name]) for name in names}
    if any(length != len(rles) for length in lengths.values()):
        others = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"{owner}: {len(rles)} rles, {others}")
