"""Average precision by COCO's rules, from columns of boxes or of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from visionloop.metrics.average_precision import Resampler
from visionloop.metrics.coco_evaluation import (
    ALL_AREAS,
    SCORE_KEYS,
    Evaluation,
    IouType,
    backend_classes,
    run_coco_eval,
    summarize,
)
from visionloop.metrics.operating_point import OperatingPoint, ThresholdRule, choose_threshold
from visionloop.metrics.rows import (
    Array,
    Columns,
    Inputs,
    RowTable,
    mean_ignoring_nan,
    weighted_sum,
)

AREAS = ("all", "small", "medium", "large")  # in the order of params.areaRng
MOST = 100  # detections of an image and class that average precision counts
IOU_75 = 5  # position of IoU 0.75 among the thresholds
MatchKey: TypeAlias = tuple[int, int]  # position in AREAS, most detections of an image and class
# columns that boxes and masks share
NO_ROWS = {
    "sample_ids": np.empty(0, np.int64),
    "losses": np.empty(0, np.float64),
    "has_loss": np.empty(0, np.bool_),
    "num_ground_truth": np.empty(0, np.int64),
    "num_detections": np.empty(0, np.int64),
    "ground_truth_labels": np.empty(0, np.int64),
    "ground_truth_crowd": np.empty(0, np.bool_),
    "ground_truth_areas": np.empty(0, np.float64),
    "scores": np.empty(0, np.float64),
    "labels": np.empty(0, np.int64),
}
COUNT_COLUMNS = {
    "ground_truth_labels": "num_ground_truth",
    "ground_truth_crowd": "num_ground_truth",
    "ground_truth_areas": "num_ground_truth",
    "scores": "num_detections",
    "labels": "num_detections",
}


class CocoMetric:
    """The part of `DetectionMetric` and `MaskAveragePrecision` that is the same for both.

    IoU 0.5 to 0.95 in steps of 0.05, 101 recall points, at most 100 detections for each image and
    class; crowds are neither required nor counted as false positives; "small" ends at 32 x 32
    pixels of annotated area, "medium" at 96 x 96. Images without a detection count. Equal scores
    are ranked in the order of sample ids, then in the order given. Any distribution of the images
    over processes gives the same bits.
    """

    iou_type: IouType
    objects: str  # the name of the column of `per_class` with their number

    def __init__(
        self,
        num_classes: int,
        backend: str,
        no_rows: Columns,
        count_columns: Mapping[str, str],
    ) -> None:
        """Make an empty metric.

        Args:
            num_classes: number of classes; labels are 0 to num_classes - 1.
            backend: "pycocotools", or "faster" (the extra `fasteval`) with the same numbers.
            no_rows, count_columns: the columns of the geometry, see `RowTable`.

        Raises:
            ValueError: where the backend is not installed.
        """
        backend_classes(backend)
        self.num_classes, self.backend = num_classes, backend
        self._table = RowTable(NO_ROWS | no_rows, COUNT_COLUMNS | dict(count_columns))
        self._evaluation: Evaluation | None = None
        self._matches: Resampler | None = None
        self._every_match: dict[MatchKey, Resampler] = {}

    def append(self, predictions: Inputs, batch: Inputs, columns: Mapping[str, object]) -> None:
        """Append one row for each image of a batch.

        Args:
            predictions: optionally "losses": [B].
            batch: {"sample_ids": int [B], "ground_truth": B dicts of numpy arrays with "labels",
                "crowd", "areas" [T]}.
            columns: the columns of the geometry, "num_detections", "scores" and "labels".

        Raises:
            ValueError: for labels that are no class.
        """
        ground_truth, losses = batch["ground_truth"], predictions.get("losses")
        count = len(ground_truth)
        shared: dict[str, object] = {
            "sample_ids": to_host(batch["sample_ids"]),
            "losses": np.full(count, np.nan) if losses is None else to_host(losses),
            "has_loss": np.full(count, losses is not None),
            "num_ground_truth": [len(image["labels"]) for image in ground_truth],
        }
        for key in ("labels", "crowd", "areas"):
            shared[f"ground_truth_{key}"] = np.concatenate(
                [np.empty(0), *(image[key] for image in ground_truth)]
            )
        row = {**columns, **shared}
        for name in ("ground_truth_labels", "labels"):
            values = np.asarray(row[name], dtype=np.int64)
            if not ((values >= 0) & (values < self.num_classes)).all():
                raise ValueError(
                    f"{name}: expected 0 to {self.num_classes - 1}, "
                    f"got {values.min()} to {values.max()}"
                )
        self._table.append(row)
        self._drop_evaluation()

    def state(self) -> Columns:
        """Return one row for each image, sorted by sample id, and the objects of all images."""
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
            divisor = int(self._loss_divisors() @ weights)
            scores["val_loss"] = weighted_sum(columns["losses"], weights) / max(1, divisor)
        return scores

    def compute_all(self, picks: Array | None = None) -> dict[str, float]:
        """Compute every score of the images at `picks`: several times the work of `compute`."""
        if not self._every_match and len(self):
            self._match_every_area()
        if picks is None or not len(self):
            return self.compute(picks)
        weights, scores = self._table.weights(picks), self.compute(picks)
        for (area, most), matches in self._every_match.items():
            recall = mean_ignoring_nan(matches.recalls(weights))
            if most != MOST:
                scores[f"AR{most}"] = recall
                continue
            precision = matches.average_precision(weights)
            if area == ALL_AREAS:
                scores["mAP75"] = mean_ignoring_nan(precision[IOU_75])
                scores[f"AR{most}"] = recall
            else:
                scores[f"mAP_{AREAS[area]}"] = mean_ignoring_nan(precision)
                scores[f"AR_{AREAS[area]}"] = recall
        return scores

    def per_class(self, picks: Array | None = None) -> Columns:
        """Return "AP", "AP50" float64 [C] and the number of objects that are not crowd, int64 [C].

        The number is called "boxes" for boxes and "segments" for masks. nan for a class without
        such objects. picks: positions of the images as in `compute`, None: all.
        """
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        count = np.bincount(
            columns["ground_truth_labels"],
            weights=np.repeat(weights, columns["num_ground_truth"])
            * ~columns["ground_truth_crowd"],
            minlength=self.num_classes,
        ).astype(np.int64)
        if picks is None:
            precision = self.evaluation().average_precision
        else:
            precision = self._resampler().average_precision(weights)
        return {"AP": precision.mean(axis=0), "AP50": precision[0], self.objects: count}

    def per_image(self) -> Columns:
        """Return "sample_ids" int64 [N] and "losses" float64 [N], sorted by sample id.

        nan without a loss. A loss is divided as in `val_loss`.
        """
        columns = self._table.sorted_columns()
        return {
            "sample_ids": columns["sample_ids"].copy(),
            "losses": columns["losses"] / np.maximum(1, self._loss_divisors()),
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

    def operating_points(self, rule: ThresholdRule) -> list[OperatingPoint]:
        """Choose a score threshold for each class from the matches at IoU 0.5."""
        matches = self._resampler()
        return [choose_threshold(*matches.class_matches(i), rule) for i in range(self.num_classes)]

    def evaluation(self) -> Evaluation:
        """Return the whole `Evaluation`, stored until the content changes.

        Takes seconds to minutes: pycocotools matches in plain Python.
        """
        if self._evaluation is None:
            evaluator = run_coco_eval(
                self._table.sorted_columns(),
                self.num_classes,
                self.backend,
                iou_type=self.iou_type,
            )
            self._evaluation = summarize(evaluator)
            if self.backend == "pycocotools":  # its matches serve for resampling too
                self._matches = Resampler(evaluator)
        return self._evaluation

    def _resampler(self) -> Resampler:
        if self._matches is None:  # faster-coco-eval does not expose its matches
            self._matches = Resampler(
                run_coco_eval(
                    self._table.sorted_columns(),
                    self.num_classes,
                    iou_type=self.iou_type,
                    all_areas_only=True,
                )
            )
        return self._matches

    def _match_every_area(self) -> None:
        """Match for the scores of `compute_all`, which then serves `evaluation` as well."""
        evaluator = run_coco_eval(
            self._table.sorted_columns(), self.num_classes, iou_type=self.iou_type
        )
        keys = [(area, MOST) for area in range(len(AREAS))] + [(ALL_AREAS, 1), (ALL_AREAS, 10)]
        self._every_match = {
            (area, most): Resampler(evaluator, area=area, max_detections=most)
            for area, most in keys
        }
        self._matches = self._every_match[ALL_AREAS, MOST]
        if self._evaluation is None:
            self._evaluation = summarize(evaluator)

    def _loss_divisors(self) -> Array:
        """Return what the loss of each image counts as in the mean, int64 [N]."""
        raise NotImplementedError

    def _drop_evaluation(self) -> None:
        self._evaluation = self._matches = None
        self._every_match = {}


def to_host(tensor: torch.Tensor) -> Array:
    """Return the values as a numpy array."""
    return tensor.detach().cpu().numpy()
