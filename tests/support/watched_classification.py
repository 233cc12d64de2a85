"""The classification command with records: each rank writes which samples it trains on.

One rank can be killed at a step. torchrun starts this file; tests/support/torchrun_runs.py also
forks it. Environment variables: WATCH_NOTES, a folder for the records; WATCH_INJURY, an `Injury` as
JSON.
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
    """Replace two hooks of the task by recording ones, in this process alone."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    # a group that torchrun has restarted is left alone
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    injury = json.loads(os.environ.get("WATCH_INJURY", "null"))
    if injury and (restarted or injury["rank"] != rank):
        injury = None
    count_normalizers, loss = ClassificationTask.count_normalizers, ClassificationTask.loss

    def watched_count_normalizers(task, micro_batches):
        # before the collective of the step, in which the other ranks now wait
        if injury and micro_batches[0].step == injury["step"]:
            for target in injury["targets"]:
                os.kill(
                    {"launcher": os.getppid, "self": os.getpid}[target](),
                    signal.Signals[injury["signal"]],
                )
        return count_normalizers(task, micro_batches)

    def watched_loss(task, model, batch, normalizers):
        row = {
            "step": batch.step,
            "offset": batch.offset,
            "ids": batch["sample_ids"].tolist(),
            "count": normalizers["samples"] * size,
        }
        with open(Path(os.environ["WATCH_NOTES"]) / f"{rank}.jsonl", "a") as notes:
            notes.write(json.dumps(row) + "\n")
        return loss(task, model, batch, normalizers)

    ClassificationTask.count_normalizers = watched_count_normalizers
    ClassificationTask.loss = watched_loss


def run(arguments):
    """Run `bin/classification.py` with these arguments."""
    watch()
    run_commands(commands, arguments)


if __name__ == "__main__":
    run(sys.argv[1:])
