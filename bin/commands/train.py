"""`train`, the same for every task."""

import json

from visionloop.engine.errors import FINISHED, STOPPED
from visionloop.engine.stop import StopFlag, end_process
from visionloop.engine.train import resolve_settings, train


def run_train(task_class, flags, *, config_file=None, dry_run=False):
    """Train and leave the process with the exit code of the run; UserError goes to the caller."""
    if dry_run:
        settings = resolve_settings(task_class, flags, config_file)
        print(json.dumps({name: setting.as_json() for name, setting in settings.items()}, indent=1))
        return
    # from here to the very end a signal is a wish to stop: none may kill the process while it gets ready, or while it leaves
    stop = StopFlag()
    stop.install()
    try:
        result = train(task_class, config_file=config_file, stop=stop, **flags)
    except BaseException:
        stop.uninstall()
        raise
    # loader workers and their queues may be waiting for each other: nothing of ours is left to be done
    end_process(STOPPED if result.state == "stopped" else FINISHED)
