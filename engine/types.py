"""Type aliases that several packages share; imports no torch."""

from typing import Any, TypeAlias

# parsed json, and settings on their way to a file: checked where they are read
JsonObject: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# what `Task.predict` returns: each task has keys and tensors of its own
Predictions: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]
# {metric key: value}
Scores: TypeAlias = dict[str, float]
