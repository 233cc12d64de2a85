"""A task's real command, watched: each process notes what it trains on, and the first may tell itself to stop.

`python -m visionloop.bin.benchmarks.watched_run TASK train ...`; in the environment WATCH_NOTES, a
folder, and WATCH_STOP, the step in which the first process sends itself SIGTERM.
"""

import json
import os
import signal
import sys
from pathlib import Path

from visionloop.bin.benchmarks.tasks import load_task_class
from visionloop.bin.commands.cli import run_commands, task_commands


def watched(task_class, notes, stop_in):
    """The task class, changed for good: `loss` notes samples and counts, `count` sends the signal. notes: file; stop_in: step or None."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    count, loss = task_class.count, task_class.loss

    def watched_count(task, micro_batches):
        # before the step's collective, which carries the wish to all processes
        if rank == 0 and micro_batches[0].step == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return count(task, micro_batches)

    def watched_loss(task, model, batch, divisor):
        whole = {name: number * size for name, number in divisor.items()}
        row = {
            "step": batch.step,
            "offset": batch.offset,
            "ids": batch["sample_ids"].tolist(),
            "count": whole,
        }
        with open(notes, "a") as file:
            file.write(json.dumps(row) + "\n")
        return loss(task, model, batch, divisor)

    task_class.count, task_class.loss = watched_count, watched_loss
    return task_class


def read_notes(folder):
    """{step: (sample ids in order of the global batch, what the loss divided by)} of all processes; each sample was trained on once."""
    rows = [
        json.loads(line)
        for path in Path(folder).iterdir()
        for line in path.read_text().splitlines()
    ]
    steps = {}
    for row in sorted(rows, key=lambda row: (row["step"], row["offset"])):
        ids, counts = steps.setdefault(row["step"], ([], row["count"]))
        assert len(ids) == row["offset"], (
            f"step {row['step'] + 1}: a piece is missing, or was trained on twice"
        )
        assert counts == row["count"], (
            f"step {row['step'] + 1}: processes divide by {counts} and {row['count']}"
        )
        ids.extend(row["ids"])
    return steps


def main():
    task_name, *arguments = sys.argv[1:]
    notes = Path(os.environ["WATCH_NOTES"])
    notes.mkdir(parents=True, exist_ok=True)
    stop_in = os.environ.get("WATCH_STOP")
    file = notes / f"{os.environ.get('RANK', 0)}.jsonl"
    task_class = watched(
        load_task_class(task_name), file, None if stop_in is None else int(stop_in)
    )
    run_commands(task_commands(task_name, task_class.config_class, lambda: task_class), arguments)


if __name__ == "__main__":
    main()
