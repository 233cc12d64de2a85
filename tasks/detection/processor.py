"""The picture's way into the network, as `preprocessor_config.json` says it: a plain resize to a square, 0..1, no mean, no deviation."""

import json
from pathlib import Path

from visionloop.engine.errors import UserError

FILE_NAME = "preprocessor_config.json"
DEFAULT_SIZE = 640


def write_processor(folder, size):
    """preprocessor_config.json for pictures of size x size."""
    content = {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
    }
    (Path(folder) / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n")


def read_size(folder):
    """Side in pixels of the pictures that a folder's model reads; 640 where it does not say. Raises UserError for what we cannot follow."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return DEFAULT_SIZE
    try:
        content = json.loads(path.read_text())
        size = content.get("size", {"height": DEFAULT_SIZE, "width": DEFAULT_SIZE})
        if content.get("do_normalize", False) or not content.get("do_rescale", True) or size["height"] != size["width"]:
            raise ValueError("expected a resize to a square, scaled to 0..1, without mean and deviation")
        return int(size["height"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an image processor that this task can follow ({error})", file=str(path)) from None
