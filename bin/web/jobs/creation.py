"""Jobs made of requests. A preview and a start make the same command in the same way."""

import hashlib
import os
import secrets
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.jobs.devices import devices, devices_of
from visionloop.bin.web.jobs.options import (
    TaskOptions,
    default_run_name,
    require_run_name,
)
from visionloop.bin.web.jobs.records import JobDescription
from visionloop.bin.web.jobs.spec import JobKind, JobSpec
from visionloop.bin.web.launchers.build import build_launch
from visionloop.bin.web.launchers.launch import Launch, LauncherOptions, LocalOptions
from visionloop.bin.web.problems import Problem

ID_DIGITS = 12


@dataclass(frozen=True)
class JobTexts:
    """Texts of the user for a job."""

    name: str = ""
    note: str = ""


def train_job(
    config: StudioConfig,
    options: TaskOptions,
    launcher: LauncherOptions,
    *,
    known_runs: Collection[Path],
    run_name: str | None = None,
    texts: JobTexts | None = None,
    start: bool = True,
) -> JobDescription:
    """Return the job that trains with these options. Changes nothing.

    Args:
        config: of the server.
        options: of the task, without problems.
        launcher: options of the launcher.
        known_runs: folders that are taken, though they may not be there yet.
        run_name: name of the folder below the first folder with runs; None: a free default.
        texts: of the user.
        start: False: the job waits until it is resumed.

    Raises Problem for a name that is taken, and for a device that this machine does not have.
    """
    require_devices(launcher)
    if run_name is not None:
        require_run_name(run_name)
    run = free_run(config.runs[0], run_name, default_run_name(options), known_runs)
    texts = texts or JobTexts()
    spec = JobSpec(free_id(config.jobs, run), JobKind.TRAIN, options.task, run, options.words)
    launch = build_launch(spec, launcher, config.jobs / spec.id)
    return JobDescription(spec, launch, launcher, texts.name or run.name, texts.note, start=start)


def service_job(
    config: StudioConfig,
    kind: JobKind,
    task: str,
    words: tuple[str, ...],
    *,
    launcher: LocalOptions | None = None,
    name: str = "",
    command: tuple[str, ...] | None = None,
) -> JobDescription:
    """Return a check, replay or comparison, whose standard output is its result.

    Args:
        config: of the server.
        kind: of the job.
        task: name of the task's command.
        words: options of the task's command of this kind. It runs in the job's folder, so that
            `--sheet sheet.png` is written there.
        launcher: device that it computes on, beside the training there; None: the CPU.
        name: for people.
        command: argument list, where it is not a command of the task.
    """
    job_id = secrets.token_hex(ID_DIGITS // 2)
    spec = JobSpec(job_id, kind, task, None, words)
    if command is None:
        launch = build_launch(spec, launcher or LocalOptions(), config.jobs / job_id)
    else:
        launch = Launch(command)
    return JobDescription(spec, launch, launcher or LocalOptions(), name=name or f"{kind} {task}")


def require_devices(launcher: LauncherOptions) -> None:
    """Raise Problem for a GPU that this machine does not have."""
    known = {device.name for device in devices()}
    for name in devices_of(JobKind.TRAIN, launcher):
        if name not in known:
            raise Problem(
                422,
                "no_device",
                f"launcher.devices: there is no {name} on this machine ({', '.join(known)})",
                field="launcher.devices",
            )


def free_run(root: Path, name: str | None, default: str, known: Collection[Path]) -> Path:
    """Return the folder of a new run. Raises Problem for a name that is taken."""
    if name is not None:
        run = root / name
        if run in known or os.path.lexists(run):
            hint = "give another name, or resume that run"
            detail = f"run_name: {run} exists already"
            raise Problem(409, "taken", detail, field="run_name", hint=hint)
        return run
    number, run = 1, root / default
    while run in known or os.path.lexists(run):
        number += 1
        run = root / f"{default}-{number}"
    return run


def free_id(jobs: Path, run: Path) -> str:
    """Return the id of a job for this run: the same one in the preview and at the start."""
    number = 0
    while True:
        digest = hashlib.sha256(os.fsencode(run) + b"\0%d" % number).hexdigest()[:ID_DIGITS]
        if not (jobs / digest).exists():
            return digest
        number += 1


def command_text(launch: Launch) -> str:
    """Return the line for a shell that does the same."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in launch.environment.items()]
    return " ".join([*variables, shlex.join(launch.command)])
