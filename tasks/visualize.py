"""Tables of scores by class and by image, shared by the reporting hooks of the tasks."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Column: TypeAlias = NDArray[np.int64] | NDArray[np.float64]


class PerImageMetric(Protocol):
    """A metric that keeps one row of scores for each image."""

    def per_image(self) -> Mapping[str, Column]:
        """Return {column: array [N]}; the column "sample_ids" is int64."""
        ...


def class_table(
    classes: Sequence[str], columns: Mapping[str, Column]
) -> dict[str, dict[str, float]]:
    """Turn columns of scores by class into rows, for `Task.per_class_scores`.

    Args:
        classes: C class names in order of label.
        columns: {column: array [C]}.

    Returns:
        {class name: {column: number}} in order of label. The second class of a name, as ImageNet
        has one, gets "#" and its label appended.
    """
    rows: dict[str, dict[str, float]] = {}
    for i, name in enumerate(classes):
        rows[f"{name} #{i}" if name in rows else name] = {
            column: values[i].item() for column, values in columns.items()
        }
    return rows


def per_image_scores(
    metric: PerImageMetric, column: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (sample ids [N], scores [N]) of one column of a metric, for `Task.sample_scores`."""
    rows = metric.per_image()
    return np.asarray(rows["sample_ids"], np.int64), np.asarray(rows[column], np.float64)
