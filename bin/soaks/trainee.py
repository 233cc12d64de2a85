"""One process of a run that is to be killed: the real command, watched, and armed with a fault."""

import errno
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.soaks.board import TensorBoardWriter
from visionloop.engine.system.fault_injection import arm


def start(plan, *, fresh):
    """Start a trainee in a session of its own; returns its process id.

    plan: {"task", "arguments" of the command, "environment", "board", "log": file for what it
    prints, "fault": None or {"point", "after": how often it is passed first, "action": "kill" or
    the name of an errno}}. fresh: a new interpreter, which imports everything; otherwise a fork of
    this process, which must have no threads.
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
            os.execv(
                sys.executable,
                [sys.executable, "-m", "visionloop.bin.soaks.trainee", json.dumps(plan)],
            )
        run(plan)
        code = 0
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(plan):
    """Train as the launcher would, in this process."""
    os.environ |= plan["environment"]
    rank, processes = (
        int(plan["environment"].get("RANK", 0)),
        int(plan["environment"].get("WORLD_SIZE", 1)),
    )
    TensorBoardWriter(Path(plan["board"]), processes).watch(rank)
    if plan["fault"]:
        arm(make_fault(**plan["fault"]))
    launcher = importlib.import_module(f"visionloop.bin.{plan['task']}")
    run_commands(launcher.commands, ["train", *plan["arguments"]])


def make_fault(point, after, action):
    """A function for engine/system/fault_injection.py: kills this process, or fails like a disk, at a point that was passed `after` times."""
    passed = 0

    def fault(reached, folder):
        nonlocal passed
        if reached != point:
            return
        passed += 1
        if passed <= after:
            return
        if action != "kill":
            number = getattr(errno, action)
            raise OSError(number, os.strerror(number))
        if point == "mid-write":
            halve_newest(folder)
        os.kill(os.getpid(), signal.SIGKILL)

    return fault


def halve_newest(folder):
    """As if the file written last had got to the disk by half."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size // 2)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
