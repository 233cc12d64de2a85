r"""Image classification from the command line.

One GPU, or none:
    python bin/classification.py train --data images/ --model google/vit-base-patch16-224 --epochs
    10
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/classification.py train --data images/ --model google/vit-base-patch16-224 --epochs 10
And then:
    python bin/classification.py evaluate --model
    runs/classification-images-vit-base-patch16-224/best --data images/ python
    bin/classification.py predict --model .../best --input holiday/ --output answers/ --attention
"""

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.classification.config import ClassificationConfig


def load_task_class():
    """Imported late: torch and transformers take seconds, `--help` should not."""
    from visionloop.tasks.classification.task import ClassificationTask

    return ClassificationTask


commands = task_commands(
    "classification", ClassificationConfig, load_task_class, explanations=("attention",)
)


def main():
    run_commands(commands)


if __name__ == "__main__":
    main()
