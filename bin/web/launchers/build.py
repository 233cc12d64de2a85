"""The launch of a job: its specification and the options of a launcher made into a command."""

from pathlib import Path

from visionloop.bin.web.jobs.spec import JobSpec
from visionloop.bin.web.launchers.docker import docker_launch
from visionloop.bin.web.launchers.kubernetes import kubernetes_launch
from visionloop.bin.web.launchers.launch import (
    DockerOptions,
    Launch,
    LauncherOptions,
    LocalOptions,
    SlurmOptions,
    TorchrunOptions,
)
from visionloop.bin.web.launchers.local import local_launch
from visionloop.bin.web.launchers.slurm import slurm_launch
from visionloop.bin.web.launchers.torchrun import torchrun_launch


def build_launch(spec: JobSpec, options: LauncherOptions, job_folder: Path) -> Launch:
    """Return the command of a job.

    Args:
        spec: the job.
        options: of the launcher that is chosen by their kind.
        job_folder: for files that the command needs, such as a manifest.
    """
    if isinstance(options, LocalOptions):
        return local_launch(spec, options)
    if isinstance(options, TorchrunOptions):
        return torchrun_launch(spec, options)
    if isinstance(options, DockerOptions):
        return docker_launch(spec, options, job_folder)
    if isinstance(options, SlurmOptions):
        return slurm_launch(spec, options, job_folder)
    return kubernetes_launch(spec, options, job_folder)
