"""The torchrun launcher: several processes on this machine."""

import sys

from visionloop.bin.web.jobs.spec import JobSpec, python_command
from visionloop.bin.web.launchers.launch import Launch, TorchrunOptions
from visionloop.bin.web.launchers.local import cpu_words, visible_devices

SHUTDOWN_SECONDS = 120  # for saving, after a stop


def torchrun_launch(spec: JobSpec, options: TorchrunOptions) -> Launch:
    """Return the task's command under torchrun: a process for each GPU, or several on the CPU.

    `--standalone` takes a free port, so that two such jobs do not meet.
    """
    processes = len(options.devices) or options.processes
    _, *words = python_command(spec.task, *spec.words)
    command = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--max-restarts",
        str(options.max_restarts),
        "--shutdown-timeout",
        str(SHUTDOWN_SECONDS),
        *words,
    )
    if options.devices:
        return Launch(command, environment=visible_devices(options.devices))
    return Launch((*command, *cpu_words(spec)))
