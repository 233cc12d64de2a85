"""The launch of a job: its specification and the options of a launcher made into a command."""

from pathlib import Path

from visionloop.bin.web.jobs.spec import JobSpec
from visionloop.bin.web.launchers.launch import (
    Launch,
    LauncherOptions,
    LocalOptions,
    TorchrunOptions,
)
from visionloop.bin.web.launchers.local import local_launch
from visionloop.bin.web.launchers.torchrun import torchrun_launch
from visionloop.bin.web.problems import Problem


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
    raise Problem(
        422, "bad_input", f"launcher: {options.kind} is not there yet", field="launcher.kind"
    )
