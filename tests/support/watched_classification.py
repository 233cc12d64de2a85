"""The real classification command, watched: each rank writes down what it trains on, and one of them may be injured at a step.

torchrun starts this file; tests/support/torchrun_runs.py also forks it. In the environment:
WATCH_NOTES, a folder for notes; WATCH_INJURY, an `Injury` as json.
"""

import json
import os
import signal
import sys
from pathlib import Path

from visionloop.bin.classification import commands
from visionloop.bin.commands.cli import run_commands
from visionloop.tasks.classification.task import ClassificationTask


def watch():
    """Make the task tell what it is given. In this process alone, and for good."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    # a group that torchrun brought back is left alone
    brought_back = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    injury = json.loads(os.environ.get("WATCH_INJURY", "null"))
    if injury and (brought_back or injury["rank"] != rank):
        injury = None
    count, loss = ClassificationTask.count, ClassificationTask.loss

    def watched_count(task, micro_batches):
        # before the step's collective, in which the others now wait
        if injury and micro_batches[0].step == injury["step"]:
            for target in injury["targets"]:
                os.kill(
                    {"launcher": os.getppid, "self": os.getpid}[target](),
                    signal.Signals[injury["signal"]],
                )
        return count(task, micro_batches)

    def watched_loss(task, model, batch, divisor):
        row = {
            "step": batch.step,
            "offset": batch.offset,
            "ids": batch["sample_ids"].tolist(),
            "count": divisor["samples"] * size,
        }
        with open(Path(os.environ["WATCH_NOTES"]) / f"{rank}.jsonl", "a") as notes:
            notes.write(json.dumps(row) + "\n")
        return loss(task, model, batch, divisor)

    ClassificationTask.count, ClassificationTask.loss = watched_count, watched_loss


def run(arguments):
    """`bin/classification.py` with these arguments."""
    watch()
    run_commands(commands, arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
