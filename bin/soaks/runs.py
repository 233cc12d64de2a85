"""The runs of a soak: which task, how many processes and workers; started, waited for, and read from disk."""

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from visionloop.bin.soaks.board import TensorBoardWriter
from visionloop.bin.soaks.trainee import start
from visionloop.engine.checkpoints.folder import latest_valid, problems, read_state, step_folders
from visionloop.engine.testing.short_runs import free_port, logged

STEPS = 18
SMALL = [
    "--model", "tiny", "--from-scratch", "--batch-size", "4", "--micro-batch", "2", "--steps", str(STEPS), "--threads", "1",
    "--device", "cpu", "--precision", "fp32", "--log-every", "1", "--eval-every", "6", "--save-every", "3", "--keep", "3",
    "--process-timeout", "60",
]  # fmt: skip
SIZES = {
    "classification": ["--image-size", "32"],
    "detection": ["--image-size", "96"],
    "segmentation": ["--image-size", "32"],
    "super_resolution": ["--patch-size", "16"],
}
SOON = 180  # seconds in which a process that is to end by itself must be gone


@dataclass(frozen=True)
class Kind:
    """What is trained: one of the combinations that a soak goes through."""

    task: str
    processes: int
    workers: int
    data: str

    @property
    def name(self):
        return f"{self.task}-{self.processes}p-{self.workers}w"

    def arguments(self, output):
        return [
            "--data",
            self.data,
            "--output",
            str(output),
            "--workers",
            str(self.workers),
            *SIZES[self.task],
            *SMALL,
        ]


@dataclass
class Processes:
    """The processes of one start. codes: {process id: exit code} of those that are gone, negative for a signal."""

    pids: list
    began: float = field(default_factory=time.monotonic)
    codes: dict = field(default_factory=dict)

    def poll(self):
        """True while one of them lives."""
        for pid in self.pids:
            if pid not in self.codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) < len(self.pids)

    def send(self, number, ranks=None):
        """A signal to the processes that live; None: to all."""
        self.poll()
        for rank, pid in enumerate(self.pids):
            if pid not in self.codes and (ranks is None or rank in ranks):
                os.kill(pid, number)

    def wait(self, seconds=SOON, until=lambda: False):
        """Until all are gone or until() is true. False when the time ran out first; then they are killed."""
        deadline = time.monotonic() + seconds
        while self.poll() and not until():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                while self.poll():
                    time.sleep(0.001)
                return False
            time.sleep(0.001)
        return True

    @property
    def exit_codes(self):
        return [self.codes[pid] for pid in self.pids]


def start_run(kind, output, board, *, log, fault=None, fresh=False):
    """Processes of the command that trains `kind` into `output`."""
    port = free_port()
    board_path = Path(board)
    TensorBoardWriter(board_path, kind.processes).clear()
    pids = []
    for rank in range(kind.processes):
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        if kind.processes > 1:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(kind.processes),
            }
            environment |= {
                "LOCAL_WORLD_SIZE": str(kind.processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        plan = {
            "task": kind.task,
            "arguments": kind.arguments(output),
            "environment": environment,
            "board": str(board_path),
        }
        pids.append(start(plan | {"log": f"{log}.{rank}", "fault": fault}, fresh=fresh))
    return Processes(pids)


def newest_step(output):
    """The step of the newest whole checkpoint, 0 without one."""
    newest = latest_valid(output / "checkpoints")
    return read_state(newest)["step"] if newest else 0


def unreadable(output):
    """Names of folders that look like checkpoints and are none."""
    return [folder.name for _, folder in step_folders(output / "checkpoints") if problems(folder)]


def fingerprint(output):
    """{what: SHA-256}: every file of the last checkpoint and of best/, and the logged losses and scores."""
    folders = [output / "checkpoints" / f"step_{STEPS:08d}", output / "best"]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    return found | {
        "metrics.jsonl": hashlib.sha256(json.dumps(logged(output)).encode()).hexdigest()
    }
