"""Scores of semantic segmentation, from whole numbers of pixels so that any sharding gives the same bits."""

import numpy as np
import torch

from visionloop.metrics.average_precision import mean_of_known


class SegmentationMetric:
    """Mean intersection over union, pixel accuracy and mean accuracy over classes, of all pixels together.

    Pixels whose true id is 255 take no part, whatever was predicted there; a predicted id that is
    no class is a wrong answer. A class that is in no true and no predicted pixel has no IoU, and
    one without true pixels no accuracy: they are left out of the means, not counted as zeros.
    `val_loss` is the mean over images. With `levels`, the ids of earlier predictions are scored
    in the same way.
    """

    def __init__(self, num_classes, levels=0):
        """num_classes: at most 255; levels: how many predictions per image stand in "level_ids"."""
        self.num_classes, self.levels = num_classes, levels
        self._batches = []  # column dicts as they came
        self._confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self._table = None  # all of them as one, sorted by sample id; None when out of date

    def update(self, predictions, batch):
        """Count a batch on the device of its ids, then copy the counts to the host at once.

        predictions: {"ids": B uint8 [H, W]} and, or not, "losses": [B]; with levels, "level_ids": B
        uint8 [levels, H, W]. batch: {"ids": B uint8 [H, W] of 0 to C-1 or 255, "sample_ids": int
        [B]}. Raises ValueError for other shapes.
        """
        truth, found, losses = batch["ids"], predictions["ids"], predictions.get("losses")
        levels = predictions["level_ids"] if self.levels else [None] * len(truth)
        counts = [self._count(*ids) for ids in zip(truth, found, levels, strict=True)]
        counts = (
            torch.stack(counts).cpu().numpy()
            if counts
            else np.zeros((0, 1 + self.levels, *2 * [self.num_classes + 1]), np.int64)
        )
        counts = counts[:, :, :-1]  # without the pixels that are ignored
        shown = counts[..., :-1]  # without answers that are no class
        hits, predicted = shown.diagonal(axis1=2, axis2=3), shown.sum(axis=2)  # [B, 1 + levels, C]
        columns = {
            "sample_ids": batch["sample_ids"].detach().cpu().numpy(),
            "losses": np.full(len(truth), np.nan)
            if losses is None
            else losses.detach().cpu().numpy(),
            "has_loss": np.full(len(truth), losses is not None),
            "hits": hits[:, 0],
            "pixels": counts[:, 0].sum(axis=2),
            "predicted": predicted[:, 0],
            "level_hits": hits[:, 1:],
            "level_predicted": predicted[:, 1:],
        }
        self._append(columns, shown[:, 0].sum(axis=0))

    def state(self):
        """{column: array}: one row per image sorted by sample id, and "confusion" of all of them."""
        return dict(self._rows()) | {"confusion": self._confusion.copy()}

    def merge(self, states):
        """Replace the content by that of these states, in any order."""
        self._batches, self._confusion = [], np.zeros_like(self._confusion)
        self._table = None
        for state in states:
            self._append(state, state["confusion"])

    def __len__(self):
        return sum(len(columns["sample_ids"]) for columns in self._batches)

    def compute(self, picks=None):
        """{"miou", "pixel_accuracy", "mean_class_accuracy", "val_loss" when every image came with its loss, "miou_level_0", ..}.

        picks: positions in the order of sample ids, repeats count again; None: all. nan where there
        are no pixels.
        """
        rows, count = self._rows(), len(self)
        weights = (
            np.ones(count, dtype=np.int64)
            if picks is None
            else np.bincount(np.asarray(picks, dtype=np.int64), minlength=count)
        )
        hits, pixels, predicted = (
            weights @ rows[column] for column in ("hits", "pixels", "predicted")
        )
        scores = {
            "miou": mean_of_known(intersection_over_union(hits, pixels, predicted)),
            "pixel_accuracy": hits.sum() / (pixels.sum() or np.nan),
            "mean_class_accuracy": mean_of_known(class_accuracy(hits, pixels)),
        }
        if count and rows["has_loss"].all():
            drawn = weights > 0  # zero times a nan would be nan
            scores["val_loss"] = (rows["losses"][drawn] * weights[drawn]).sum() / (
                weights.sum() or np.nan
            )
        for level in range(self.levels):
            hits, predicted = (
                weights @ rows[column][:, level] for column in ("level_hits", "level_predicted")
            )
            scores[f"miou_level_{level}"] = mean_of_known(
                intersection_over_union(hits, pixels, predicted)
            )
        return {key: float(value) for key, value in scores.items()}

    def confusion(self):
        """int64 [C, C] of pixels: rows are true classes, columns predicted ones."""
        return self._confusion.copy()

    def per_class(self):
        """{"IoU", "accuracy": share of a class's pixels found, "pixels": its share of all true pixels}, float64 [C] each.

        nan for a class that has none: see above.
        """
        hits, pixels, predicted = self._totals()
        share = pixels / (pixels.sum() or np.nan)
        return {
            "IoU": intersection_over_union(hits, pixels, predicted),
            "accuracy": class_accuracy(hits, pixels),
            "pixels": share,
        }

    def per_image(self):
        """{"sample_ids": int64 [N], "miou": float64 [N], mean over the classes that truly are in the image}, sorted by sample id.

        A class that is answered but not there lowers the others' overlap and counts no zero of its
        own: one stray pixel would outweigh the whole image. nan without a pixel of a known class.
        """
        rows = self._rows()
        union = intersection_over_union(rows["hits"], rows["pixels"], rows["predicted"])
        present = rows["pixels"] > 0
        overlap = np.where(present, union, 0).sum(axis=1) / np.where(
            present.any(axis=1), present.sum(axis=1), np.nan
        )
        return {"sample_ids": rows["sample_ids"].copy(), "miou": overlap}

    def majority_scores(self, majority_class=None):
        """{"miou", "pixel_accuracy"} of always answering one class: the largest in the evaluated images, or in training if given."""
        _, pixels, _ = self._totals()
        one = np.zeros_like(pixels)
        one[pixels.argmax() if majority_class is None else majority_class] = 1
        union = intersection_over_union(one * pixels, pixels, one * pixels.sum())
        return {
            "miou": mean_of_known(union),
            "pixel_accuracy": float((one * pixels).sum() / (pixels.sum() or np.nan)),
        }

    def _count(self, truth, found, levels):
        """int64 [1 + levels, C + 1, C + 1]: pixels by true and predicted id, last what is no class."""
        if found.shape != truth.shape or (
            levels is not None and levels.shape != (self.levels, *truth.shape)
        ):
            others = "" if levels is None else f", level_ids {tuple(levels.shape)}"
            raise ValueError(
                f"ids: expected shape {tuple(truth.shape)}, got {tuple(found.shape)}{others}"
            )
        ids = [found] if levels is None else [found, *levels]
        return torch.stack([count_pairs(truth, one, self.num_classes) for one in ids])

    def _totals(self):
        rows = self._rows()
        return tuple(rows[column].sum(axis=0) for column in ("hits", "pixels", "predicted"))

    def _append(self, columns, confusion):
        self._batches.append(
            {
                column: np.asarray(columns[column], dtype=none.dtype)
                for column, none in self._nothing().items()
            }
        )
        self._confusion = self._confusion + confusion
        self._table = None

    def _nothing(self):
        """The columns without a row."""
        of_class, of_level = (
            np.empty((0, self.num_classes), np.int64),
            np.empty((0, self.levels, self.num_classes), np.int64),
        )
        columns = {
            "sample_ids": np.empty(0, np.int64),
            "losses": np.empty(0, np.float64),
            "has_loss": np.empty(0, np.bool_),
        }
        columns |= dict.fromkeys(("hits", "pixels", "predicted"), of_class)
        return columns | dict.fromkeys(("level_hits", "level_predicted"), of_level)

    def _rows(self):
        if self._table is None:
            whole = {
                column: np.concatenate([none, *(batch[column] for batch in self._batches)])
                for column, none in self._nothing().items()
            }
            order = np.argsort(whole["sample_ids"], kind="stable")
            self._table = {column: values[order] for column, values in whole.items()}
        return self._table


def count_pairs(truth, found, num_classes):
    """int64 [C + 1, C + 1]: in how many pixels true id t meets predicted id p; ids from C on count as C. Both: uint8 [H, W].

    In int32: with int64 it took six times as long (0.25 ms for 480 x 360 pixels of 11 classes, 3.5
    ms for 2048 x 1024 of 19, one core).
    """
    side = num_classes + 1
    cells = truth.clamp(max=num_classes).to(torch.int32)
    cells.mul_(side).add_(found.clamp(max=num_classes))
    return torch.bincount(cells.flatten(), minlength=side**2).view(side, side)


def intersection_over_union(hits, pixels, predicted):
    """float64 [C], nan where the union is empty. hits: pixels of class c found as c; pixels: truly c; predicted: as c."""
    union = pixels + predicted - hits
    return hits / np.where(union > 0, union, np.nan)


def class_accuracy(hits, pixels):
    """float64 [C]: share of a class's pixels that were found, nan for a class without any."""
    return hits / np.where(pixels > 0, pixels, np.nan)
