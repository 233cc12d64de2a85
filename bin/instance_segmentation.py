r"""Train and use models for instance segmentation.

One GPU, or none:
    python bin/instance_segmentation.py train --data cells/ \
        --model tue-mps/coco_instance_eomt_large_640 --epochs 12
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 bin/instance_segmentation.py train \
        --data cells/ --model facebook/dinov2-with-registers-base --epochs 24
Then evaluate and predict:
    python bin/instance_segmentation.py evaluate --data cells/ \
        --model runs/instance_segmentation-cells-coco_instance_eomt_large_640/best
    python bin/instance_segmentation.py predict --model .../best \
        --input photos/ --output predictions/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.segmentation.instance.config import InstanceConfig
from visionloop.tasks.segmentation.recipes import INSTANCE

if TYPE_CHECKING:
    from visionloop.tasks.segmentation.instance.task import InstanceTask


def load_task_class() -> type[InstanceTask]:
    """Import the task late: torch and transformers take seconds, which `--help` does not need."""
    from visionloop.tasks.segmentation.instance.task import InstanceTask

    return InstanceTask


commands = task_commands(
    "instance_segmentation",
    InstanceConfig,
    load_task_class,
    recipe=INSTANCE.recipe,
    predict_options=("score",),
)


def main() -> None:
    """Run the command line."""
    run_commands(commands)


if __name__ == "__main__":
    main()
