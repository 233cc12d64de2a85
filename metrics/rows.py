"""A table with one row for each image that merges exactly, in any order of its parts."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# shape and dtype: see docstrings
Array: TypeAlias = NDArray[Any]  # type: ignore[explicit-any]
Columns: TypeAlias = dict[str, Array]
# predictions and batches: tensors, lists of tensors and of dicts, by names that each `update` lists
Inputs: TypeAlias = Mapping[str, Any]  # type: ignore[explicit-any]


class RowTable:
    """Columns of numpy arrays: rows are appended batch by batch and read sorted by sample id.

    A float sum over sorted rows has the same bits however the images were distributed over batches
    and processes.
    """

    def __init__(self, empty: Columns, ragged: Mapping[str, str] | None = None) -> None:
        """Make a table without rows.

        Args:
            empty: the columns without a row, which give names, dtypes and shapes. "sample_ids",
                int64, is one of them.
            ragged: {column: count column} of columns with several rows for each image: image i owns
                the next counts[i] of them.
        """
        self._empty, self._ragged = empty, ragged or {}
        self._batches: list[Columns] = []
        self._sorted: Columns | None = None  # None when out of date

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(columns["sample_ids"]) for columns in self._batches)

    def append(self, columns: Mapping[str, object]) -> None:
        """Append one row for each image of a batch. Columns that the table lacks are dropped."""
        self._batches.append(
            {
                name: np.asarray(columns[name], dtype=empty.dtype)
                for name, empty in self._empty.items()
            }
        )
        self._sorted = None

    def replace(self, states: Sequence[Columns]) -> None:
        """Replace all rows by those of these tables, in any order."""
        self._batches, self._sorted = [], None
        for state in states:
            self.append(state)

    def sorted_columns(self) -> Columns:
        """Return all rows, sorted by sample id; rows with equal ids stay in their order."""
        if self._sorted is None:
            columns = {
                name: np.concatenate([empty, *(batch[name] for batch in self._batches)])
                for name, empty in self._empty.items()
            }
            order = np.argsort(columns["sample_ids"], kind="stable")
            self._sorted = {
                name: reorder_ragged(values, columns[self._ragged[name]], order)
                if name in self._ragged
                else values[order]
                for name, values in columns.items()
            }
        return self._sorted

    def weights(self, picks: Array | Sequence[int] | None) -> Array:
        """Return how often each image counts, int64 [N].

        Args:
            picks: positions in the order of sample ids, where repeats count again; None: all once.
        """
        if picks is None:
            return np.ones(len(self), dtype=np.int64)
        return np.bincount(np.asarray(picks, dtype=np.int64), minlength=len(self))


def reorder_ragged(values: Array, counts: Array, order: Array) -> Array:
    """Put the rows of images into the order of the images, [sum of counts, ...].

    Copied image by image: an index of every row would take eight times the memory of bytes.

    Args:
        values: [sum of counts, ...], image i owns the next counts[i] rows.
        counts: int64 [N].
        order: int64 [N], a permutation of the images.
    """
    stops = np.cumsum(counts)
    bounds = zip((stops - counts)[order].tolist(), stops[order].tolist(), strict=True)
    return np.concatenate([values[:0], *(values[start:stop] for start, stop in bounds)])


def weighted_sum(values: Array, weights: Array) -> float:
    """Return the sum of values times weights; values of weight 0 are skipped, since 0 * nan is nan.

    Args:
        values: float64 [N].
        weights: int64 [N], at least 0.
    """
    counted = weights > 0
    return float((values[counted] * weights[counted]).sum())


def divide(numerator: float | Array, denominator: float | Array) -> Array:
    """Return a float64 quotient, nan where the denominator is 0."""
    return numerator / np.where(np.asarray(denominator) > 0, denominator, np.nan)


def mean_ignoring_nan(values: Array) -> float:
    """Return the mean of the values that are not nan; nan when there is none."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if len(valid) else float("nan")
