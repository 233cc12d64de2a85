"""The files that describe a run: settings.json, environment.json, split.json."""

import contextlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from visionloop.engine.augmentation import COPY, FACT, augmentation_of
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.config.options import Settings, settings_json
from visionloop.engine.types import JsonObject, SampleDataset


def stored_settings(output: Path) -> JsonObject:
    """Read {name: {"value", "source"}} of a run's settings.json; {} when there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        settings: JsonObject = json.loads((output / "settings.json").read_text())["settings"]
        return settings
    return {}


def write_run_files(
    output: Path,
    settings: Settings,
    immutable_settings: JsonObject,
    val_set: SampleDataset,
    device: torch.device,
) -> None:
    """Write settings.json, environment.json and, with --val-split, split.json. Main rank only."""
    identity = {
        name: immutable_settings[name]
        for name in ("task", "data_fingerprint", FACT)
        if name in immutable_settings
    }
    replace_file(output / "settings.json", settings_json(settings, **identity))
    replace_file(output / "environment.json", json.dumps(environment(device), indent=1) + "\n")
    if settings["val_split"].value and not settings["overfit"].value:
        names = [val_set.name(index) for index in range(len(val_set))]
        split = {"schema": 1, "val": names}
        replace_file(output / "split.json", json.dumps(split, indent=1) + "\n")


def write_augmentation(output: Path, train_set: SampleDataset) -> None:
    """Write a copy of the file of `--augment`, if the run has one. Main rank only."""
    if function := augmentation_of(train_set):
        replace_file(output / COPY, function.text)


def environment(device: torch.device) -> JsonObject:
    """Return versions, name of the GPU, command line and git commit of this start."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("torch", "torchvision", "transformers", "numpy", "safetensors")
    return {
        "visionloop": metadata.version("visionloop"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: metadata.version(name) for name in packages},
        "cuda": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "command": sys.argv,
        "git_commit": commit.stdout.strip() or None,
    }
