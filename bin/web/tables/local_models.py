"""Trained models on this machine: best/ of the runs, and Hugging Face folders below the roots.

Reads small JSON files alone, within bounds, and imports no torch.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, Field

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.reports.run_folder import as_object, best_of, is_run, read_object
from visionloop.bin.web.runs.identity import run_id
from visionloop.engine.types import JsonObject
from visionloop.tasks.segmentation.segments.things import ADE20K_CLASSES, COCO_CLASSES

TaskName = Literal[
    "classification",
    "detection",
    "segmentation",
    "instance_segmentation",
    "panoptic_segmentation",
    "super_resolution",
]
# how the name of an architecture in config.json ends -> the task
ARCHITECTURES: dict[str, TaskName] = {
    "ForImageClassification": "classification",
    "ForObjectDetection": "detection",
    "ForUniversalSegmentation": "segmentation",  # or another one: see `segmentation_task`
    "ForImageSuperResolution": "super_resolution",
}
TASK_NAMES: dict[str, TaskName] = {name: name for name in get_args(TaskName)}
TASK_TYPES = {zoo.command: zoo.value for zoo in MODEL_ZOOS}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
BEST = "best"
MAX_CONFIG_BYTES = 4 << 20  # thousands of class names
MAX_DEPTH, MAX_FOLDERS, MAX_MODELS = 8, 20_000, 1000


class LocalModel(BaseModel):
    """A folder with config.json and safetensors."""

    path: str
    name: str = Field(description="the run, or the folder below its root")
    task: TaskName
    task_type: str = Field(description="the task as the platform contract names it")
    source: Literal["run", "folder"]
    run_id: str | None = None
    metric: str | None = Field(
        default=None, description="key of the score that picked these weights"
    )
    score: float | None = None
    model_type: str | None = Field(default=None, description="type of the network in transformers")
    num_classes: int | None = None


def find_local_models(roots: Sequence[Path]) -> list[LocalModel]:
    """List the models below some folders, those that were written last first.

    roots: resolved folders; one that does not exist holds none. A link to a folder is not followed.
    """
    found: dict[str, tuple[float, LocalModel]] = {}
    for root in roots:
        for folder in model_folders(root):
            model = describe_model(folder, root) if str(folder) not in found else None
            if model is not None:
                found[str(folder)] = ((folder / "config.json").stat().st_mtime, model)
    latest = sorted(found.values(), key=lambda pair: (-pair[0], pair[1].path))
    return [model for _, model in latest[:MAX_MODELS]]


def model_folders(root: Path) -> Iterator[Path]:
    """Yield folders with config.json and safetensors at or below `root`, sorted by path.

    Of a run only best/ is searched: its checkpoints are not for use. Hidden folders are left out.
    """
    top_depth = len(root.parts)
    for count, (name, folders, files) in enumerate(os.walk(root)):
        folder = Path(name)
        if count >= MAX_FOLDERS:
            return
        if "config.json" in files and any(weights in files for weights in WEIGHTS):
            folders.clear()
            yield folder
        if is_run(folder):
            folders[:] = [one for one in folders if one == BEST]
        if len(folder.parts) - top_depth >= MAX_DEPTH:
            folders.clear()
        folders[:] = sorted(one for one in folders if not one.startswith("."))


def describe_model(folder: Path, root: Path) -> LocalModel | None:
    """Describe a model folder; None for a model of no task of ours."""
    task = task_of(folder)
    if task is None:
        return None
    config, run = read_config(folder), run_of(folder)
    best = best_of(read_object(run / "status.json")) if run else None
    named = run or folder
    model_type, labels = config.get("model_type"), config.get("id2label")
    has_classes = task != "super_resolution" and isinstance(labels, dict)
    return LocalModel(
        path=str(folder),
        name=named.name if named == root else named.relative_to(root).as_posix(),
        task=task,
        task_type=TASK_TYPES[task],
        source="run" if run else "folder",
        run_id=run_id(run) if run else None,
        metric=best["metric"] if best else None,
        score=best["score"] if best else None,
        model_type=model_type if isinstance(model_type, str) else None,
        num_classes=len(labels) if has_classes and isinstance(labels, dict) else None,
    )


def run_of(folder: Path) -> Path | None:
    """Return the run whose best/ a folder is, or None."""
    return folder.parent if folder.name == BEST and is_run(folder.parent) else None


def read_config(folder: Path, name: str = "config.json") -> JsonObject:
    """Read a JSON file of a model folder; {} where there is none, or none that can be read."""
    try:
        with open(folder / name, "rb") as file:
            content = json.loads(file.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def task_of(folder: Path) -> TaskName | None:
    """Return the task of a model, None for an unknown one.

    best/ has the task of its run. Any other folder has that of the architecture in its config.json.
    """
    config, run = read_config(folder), run_of(folder)
    settings = as_object(read_object(run / "settings.json").get("settings")) if run else {}
    named = TASK_NAMES.get(str(as_object(settings.get("task")).get("value")))
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else []:
        for ending, task in ARCHITECTURES.items():
            if isinstance(name, str) and name.endswith(ending):
                return named or (
                    segmentation_task(config, read_config(folder, "preprocessor_config.json"))
                    if task == "segmentation"
                    else task
                )
    return None


def segmentation_task(config: JsonObject, processor: JsonObject) -> TaskName:
    """Return which segmentation a model does: its architecture is the same for all three.

    1. Semantic: the image processor splits images into windows.
    2. Panoptic: `is_thing` of config.json has a 0, which this project writes for the classes of
       stuff. Without `is_thing`: as many classes as the released panoptic models have.
    3. Instance: all others with an image processor or `is_thing`; semantic without both.

    Args:
        config: config.json.
        processor: preprocessor_config.json, {} without one.
    """
    flags, labels = config.get("is_thing"), config.get("id2label")
    if processor.get("do_split_image") or not (processor or isinstance(flags, list)):
        return "segmentation"
    if isinstance(flags, list):
        return "panoptic_segmentation" if 0 in flags else "instance_segmentation"
    number = len(labels) if isinstance(labels, dict) else 0
    is_panoptic = number in (COCO_CLASSES, ADE20K_CLASSES)
    return "panoptic_segmentation" if is_panoptic else "instance_segmentation"
