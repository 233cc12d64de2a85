"""The real `train` command of a task, which notes the samples that each rank trains on.

`python tests/gpu/watched_command.py TASK train ...`. In the environment: WATCH_NOTES, the folder of
the notes; WATCH_STOP, the step in which rank 0 sends SIGTERM to itself; WATCH_KILL, the step in
which the last rank kills itself, unless torchrun has restarted it.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from device_task import TASKS
from torch import nn

from visionloop.bin.commands.cli import run_commands, task_commands
from visionloop.engine.batch import Batch, Normalizers
from visionloop.engine.task import Task


def watch(task_class: type[Task], notes: Path) -> None:
    """Make `loss` note samples and normalizers, and send the signals in the steps of WATCH_*."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    stop_in = step_of("WATCH_STOP") if rank == 0 else None
    is_restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    kill_in = step_of("WATCH_KILL") if rank == size - 1 and not is_restarted else None
    count_normalizers, loss = task_class.count_normalizers, task_class.loss

    def watched_count(task: Task, micro_batches: Sequence[Batch]) -> dict[str, float]:
        # before the collective of the step, in which all ranks agree on the stop
        if micro_batches[0].step == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return count_normalizers(task, micro_batches)

    def watched_loss(
        task: Task, model: nn.Module, batch: Batch, normalizers: Normalizers
    ) -> dict[str, torch.Tensor]:
        if batch.step == kill_in:  # the other ranks have sent, or will send, their gradients
            os.kill(os.getpid(), signal.SIGKILL)
        row = {
            "step": batch.step,
            "offset": batch.offset,
            "ids": batch["sample_ids"].tolist(),
            "totals": {name: number * size for name, number in normalizers.items()},
        }
        with open(notes / f"{rank}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        return loss(task, model, batch, normalizers)

    task_class.count_normalizers, task_class.loss = watched_count, watched_loss


def step_of(variable: str) -> int | None:
    """Return the step in an environment variable, None where it is not set."""
    return int(os.environ[variable]) if variable in os.environ else None


def read_notes(folder: Path) -> dict[int, tuple[list[int], dict[str, float]]]:
    """Return {step: (sample ids in order of the global batch, totals of the normalizers)}.

    Assert that each sample was trained on once and that all ranks used the same normalizers.
    """
    lines = [line for path in Path(folder).iterdir() for line in path.read_text().splitlines()]
    steps: dict[int, tuple[list[int], dict[str, float]]] = {}
    for row in sorted(map(json.loads, lines), key=lambda row: (row["step"], row["offset"])):
        ids, totals = steps.setdefault(row["step"], ([], row["totals"]))
        assert len(ids) == row["offset"], f"step {row['step']}: a sample is missing or repeated"
        assert totals == row["totals"], f"step {row['step']}: normalizers differ between ranks"
        ids.extend(row["ids"])
    return steps


def main() -> None:
    task_name, *arguments = sys.argv[1:]
    task_class, notes = TASKS[task_name], Path(os.environ["WATCH_NOTES"])
    notes.mkdir(parents=True, exist_ok=True)
    watch(task_class, notes)
    run_commands(task_commands(task_name, task_class.config_class, lambda: task_class), arguments)


if __name__ == "__main__":
    main()
