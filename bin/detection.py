r"""Object detection from the command line.

One GPU, or none:
    python bin/detection.py train --data coco/ --model ustc-community/dfine-small-coco --epochs 20
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/detection.py train --data coco/ --model ustc-community/dfine-medium-coco --epochs 20
Afterwards:
    python bin/detection.py evaluate --data coco/ \
        --model runs/detection-coco-dfine-small-coco/best
    python bin/detection.py predict --model .../best --input street/ --output predictions/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.recipes import recipe

if TYPE_CHECKING:
    from visionloop.tasks.detection.task import DetectionTask


def load_task_class() -> type[DetectionTask]:
    """Import the task late: torch and transformers take seconds, and `--help` should be quick."""
    from visionloop.tasks.detection.task import DetectionTask

    return DetectionTask


commands = task_commands(
    "detection",
    DetectionConfig,
    load_task_class,
    recipe=recipe,
    predict_options=("score",),
)


def main() -> None:
    """Run the command line."""
    run_commands(commands)


if __name__ == "__main__":
    main()
