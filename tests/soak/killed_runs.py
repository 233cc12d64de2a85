"""The runs of the kill test: started, waited for, and read back from disk."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from kill_worker import start
from progress_file import ProgressFile

from visionloop.engine.checkpoints.folder import latest_valid, problems, read_state, step_folders
from visionloop.engine.testing.short_runs import free_port, logged

STEPS = 18
SAVE_EVERY = 3
SMALL = {
    "model": "tiny",
    "batch-size": 4,
    "micro-batch": 2,
    "steps": STEPS,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "log-every": 1,
    "eval-every": 6,
    "save-every": SAVE_EVERY,
    "keep": 3,
    "process-timeout": 60,
}
SIZES = {
    "classification": {"image-size": 32},
    "detection": {"image-size": 96},
    "segmentation": {"image-size": 32},
    "instance_segmentation": {"image-size": 32},
    "panoptic_segmentation": {"image-size": 32},
    "super_resolution": {"patch-size": 16},
}
LONGEST = 180  # seconds in which a process that is to end by itself must be gone


@dataclass(frozen=True)
class Case:
    """A combination that the kill test repeats.

    workers: data workers of each process; shard: how weights are divided over processes.
    """

    task: str
    processes: int
    workers: int
    data: str
    shard: str = "none"

    @property
    def name(self) -> str:
        kind = "" if self.shard == "none" else f"-{self.shard}-shards"
        return f"{self.task}-{self.processes}p-{self.workers}w{kind}"

    def arguments(self, output: Path) -> list[str]:
        options = {"data": self.data, "output": output, "workers": self.workers}
        options["shard"] = self.shard
        options |= SIZES[self.task] | SMALL
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return ["--from-scratch", *words]


@dataclass
class Processes:
    """The processes of one start. codes: {process id: exit code} of those that have ended.

    An exit code is negative for a signal.
    """

    pids: list[int]
    began: float = field(default_factory=time.monotonic)
    codes: dict[int, int] = field(default_factory=dict)

    def poll(self) -> bool:
        """Return whether one of them is alive."""
        for pid in self.pids:
            if pid not in self.codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) < len(self.pids)

    def send(self, number: int, ranks: Collection[int] | None = None) -> None:
        """Send a signal to the processes that are alive, or to those of these ranks."""
        self.poll()
        for rank, pid in enumerate(self.pids):
            if pid not in self.codes and (ranks is None or rank in ranks):
                os.kill(pid, number)

    def wait(self, seconds: float = LONGEST, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all have ended or until() is true. False after `seconds`: then kill them."""
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
    def exit_codes(self) -> list[int]:
        return [self.codes[pid] for pid in self.pids]


def start_run(
    case: Case,
    output: Path,
    progress: Path,
    *,
    log: Path,
    fault: dict[str, object] | None = None,
    fresh: bool = False,
) -> Processes:
    """Start the processes that train `case` into `output`. fault, fresh: see kill_worker.start."""
    port, pids = free_port(), []
    ProgressFile(progress, case.processes).clear()
    for rank in range(case.processes):
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        if case.processes > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment |= {"WORLD_SIZE": str(case.processes)}
            environment |= {"LOCAL_WORLD_SIZE": str(case.processes)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        plan = {
            "task": case.task,
            "arguments": case.arguments(output),
            "environment": environment,
            "progress": str(progress),
            "log": f"{log}.{rank}",
            "fault": fault,
        }
        pids.append(start(plan, fresh=fresh))
    return Processes(pids)


def newest_step(output: Path) -> int:
    """Return the step of the newest valid checkpoint, 0 without one."""
    newest = latest_valid(output / "checkpoints")
    return read_state(newest)["step"] if newest else 0


def invalid_checkpoints(output: Path) -> list[str]:
    """Return the names of folders that look like checkpoints and are not valid."""
    return [folder.name for _, folder in step_folders(output / "checkpoints") if problems(folder)]


def fingerprint(output: Path) -> dict[str, str]:
    """Return {name: SHA-256} of the last checkpoint's files, of best/, and of logged values."""
    folders = [output / "checkpoints" / f"step_{STEPS:08d}", output / "best"]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    contents = {str(path.relative_to(output)): path.read_bytes() for path in files}
    contents["metrics.jsonl"] = json.dumps(logged(output)).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
