r"""Semantic segmentation from the command line.

One GPU, or none:
    python bin/segmentation.py train --data streets/ --model tue-mps/ade20k_semantic_eomt_large_512
    --epochs 30
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/segmentation.py train --data streets/ --model facebook/dinov2-with-registers-base
        --epochs 30
And then:
    python bin/segmentation.py evaluate --model
    runs/segmentation-streets-ade20k_semantic_eomt_large_512/best --data streets/ python
    bin/segmentation.py predict --model .../best --input photos/ --output answers/
"""

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.segmentation.config import SegmentationConfig


def load_task_class():
    """Imported late: torch and transformers take seconds, `--help` should not."""
    from visionloop.tasks.segmentation.task import SegmentationTask

    return SegmentationTask


commands = task_commands(
    "segmentation", SegmentationConfig, load_task_class, score_options=("score_levels",)
)


def main():
    run_commands(commands)


if __name__ == "__main__":
    main()
