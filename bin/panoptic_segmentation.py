r"""Train and use models for panoptic segmentation.

One GPU, or none:
    python bin/panoptic_segmentation.py train --data streets/ \
        --model tue-mps/coco_panoptic_eomt_large_640 --epochs 12
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 bin/panoptic_segmentation.py train \
        --data streets/ --model facebook/dinov2-with-registers-base --epochs 24
Then evaluate and predict:
    python bin/panoptic_segmentation.py evaluate --data streets/ \
        --model runs/panoptic_segmentation-streets-coco_panoptic_eomt_large_640/best
    python bin/panoptic_segmentation.py predict --model .../best \
        --input photos/ --output predictions/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.segmentation.panoptic.config import PanopticConfig
from visionloop.tasks.segmentation.recipes import PANOPTIC

if TYPE_CHECKING:
    from visionloop.tasks.segmentation.panoptic.task import PanopticTask


def load_task_class() -> type[PanopticTask]:
    """Import the task late: torch and transformers take seconds, which `--help` does not need."""
    from visionloop.tasks.segmentation.panoptic.task import PanopticTask

    return PanopticTask


commands = task_commands(
    "panoptic_segmentation",
    PanopticConfig,
    load_task_class,
    recipe=PANOPTIC.recipe,
    score_options=("score", "overlap"),
    predict_options=("score", "overlap"),
)


def main() -> None:
    """Run the command line."""
    run_commands(commands)


if __name__ == "__main__":
    main()
