"""One process of a run that is to be killed: the real command with its progress and a fault.

`python tests/soak/kill_worker.py PLAN` runs one in a new interpreter. PLAN: see `start`, as json.
"""

import errno
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from progress_file import ProgressFile

from visionloop.bin.commands.cli import run_commands
from visionloop.engine.system.fault_injection import arm

Plan = dict[str, object]


def start(plan: Plan, *, fresh: bool) -> int:
    """Start a process of its own session; return its process id.

    Args:
        plan: {"task", "arguments" of the command, "environment", "progress": file, "log": file of
            its output, "fault": None or {"point", "after": number of passes before the fault,
            "action": "kill" or the name of an errno}}.
        fresh: start a new interpreter, which imports everything; otherwise fork this process, which
            must have no threads.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        if fresh:
            os.execv(sys.executable, [sys.executable, __file__, json.dumps(plan)])
        run(plan)
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(plan: Plan) -> None:
    """Train as the launcher would, in this process."""
    environment = plan["environment"]
    os.environ |= environment
    rank, processes = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    ProgressFile(Path(plan["progress"]), processes).watch(rank)
    if plan["fault"]:
        arm(make_fault(**plan["fault"]))
    launcher = importlib.import_module(f"visionloop.bin.{plan['task']}")
    run_commands(launcher.commands, ["train", *plan["arguments"]])


def make_fault(point: str, after: int, action: str) -> Callable[[str, Path], None]:
    """Return a fault for the engine's fault injection.

    It kills this process, or fails like a disk, at `point` once that was passed `after` times.
    """
    passes = 0

    def fault(reached: str, folder: Path) -> None:
        nonlocal passes
        if reached != point:
            return
        passes += 1
        if passes <= after:
            return
        if action != "kill":
            number = getattr(errno, action)
            raise OSError(number, os.strerror(number))
        if point == "mid-write":
            halve_newest(folder)
        os.kill(os.getpid(), signal.SIGKILL)

    return fault


def halve_newest(folder: Path) -> None:
    """Truncate the file written last, as if half of it had reached the disk."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size // 2)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
