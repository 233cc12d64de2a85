"""What a score is called, and what the engine asks of the object that computes scores."""

from dataclasses import dataclass
from typing import Any, Protocol

from visionloop.engine.batch import Batch


@dataclass(frozen=True)
class MetricSpec:
    """One row of the table of metrics. key: as in metrics.jsonl; format: how to print it."""

    key: str
    label: str
    format: str  # "float" or "percent" (a value in 0..1 shown times 100)
    higher_is_better: bool
    description: str

    def show(self, value):
        """The value as a person reads it."""
        return f"{100 * value:.2f} %" if self.format == "percent" else f"{value:.4f}"


class Metric(Protocol):
    """Evidence about images that merges exactly: integers, and floats kept per image.

    `compute(picks)` scores the images at these positions (repeats count again), all of them for
    None; the engine draws its confidence intervals with it. `len(metric)` is the number of images
    seen. Every task reports `val_loss`.
    """

    def update(self, predictions: Any, batch: Batch) -> None: ...
    def state(self) -> dict: ...  # numpy arrays only, one row per image where possible
    def merge(
        self, states: list
    ) -> None: ...  # replaces the content; sorted by sample id, so the order of states is no matter
    def compute(self, picks=None) -> dict: ...  # {metric key: float}
    def __len__(self) -> int: ...
