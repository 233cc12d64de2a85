"""`evaluate --operating-point`: what it needs, and the manifest of the folder that it changes."""

import json
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.checkpoints.manifest import MANIFEST, make_manifest
from visionloop.engine.errors import UserError
from visionloop.engine.metric import Metric
from visionloop.engine.task import Task
from visionloop.metrics.coco_metric import CocoMetric
from visionloop.metrics.operating_point import ThresholdRule
from visionloop.tasks.operating_point import save_operating_point

FLAG = "--operating-point"
# tasks whose predictions no score threshold filters
NO_THRESHOLD = {
    "classification": "the most probable class is predicted, whatever its score",
    "segmentation": "each pixel gets its most probable class, whatever its score",
    "panoptic_segmentation": "--score decides which queries compete for each pixel: another "
    "threshold gives other segments, so that none follows from matched ones; compare the PQ of "
    "evaluate --score 0.3, 0.5 and so on",
    "super_resolution": "an image has no score",
}


def check_operating_point(
    task_class: type[Task], rule: str, *, model: str | None, split: str
) -> None:
    """Raise UserError for a wrong rule and where there is nothing to choose or to write it to.

    Args:
        task_class: the task.
        rule: text of the option.
        model: folder of the model, None for saved predictions.
        split: that is evaluated.
    """
    why, field = None, "operating_point"
    try:
        ThresholdRule.parse(rule)
    except ValueError as error:
        raise UserError(f"{FLAG} {error}", field=field) from None
    if task_class.name in NO_THRESHOLD:
        why = NO_THRESHOLD[task_class.name]
    elif split != "val":
        why = f"is chosen on the validation images; expected --split val, got {split}"
    elif model is None:
        why = "needs --model, whose config.json takes it"
    elif not (Path(model) / "config.json").is_file():
        why = f"--model {model}: expected a local model folder, whose config.json takes it"
    elif (Path(model) / "state.json").is_file():
        why = f"--model {model}: a checkpoint stays as it is; expected best/ of the run"
    if why:
        raise UserError(f"{FLAG}: {why}", field=field)


def store_operating_point(task: Task, metric: Metric, rule: str, folder: Path) -> list[str]:
    """Write the thresholds into a model folder, and its manifest again. Returns lines to print."""
    if not isinstance(metric, CocoMetric):
        raise UserError(
            f"{FLAG}: predictions of {task.name} have no score", field="operating_point"
        )
    chosen = ThresholdRule.parse(rule)
    classes = list(task.per_class_scores(metric))
    lines = save_operating_point(
        folder, metric.operating_points(chosen), classes, chosen, len(metric)
    )
    if (folder / MANIFEST).is_file():
        content = json.dumps(make_manifest(folder), indent=1) + "\n"
        replace_file(folder / MANIFEST, content)
    return lines
