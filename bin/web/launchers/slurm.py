"""A training as a SLURM job, which queues itself again until the run is finished."""

import os
import sys
from pathlib import Path

from visionloop.bin.web.jobs.spec import BIN, JobSpec
from visionloop.bin.web.launchers.container import job_name, run_folder
from visionloop.bin.web.launchers.launch import Launch, SlurmOptions

SCRIPT = BIN / "launches/train.sbatch"
LOG = "log.txt"


def slurm_launch(spec: JobSpec, options: SlurmOptions, job_folder: Path) -> Launch:
    """Return the launch of a job of bin/launches/train.sbatch.

    Run, data and job folder must be on a file system that the nodes share, and this environment at
    the same path there. `command` prints the number of SLURM's job and ends. A job that is stopped
    saves and is not queued again; one that is killed gets SLURM's own time to end (KillWait, 30 s
    by default).
    """
    name, run = job_name(spec), run_folder(spec)
    command = ["sbatch", "--parsable", "--job-name", name]
    # a percent sign begins a field of the name
    command += ["--output", str(job_folder / LOG).replace("%", "%%"), "--open-mode", "append"]
    command += ["--nodes", str(options.nodes), "--time", options.time]
    optional = {
        "--gpus-per-node": options.gpus_per_node or None,
        "--cpus-per-task": options.cpus_per_task,
        "--partition": options.partition,
        "--account": options.account,
    }
    for flag, value in optional.items():
        if value is not None:
            command += [flag, str(value)]
    command += [str(SCRIPT), spec.task, str(run), *spec.options]
    # the script calls torchrun and our commands by name
    folder = Path(sys.executable).parent
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    if options.processes is not None:
        environment["PROCESSES"] = str(options.processes)
    elif not options.gpus_per_node:
        environment["PROCESSES"] = "1"
    return Launch(
        command=tuple(command),
        environment=environment,
        stop=(sys.executable, str(BIN / "launch.py"), "stop-slurm", name),
        kill=("scancel", "--name", name),
        submits=True,
        probe=("squeue", "--noheader", "--name", name, "--format", "%T"),
    )
