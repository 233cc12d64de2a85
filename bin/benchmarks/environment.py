"""What stands beside every figure."""

import json
import os
import platform
from importlib import metadata


def describe_environment(options):
    """Sizes, versions, machine and its load: {name: value}."""
    return {
        "options": {name: value for name, value in options.items() if value is not None},
        "versions": {
            name: metadata.version(name)
            for name in ("visionloop", "torch", "torchvision", "transformers")
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def append_line(json_file, **figures):
    """One more object at the end of a file of json lines; None: nowhere."""
    if json_file:
        with open(json_file, "a") as file:
            file.write(json.dumps(figures) + "\n")
