"""Scores of panoptic segmentation, computed from the common pixels of segments in each image.

The definition is that of panopticapi (https://github.com/cocodataset/panopticapi, evaluation.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionloop.metrics.rows import (
    Array,
    Columns,
    Inputs,
    RowTable,
    divide,
    mean_ignoring_nan,
    weighted_sum,
)
from visionloop.metrics.segment_matching import (
    Segments,
    check_segments,
    common_pixels,
    count_image,
)

COUNTS = ("iou", "tp", "fp", "fn")  # of each image and class


class PanopticQualityMetric:
    """Panoptic, segmentation and recognition quality over classes, things and stuff.

    A predicted and a ground-truth segment of one class match above IoU 0.5, where pixels of the
    prediction that are void in the ground truth do not count. The area of a ground-truth segment is
    the one given, that of a predicted segment is counted. A predicted segment without a match is no
    false positive when more than half of it is void or in the crowd of its class; of several crowds
    of a class in one image, the last one counts. Crowds are never missed. For each class, from the
    sums over all images, SQ = IoU / TP (0 without TP), RQ = TP / (TP + FP / 2 + FN / 2) and
    PQ = SQ x RQ; the scores are means over the classes that have a segment, TP + FP + FN > 0.

    A ground-truth segment without pixels is missed. A predicted label without pixels is an error,
    as are pixels without a label: panopticapi refuses both. Two things differ: an image without
    predicted segments counts its whole ground truth as missed, and a mean over no class is nan. A
    given area that is smaller than the common pixels gives IoU 1 at most. `val_loss` is the mean
    over images. Any distribution of the images over processes gives the same bits.
    """

    def __init__(self, is_thing: Sequence[bool]) -> None:
        """Make an empty metric.

        Args:
            is_thing: for each of the C classes whether its segments are objects.
        """
        self.is_thing = np.array(is_thing, dtype=np.bool_)
        self.num_classes = len(self.is_thing)
        self._confusion = np.zeros((self.num_classes + 1,) * 2, dtype=np.int64)
        no_rows = empty_columns(self.num_classes)
        # an image has one row of counts at score 0.5, or none
        self._table = RowTable(no_rows, {f"half_{name}": "num_half" for name in COUNTS})

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Count the common pixels of a batch on the device of its maps, then copy them at once.

        Args:
            predictions: {"segment_maps": B int32 [H, W], 0 for void and i + 1 for segment i,
                "labels": B int64 [P]}; optionally "losses": float [B]; "at_half": the first two
                with segments of a score from 0.5 on.
            batch: {"sample_ids": int [B], "ground_truth": B dicts with "segment_map" int32 [H, W]
                as in the predictions, and numpy arrays "labels" int64, "crowd" bool, "areas" int64
                [T]}.

        Raises:
            ValueError: for other shapes, labels that are no class, and where the numbers in a map
                and the labels do not belong together.
        """
        ground_truth, losses = batch["ground_truth"], predictions.get("losses")
        sample_ids, count = batch["sample_ids"].detach().cpu().numpy(), len(batch["ground_truth"])
        rows, confusion = self._count(predictions, ground_truth, sample_ids)
        half = predictions.get("at_half")
        half_rows = {name: values[:0] for name, values in rows.items()}
        if half is not None:
            half_rows, _ = self._count(half, ground_truth, sample_ids)
        self._table.append(
            {
                "sample_ids": sample_ids,
                "losses": np.full(count, np.nan)
                if losses is None
                else losses.detach().cpu().numpy(),
                "has_loss": np.full(count, losses is not None),
                "num_half": np.full(count, half is not None),
                **rows,
                **{f"half_{name}": values for name, values in half_rows.items()},
            }
        )
        self._confusion = self._confusion + confusion

    def state(self) -> Columns:
        """Return one row for each image, sorted by sample id, and "confusion" of all of them."""
        return self._table.sorted_columns() | {"confusion": self._confusion.copy()}

    def merge(self, states: Sequence[Columns]) -> None:
        """Replace the content by these states, in any order."""
        self._table.replace(states)
        self._confusion = np.zeros_like(self._confusion)
        for state in states:
            self._confusion = self._confusion + state["confusion"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._table)

    def compute(self, picks: Array | None = None) -> dict[str, float]:
        """Compute the scores of the images at `picks`.

        Args:
            picks: positions in the order of sample ids, where repeats count again; None: all.

        Returns:
            "pq", "sq", "rq", the same with "_things" and "_stuff", nan without a class to average;
            "pq_at_half" when every image has predictions at score 0.5 of their own, and "val_loss"
            when every image has a loss.
        """
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        quality = qualities(*weighted_counts([columns[name] for name in COUNTS], weights))
        every_class = np.ones(self.num_classes, dtype=np.bool_)
        groups = {"": every_class, "_things": self.is_thing, "_stuff": ~self.is_thing}
        scores = {
            name.lower() + suffix: mean_ignoring_nan(values[chosen])
            for suffix, chosen in groups.items()
            for name, values in quality.items()
        }
        if len(self) and columns["num_half"].all():
            half = [columns[f"half_{name}"] for name in COUNTS]
            at_half = qualities(*weighted_counts(half, weights))
            scores["pq_at_half"] = mean_ignoring_nan(at_half["PQ"])
        if len(self) and columns["has_loss"].all():
            mean = weighted_sum(columns["losses"], weights) / (weights.sum() or np.nan)
            scores["val_loss"] = float(mean)
        return scores

    def confusion(self) -> Array:
        """Return segments by class, int64 [C + 1, C + 1]: rows are true classes, columns predicted.

        Here segments match above IoU 0.5 whatever their classes. The last column counts missed
        segments, the last row predicted segments without a match. Crowds do not count, nor do
        predicted segments of which more than half is void or in the crowd of their class.
        """
        return self._confusion.copy()

    def per_class(self, picks: Array | None = None) -> Columns:
        """Return "PQ", "SQ", "RQ" float64 [C] and "segments" int64 [C], those that are not crowd.

        nan for a class without a ground-truth and a predicted segment. picks: as in `compute`.
        """
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        counts = weighted_counts([columns[name] for name in COUNTS], weights)
        return qualities(*counts) | {"segments": weights @ columns["segments"]}

    def per_image(self) -> Columns:
        """Return "sample_ids" int64 [N], "pq" and "losses" float64 [N], sorted by sample id.

        The PQ of an image is that of a dataset of this image alone; nan without any segment and
        without a loss.
        """
        columns = self._table.sorted_columns()
        quality = qualities(*(columns[name] for name in COUNTS))["PQ"]
        return {
            "sample_ids": columns["sample_ids"].copy(),
            "pq": np.array([mean_ignoring_nan(row) for row in quality], dtype=np.float64),
            "losses": columns["losses"].copy(),
        }

    def _count(
        self, predictions: Segments, ground_truth: Sequence[Segments], sample_ids: Array
    ) -> tuple[Columns, Array]:
        """Return the columns of a batch and its confusion, int64 [C + 1, C + 1]."""
        rows = {
            name: np.zeros((len(ground_truth), *values.shape[1:]), dtype=values.dtype)
            for name, values in empty_columns(self.num_classes).items()
            if name in (*COUNTS, "segments")
        }
        confusion = np.zeros((self.num_classes + 1,) * 2, dtype=np.int64)
        images = zip(
            sample_ids.tolist(),
            ground_truth,
            common_pixels(predictions, ground_truth),
            strict=True,
        )
        for i, (sample_id, truth, (common, labels)) in enumerate(images):
            check_segments(f"sample {sample_id}", common, truth["labels"], labels, self.num_classes)
            counts = count_image(common[1:-1, 1:-1], truth, labels, confusion)
            for name, values in counts.items():
                rows[name][i] = values
        return rows, confusion


def empty_columns(num_classes: int) -> Columns:
    """Return the columns of the table without a row."""
    integers = np.empty((0, num_classes), np.int32)
    counts: Columns = {"iou": np.empty((0, num_classes), np.float64)}
    counts |= dict.fromkeys(("tp", "fp", "fn"), integers)
    return {
        "sample_ids": np.empty(0, np.int64),
        "losses": np.empty(0, np.float64),
        "has_loss": np.empty(0, np.bool_),
        "num_half": np.empty(0, np.int64),
        "segments": integers,
        **counts,
        **{f"half_{name}": values for name, values in counts.items()},
    }


def weighted_counts(columns: Sequence[Array], weights: Array) -> list[Array]:
    """Return the sums over images of "iou", "tp", "fp", "fn", float64 [C] each.

    A matrix product in float64 is exact for whole numbers and several times as fast as in int64.
    Fractions are summed in the order of the images, since a product does not fix its order.

    Args:
        columns: [N, C] each.
        weights: int64 [N], how often each image counts.
    """
    iou, *counts = columns
    counted = np.flatnonzero(weights)
    total = (iou[counted] * weights[counted, None]).sum(axis=0)
    factors = weights.astype(np.float64)
    return [total, *(factors @ values for values in counts)]


def qualities(iou: Array, tp: Array, fp: Array, fn: Array) -> Columns:
    """Return "PQ", "SQ" and "RQ", float64 of the shape of the counts; nan without any segment.

    Args:
        iou: the sum of the IoU of the matches.
        tp, fp, fn: numbers of segments.
    """
    segments = tp + (fp + fn) / 2
    return {
        "PQ": divide(iou, segments),
        "SQ": np.where(segments > 0, iou / np.maximum(tp, 1), np.nan),
        "RQ": divide(tp, segments),
    }
