"""`train`, the same for every task."""

import json

from visionloop.bin.commands.startup import command_began
from visionloop.engine.errors import FINISHED, STOPPED
from visionloop.engine.system.signals import StopFlag, end_process
from visionloop.engine.task import Task
from visionloop.engine.train import resolve_settings, train
from visionloop.engine.types import JsonObject


def run_train(
    task_class: type[Task],
    flags: JsonObject,
    *,
    config_file: str | None = None,
    dry_run: bool = False,
) -> None:
    """Train, and leave the process with the exit code of the run. Raises UserError.

    dry_run: print every setting with its source instead.
    """
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
    # workers and their queues may be waiting for each other: nothing of ours is left to be done
    end_process(STOPPED if result.state == "stopped" else FINISHED)
