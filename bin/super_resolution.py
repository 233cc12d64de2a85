r"""Super-resolution and restoration from the command line.

One GPU, or none:
    python bin/super_resolution.py train --data photos/ --model classical-x2 --steps 20000
Eight GPUs of one machine, the same run:
    torchrun --nproc-per-node 8 --shutdown-timeout 120 \
        bin/super_resolution.py train --data DIV2K/ --model lightweight --scale 4 --from-scratch
And then:
    python bin/super_resolution.py evaluate --model runs/super_resolution-photos-classical-x2/best
    --data Set5/ python bin/super_resolution.py predict --model .../best --input small/ --output
    large/ --ensemble 8
"""

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.tasks.super_resolution.config import SuperResolutionConfig

PREDICT = ("tile", "halo", "ensemble")
SCORE = (*PREDICT, "mode", "noise", "quality", "cache", "lpips_weights")


def load_task_class():
    """Imported late: torch and transformers take seconds, `--help` should not."""
    from visionloop.tasks.super_resolution.task import SuperResolutionTask

    return SuperResolutionTask


commands = task_commands(
    "super_resolution",
    SuperResolutionConfig,
    load_task_class,
    score_options=SCORE,
    predict_options=PREDICT,
    predict_batch=1,
)


def main():
    run_commands(commands)


if __name__ == "__main__":
    main()
