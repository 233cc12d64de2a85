"""Metrics: the description of a score, and the interface of the objects that compute scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.engine.types import Predictions, Scores

if TYPE_CHECKING:
    from visionloop.engine.batch import Batch

# {column: array}, with different dtypes
MetricState: TypeAlias = dict[str, NDArray[Any]]  # type: ignore[explicit-any]


@dataclass(frozen=True)
class MetricSpec:
    """The description of one score.

    Attributes:
        key: the name in metrics.jsonl and in TensorBoard.
        label: the name in tables.
        format: "float", or "percent" for a value in 0..1 that is printed times 100.
        higher_is_better: whether a larger value is the better one.
        description: one phrase for the tables and the model card.
    """

    key: str
    label: str
    format: Literal["float", "percent"]
    higher_is_better: bool
    description: str

    def show(self, value: float) -> str:
        """Format a value for people; "-" for a share of nothing, e.g. AP without such objects."""
        if self.format == "percent":
            return "-" if math.isnan(value) else f"{100 * value:.2f} %"
        return f"{value:.4f}"


class Metric(Protocol):
    """Per-image evidence that merges exactly: integers, and floats kept for each image.

    Every metric reports `val_loss`.
    """

    def update(self, predictions: Predictions, batch: Batch) -> None:
        """Add the images of one batch."""

    def state(self) -> MetricState:
        """Return numpy arrays alone, one row for each image where possible."""

    def merge(self, states: Sequence[MetricState]) -> None:
        """Replace the content by all states, sorted by sample id: their order does not matter."""

    def compute(self, picks: NDArray[np.int64] | None = None) -> Scores:
        """Score the images at these positions, where repeats count again; all images for None.

        The engine draws its bootstrap confidence intervals with `picks`.
        """

    def __len__(self) -> int:
        """Return the number of images."""
