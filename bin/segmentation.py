r"""Train and use models for semantic segmentation.

One GPU, or none:
    python bin/segmentation.py train --data streets/ \
        --model tue-mps/ade20k_semantic_eomt_large_512 --epochs 30
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 bin/segmentation.py train --data streets/ \
        --model facebook/dinov2-with-registers-base --epochs 30
Then evaluate and predict:
    python bin/segmentation.py evaluate --data streets/ \
        --model runs/segmentation-streets-ade20k_semantic_eomt_large_512/best
    python bin/segmentation.py predict --model .../best --input photos/ --output predictions/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.segmentation.recipes import SEMANTIC
from visionloop.tasks.segmentation.semantic.config import SemanticConfig

if TYPE_CHECKING:
    from visionloop.tasks.segmentation.semantic.task import SemanticTask


def load_task_class() -> type[SemanticTask]:
    """Import the task late: torch and transformers take seconds, which `--help` does not need."""
    from visionloop.tasks.segmentation.semantic.task import SemanticTask

    return SemanticTask


commands = task_commands(
    "segmentation",
    SemanticConfig,
    load_task_class,
    recipe=SEMANTIC.recipe,
    score_options=("score_levels",),
)


def main() -> None:
    """Run the command line."""
    run_commands(commands)


if __name__ == "__main__":
    main()
