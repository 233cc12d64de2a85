"""Scores of semantic segmentation, computed from integer counts of pixels for each image."""

from collections.abc import Sequence

import numpy as np
import torch

from visionloop.metrics.rows import (
    Array,
    Columns,
    Inputs,
    RowTable,
    divide,
    mean_ignoring_nan,
    weighted_sum,
)


class SegmentationMetric:
    """Mean intersection over union, pixel accuracy and mean accuracy over classes.

    All are computed from the pixels of all images together. Pixels whose true id is 255 are
    ignored, whatever was predicted there; a predicted id that is no class is a wrong prediction. A
    class in no true and no predicted pixel has no IoU, and one without true pixels no accuracy:
    they are left out of the means, not counted as zeros. `val_loss` is the mean over images. With
    `levels`, the ids predicted by earlier layers are scored in the same way. Any distribution of
    the images over processes gives the same bits.
    """

    def __init__(self, num_classes: int, levels: int = 0) -> None:
        """Make an empty metric.

        Args:
            num_classes: at most 255.
            levels: number of intermediate predictions for each image in "level_ids".
        """
        self.num_classes, self.levels = num_classes, levels
        self._confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self._table = RowTable(no_rows(num_classes, levels))

    def update(self, predictions: Inputs, batch: Inputs) -> None:
        """Count the pixels of a batch on the device of its ids, then copy all counts at once.

        Args:
            predictions: {"ids": B uint8 [H, W]}; optionally "losses": float [B]; with levels,
                "level_ids": B uint8 [levels, H, W].
            batch: {"ids": B uint8 [H, W] of 0 to C-1 or 255, "sample_ids": int [B]}.

        Raises:
            ValueError: for other shapes.
        """
        targets, losses = batch["ids"], predictions.get("losses")
        levels = predictions["level_ids"] if self.levels else [None] * len(targets)
        per_image = [
            self._count(*ids) for ids in zip(targets, predictions["ids"], levels, strict=True)
        ]
        counts = (
            torch.stack(per_image).cpu().numpy()
            if per_image
            else np.zeros((0, 1 + self.levels, *2 * [self.num_classes + 1]), np.int64)
        )
        counts = counts[:, :, :-1]  # without ignored pixels
        valid = counts[..., :-1]  # without predictions that are no class
        hits, predicted = valid.diagonal(axis1=2, axis2=3), valid.sum(axis=2)  # [B, 1 + levels, C]
        columns = {
            "sample_ids": batch["sample_ids"].detach().cpu().numpy(),
            "losses": np.full(len(targets), np.nan)
            if losses is None
            else losses.detach().cpu().numpy(),
            "has_loss": np.full(len(targets), losses is not None),
            "hits": hits[:, 0],
            "pixels": counts[:, 0].sum(axis=2),
            "predicted": predicted[:, 0],
            "level_hits": hits[:, 1:],
            "level_predicted": predicted[:, 1:],
        }
        self._table.append(columns)
        self._confusion = self._confusion + valid[:, 0].sum(axis=0)

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
            "miou", "pixel_accuracy", "mean_class_accuracy", "val_loss" when every image has a loss,
            and "miou_level_0", ... with levels; nan without pixels.
        """
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        hits, pixels, predicted = self._totals(picks)
        scores = {
            "miou": mean_ignoring_nan(intersection_over_union(hits, pixels, predicted)),
            "pixel_accuracy": hits.sum() / (pixels.sum() or np.nan),
            "mean_class_accuracy": mean_ignoring_nan(divide(hits, pixels)),
        }
        if len(self) and columns["has_loss"].all():
            scores["val_loss"] = weighted_sum(columns["losses"], weights) / (
                weights.sum() or np.nan
            )
        for level in range(self.levels):
            hits, predicted = (
                weights @ columns[name][:, level] for name in ("level_hits", "level_predicted")
            )
            scores[f"miou_level_{level}"] = mean_ignoring_nan(
                intersection_over_union(hits, pixels, predicted)
            )
        return {key: float(value) for key, value in scores.items()}

    def confusion(self) -> Array:
        """Return pixels by class, int64 [C, C]: rows are true classes, columns predictions."""
        return self._confusion.copy()

    def per_class(self, picks: Array | None = None) -> Columns:
        """Return "IoU", "accuracy" and "pixels" (share of all true pixels), float64 [C] each.

        nan for a class that has none, see the class docstring. picks: as in `compute`.
        """
        hits, pixels, predicted = self._totals(picks)
        return {
            "IoU": intersection_over_union(hits, pixels, predicted),
            "accuracy": divide(hits, pixels),
            "pixels": pixels / (pixels.sum() or np.nan),
        }

    def per_image(self) -> Columns:
        """Return "sample_ids" int64 [N] and "miou" float64 [N], sorted by sample id.

        The mean is over the classes that are in the ground truth of the image. A class that is
        predicted but absent lowers the IoU of the others and is not counted as zero: one stray
        pixel would outweigh the whole image. nan without a pixel of any class.
        """
        columns = self._table.sorted_columns()
        union = intersection_over_union(columns["hits"], columns["pixels"], columns["predicted"])
        present = columns["pixels"] > 0
        overlap = np.where(present, union, 0).sum(axis=1) / np.where(
            present.any(axis=1), present.sum(axis=1), np.nan
        )
        return {"sample_ids": columns["sample_ids"].copy(), "miou": overlap}

    def majority_scores(self, majority_class: int | None = None) -> dict[str, float]:
        """Return "miou" and "pixel_accuracy" of predicting one class everywhere.

        Args:
            majority_class: the largest class in training; None: in the evaluated images.
        """
        _, pixels, _ = self._totals()
        one_hot = np.zeros_like(pixels)
        one_hot[pixels.argmax() if majority_class is None else majority_class] = 1
        union = intersection_over_union(one_hot * pixels, pixels, one_hot * pixels.sum())
        return {
            "miou": mean_ignoring_nan(union),
            "pixel_accuracy": float((one_hot * pixels).sum() / (pixels.sum() or np.nan)),
        }

    def _count(
        self, target: torch.Tensor, prediction: torch.Tensor, levels: torch.Tensor | None
    ) -> torch.Tensor:
        """Count pixels by true and predicted id, int64 [1 + levels, C + 1, C + 1].

        The last row and column hold ids that are no class.
        """
        if prediction.shape != target.shape or (
            levels is not None and levels.shape != (self.levels, *target.shape)
        ):
            others = "" if levels is None else f", level_ids {tuple(levels.shape)}"
            raise ValueError(
                f"ids: expected shape {tuple(target.shape)}, got {tuple(prediction.shape)}{others}"
            )
        ids = [prediction] if levels is None else [prediction, *levels]
        return torch.stack([count_pairs(target, each, self.num_classes) for each in ids])

    def _totals(self, picks: Array | None = None) -> tuple[Array, ...]:
        """Return (hits, pixels, predicted) of the images at `picks`, int64 [C] each."""
        columns, weights = self._table.sorted_columns(), self._table.weights(picks)
        return tuple(weights @ columns[name] for name in ("hits", "pixels", "predicted"))


def no_rows(num_classes: int, levels: int) -> Columns:
    """Return the columns of the table without a row."""
    per_class = np.empty((0, num_classes), np.int64)
    per_level = np.empty((0, levels, num_classes), np.int64)
    return {
        "sample_ids": np.empty(0, np.int64),
        "losses": np.empty(0, np.float64),
        "has_loss": np.empty(0, np.bool_),
        "hits": per_class,
        "pixels": per_class,
        "predicted": per_class,
        "level_hits": per_level,
        "level_predicted": per_level,
    }


def count_pairs(target: torch.Tensor, prediction: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Count the pixels with each pair of true and predicted id, int64 [C + 1, C + 1].

    In int32: with int64 it took six times as long (0.25 ms for 480 x 360 pixels of 11 classes, 3.5
    ms for 2048 x 1024 of 19, one core).

    Args:
        target, prediction: uint8 [H, W]; ids from C on count as C.
    """
    side = num_classes + 1
    cells = target.clamp(max=num_classes).to(torch.int32)
    cells.mul_(side).add_(prediction.clamp(max=num_classes))
    return torch.bincount(cells.flatten(), minlength=side**2).view(side, side)


def intersection_over_union(hits: Array, pixels: Array, predicted: Array) -> Array:
    """Return the IoU of each class, float64 [..., C], nan where the union is empty.

    Args:
        hits: pixels of class c predicted as c.
        pixels: pixels of class c.
        predicted: pixels predicted as c.
    """
    return divide(hits, pixels + predicted - hits)
