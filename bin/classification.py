r"""Image classification from the command line.

One GPU, or none:
    python bin/classification.py train --data images/ \
        --model google/vit-base-patch16-224 --epochs 10
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/classification.py train --data images/ --model google/vit-base-patch16-224 --epochs 10
Afterwards:
    python bin/classification.py evaluate --data images/ \
        --model runs/classification-images-vit-base-patch16-224/best
    python bin/classification.py predict --model .../best --input holiday/ --output predictions/ \
        --attention
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.recipes import recipe

if TYPE_CHECKING:
    from visionloop.tasks.classification.task import ClassificationTask


def load_task_class() -> type[ClassificationTask]:
    """Import the task late: torch and transformers take seconds, and `--help` should be quick."""
    from visionloop.tasks.classification.task import ClassificationTask

    return ClassificationTask


commands = task_commands(
    "classification",
    ClassificationConfig,
    load_task_class,
    recipe=recipe,
    explanations=("attention",),
)


def main() -> None:
    """Run the command line."""
    run_commands(commands)


if __name__ == "__main__":
    main()
