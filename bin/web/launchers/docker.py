"""A training in a Docker container on this machine.

Data, runs and caches are mounted at the paths that they have here, so that one command line, and
the settings in the run folder, are right on both sides.
"""

import csv
import io
import os
from pathlib import Path

from visionloop.bin.web.jobs.spec import JobSpec
from visionloop.bin.web.launchers.container import (
    container_command,
    job_name,
    named_paths,
    run_folder,
)
from visionloop.bin.web.launchers.launch import DockerOptions, Launch

STOP_SECONDS = 120  # above the time that the entry leaves for a checkpoint
CACHES = ("HF_HOME", "XDG_CACHE_HOME")  # downloaded weights, decoded images
PASSED_ON = ("HF_HUB_OFFLINE", "HF_ENDPOINT")


def docker_launch(spec: JobSpec, options: DockerOptions, _job_folder: Path) -> Launch:
    """Return the launch of a container.

    The client passes SIGTERM on to the container and ends with its exit code, that of
    `visionloop-launch run`. It writes the output of the training. A relative path among the job's
    options would be another one in the container.
    """
    name = job_name(spec)
    command = ["docker", "run", "--rm", "--init", "--name", name]
    command += ["--stop-timeout", str(STOP_SECONDS)]
    command += ["--shm-size", f"{options.shared_memory_gib}g"]
    # files that it writes belong to the user of this server
    command += ["--user", f"{os.getuid()}:{os.getgid()}"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if options.devices:
        # the quotes are for docker, which reads a list of key=value pairs
        command += ["--gpus", '"device={}"'.format(",".join(map(str, options.devices)))]
    command += mounts(spec)
    for variable in (*CACHES, *PASSED_ON):
        if value := os.environ.get(variable):
            command += ["--env", f"{variable}={value}"]
    processes = len(options.devices) or options.processes
    command += [options.image, *container_command(spec, "--processes", str(processes))]
    return Launch(
        command=tuple(command),
        stop=("docker", "stop", name),  # waits as long as --stop-timeout says
        kill=("docker", "kill", name),
    )


def mounts(spec: JobSpec) -> list[str]:
    """Return the mounts: folders that are written, and below none of them what is only read."""
    written = [run_folder(spec).parent]
    written += [Path(os.environ[name]) for name in CACHES if os.environ.get(name)]
    words = []
    for path in dict.fromkeys(written):
        words += ["--mount", mount(path)]
    for path in named_paths(spec):
        if not any(path.is_relative_to(folder) for folder in written):
            words += ["--mount", mount(path, "readonly")]
    return words


def mount(path: Path, *flags: str) -> str:
    """Return a value of --mount, a line of CSV: a path may hold commas and quotes.

    Unlike --volume, --mount makes no folder that is missing, which would belong to root.
    """
    line = io.StringIO()
    fields = ("type=bind", f"source={path}", f"target={path}", *flags)
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()
