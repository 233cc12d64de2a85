"""`train`, the same for every task."""

import contextlib
import json
import os
import time
from pathlib import Path

from visionloop.engine.errors import FINISHED, STOPPED
from visionloop.engine.system.signals import StopFlag, end_process
from visionloop.engine.train import resolve_settings, train


def run_train(task_class, flags, *, config_file=None, dry_run=False):
    """Train and leave the process with the exit code of the run; UserError goes to the caller."""
    if dry_run:
        settings = resolve_settings(task_class, flags, config_file)
        print(json.dumps({name: setting.as_json() for name, setting in settings.items()}, indent=1))
        return
    # from here to the very end a signal is a wish to stop: none may kill the process while it gets
    # ready, or while it leaves
    stop = StopFlag(ends_process=True)
    stop.install()
    try:
        result = train(
            task_class, config_file=config_file, stop=stop, began=command_began(), **flags
        )
    except BaseException:
        stop.uninstall()
        raise
    # loader workers and their queues may be waiting for each other: nothing of ours is left to be
    # done
    end_process(STOPPED if result.state == "stopped" else FINISHED)


def command_began():
    """When this command was started, by time.monotonic(); under torchrun, when that was, unless it has started its processes again."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        process = os.getppid() if os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0" else "self"
        ticks = (
            Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        )  # since the machine was started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - age
    return time.monotonic()
