"""Names of tasks and scores.

A task that is not one of visionloop is shown by its keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.engine.types import JsonObject


def describe_task(name: str | None, keys: Sequence[str]) -> JsonObject:
    """Return the names and formats of a task's scores.

    Args:
        name: of the task as in settings.json, None for an unknown one.
        keys: of all scores to show.

    Returns:
        {"name", "label", "primary", "metrics"}; metrics: [{"key", "label", "format",
        "higher_is_better", "description"}] in the order of the task, then the keys that it does not
        define.
    """
    zoo = next((zoo for zoo in MODEL_ZOOS if zoo.command == name), None)
    if zoo is None:
        return {
            "name": name,
            "label": name.replace("_", " ") if name else "unknown task",
            "primary": None,
            "metrics": [undefined_metric(key) for key in keys],
        }
    metric_of = {spec.key: asdict(spec) for spec in zoo.metrics}
    described = [metric for key, metric in metric_of.items() if key in keys]
    described += [related_metric(key, metric_of) for key in keys if key not in metric_of]
    return {
        "name": name,
        "label": zoo.label["en"],
        "primary": zoo.primary_metric,
        "metrics": described,
    }


def undefined_metric(key: str) -> JsonObject:
    """Return the description of a score that no task defines; higher_is_better is None."""
    return {
        "key": key,
        "label": key.replace("_", " "),
        "format": "float",
        "higher_is_better": None,
        "description": "",
    }


def related_metric(key: str, metric_of: Mapping[str, JsonObject]) -> JsonObject:
    """Return the description of a score that a run adds to those of its task.

    A key such as `miou_level_0` has the format of the longest key that it begins with.
    """
    related = [metric for name, metric in metric_of.items() if key.startswith(f"{name}_")]
    if not related:
        return undefined_metric(key)
    longest = max(related, key=lambda metric: len(metric["key"]))
    return undefined_metric(key) | {
        "format": longest["format"],
        "higher_is_better": longest["higher_is_better"],
    }
