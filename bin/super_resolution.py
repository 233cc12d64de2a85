r"""Super-resolution and restoration from the command line.

One GPU, or none:
    python bin/super_resolution.py train --data photos/ --model classical-x2 --steps 20000
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/super_resolution.py train --data DIV2K/ --model lightweight --scale 4 --from-scratch
Afterwards:
    python bin/super_resolution.py evaluate --data Set5/ \
        --model runs/super_resolution-photos-classical-x2/best
    python bin/super_resolution.py predict --model .../best --input small/ --output large/ \
        --ensemble 8
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.recipes import recipe

if TYPE_CHECKING:
    from visionloop.tasks.super_resolution.task import SuperResolutionTask

PREDICT_OPTIONS = ("tile", "halo", "ensemble")
SCORE_OPTIONS = (*PREDICT_OPTIONS, "mode", "noise", "quality", "cache", "lpips_weights")


def load_task_class() -> type[SuperResolutionTask]:
    """Import the task late: torch and transformers take seconds, and `--help` should be quick."""
    from visionloop.tasks.super_resolution.task import SuperResolutionTask

    return SuperResolutionTask


commands = task_commands(
    "super_resolution",
    SuperResolutionConfig,
    load_task_class,
    recipe=recipe,
    score_options=SCORE_OPTIONS,
    predict_options=PREDICT_OPTIONS,
    predict_batch=1,
)


def main() -> None:
    """Run the command line."""
    run_commands(commands)


if __name__ == "__main__":
    main()
