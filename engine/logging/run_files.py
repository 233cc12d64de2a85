"""The files that tell what a run is: settings.json, environment.json, split.json."""

import contextlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.config.options import settings_json


def stored_settings(output):
    """{name: {"value", "source"}} of the run's settings.json, {} when there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((output / "settings.json").read_text())["settings"]
    return {}


def write_run_files(output, settings, immutable_settings, val):
    """settings.json, environment.json and, when there is no val folder, split.json. Main rank only."""
    known = {name: immutable_settings[name] for name in ("task", "data_fingerprint")}
    replace_file(output / "settings.json", settings_json(settings, **known))
    replace_file(output / "environment.json", json.dumps(environment(), indent=1) + "\n")
    if settings["val_split"].value and not settings["overfit"].value:
        names = [val.name(index) for index in range(len(val))]
        replace_file(
            output / "split.json", json.dumps({"schema": 1, "val": names}, indent=1) + "\n"
        )


def environment():
    """Versions, device, command line and git commit of this start."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "visionloop": metadata.version("visionloop"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{
            name: metadata.version(name)
            for name in ("torch", "torchvision", "transformers", "numpy", "safetensors")
        },
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "command": sys.argv,
        "git_commit": commit.stdout.strip() or None,
    }
