"""Types that several packages share; imports no torch."""

from typing import Any, Protocol, TypeAlias

# Parsed JSON, and settings on their way to a file: checked where they are read.
JsonObject: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# One sample of a dataset: tensors, or lists of tensors, in names that each task chooses.
Sample: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# The result of `Task.predict`: keys and tensors differ by task.
Predictions: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# In hooks of a task: the module of its own `build_model` (an nn.Module), the metric of its own
# `build_metric` (an `engine.metric.Metric`) and its own dataset (a SampleDataset), with attributes
# that only the task uses.
TaskModule: TypeAlias = Any  # type: ignore[explicit-any]
TaskMetric: TypeAlias = Any  # type: ignore[explicit-any]
TaskDataset: TypeAlias = Any  # type: ignore[explicit-any]
# {metric key: value}
Scores: TypeAlias = dict[str, float]


class SampleDataset(Protocol):
    """A dataset of samples; it can be pickled."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises OSError when it cannot be read. One with an attribute `code` is never skipped.
        """

    def name(self, index: int) -> str:
        """Return the path of a sample, for messages."""

    def fingerprint(self) -> str:
        """Return a text that changes when the samples do."""
