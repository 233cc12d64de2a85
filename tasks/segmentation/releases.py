"""The models of semantic, instance and panoptic segmentation: one table for each task.

Imports no torch.
"""

from functools import cache

from visionloop.engine.types import JsonObject
from visionloop.tasks.model_zoo import CHOSEN, FAMILY, START, UNRELEASED, read_models

WORDS = {
    "segmentation": "semantic",
    "instance_segmentation": "instance",
    "panoptic_segmentation": "panoptic",
}


@cache
def model_tables(task: str) -> JsonObject:
    """Return "task", "defaults" and "models" of a task for `tasks.model_zoo.zoo_fields`.

    Its own models come first, then the weights of the other two tasks, which are a start for it.
    Read-only: callers share the tables. task: a key of WORDS.
    """
    tables = read_models("segmentation")
    models = [_model(table, task) for table in tables["models"] if _is_listed(table, task)]
    models.sort(key=lambda model: int(model["priority"]))
    models[0]["priority"] = CHOSEN
    defaults = tables["defaults"] | {"use_cases": [tables["use_cases"][task]]}
    return {"task": tables["tasks"][task], "defaults": defaults, "models": models}


def _is_listed(table: JsonObject, task: str) -> bool:
    """Return whether a model is of this task: its own, or one with released weights."""
    return bool(table["trained_for"] == task or "/" in table["model_id"])


def _model(table: JsonObject, task: str) -> JsonObject:
    """Return the fields of Model for this task."""
    fields = {key: value for key, value in table.items() if key != "trained_for"}
    trained_for = table["trained_for"]
    if "/" not in table["model_id"]:
        return fields | {"priority": UNRELEASED}
    if trained_for == task:
        return fields | {"priority": FAMILY}
    note = (
        f"Its predictions are {WORDS[trained_for]}: for {WORDS[task]} segmentation its ViT and "
        "queries are a start."
    )
    return fields | {"priority": START, "description": f"{table['description']} {note}"}
