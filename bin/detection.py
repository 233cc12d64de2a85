r"""Object detection from the command line.

One GPU, or none:
    python bin/detection.py train --data coco/ --model ustc-community/dfine-small-coco --epochs 20
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/detection.py train --data coco/ --model ustc-community/dfine-medium-coco --epochs 20
And then:
    python bin/detection.py evaluate --model runs/detection-coco-dfine-small-coco/best --data coco/
    python bin/detection.py predict --model .../best --input street/ --output answers/
"""

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.detection.config import DetectionConfig


def load_task_class():
    """Imported late: torch and transformers take seconds, `--help` should not."""
    from visionloop.tasks.detection.task import DetectionTask

    return DetectionTask


commands = task_commands("detection", DetectionConfig, load_task_class)


def main():
    run_commands(commands)


if __name__ == "__main__":
    main()
