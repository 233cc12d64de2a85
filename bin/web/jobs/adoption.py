"""Runs that were started elsewhere on this machine: stopped, killed and resumed as jobs."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from visionloop.bin.reports.run_folder import as_object, read_object
from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.jobs.creation import free_id
from visionloop.bin.web.jobs.devices import gpus
from visionloop.bin.web.jobs.processes import Process, lock_holder
from visionloop.bin.web.jobs.queue import ENDED, JobQueue
from visionloop.bin.web.jobs.records import JobDescription
from visionloop.bin.web.jobs.spec import JobKind, JobSpec, JobState
from visionloop.bin.web.jobs.store import JobRow
from visionloop.bin.web.launchers.build import build_launch
from visionloop.bin.web.launchers.launch import (
    MOST_PROCESSES,
    LauncherOptions,
    LocalOptions,
    TorchrunOptions,
)
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs.text import text_of
from visionloop.bin.web.security.augmentation import require_named_function
from visionloop.bin.web.tables.tables import zoo_of
from visionloop.engine.types import JsonObject

PLACES = ("--output", "--run-name")  # options that name the run folder


def living_job(run: Path, queue: JobQueue, config: StudioConfig) -> JobRow:
    """Return the job of a run that lives, made for one that was started elsewhere.

    Raises Problem (409) for a run that no process of this machine trains.
    """
    job = queue.store.job_of_run(run)
    if job is not None and job.state not in ENDED:
        return job
    holder = lock_holder(run / ".lock")
    if holder is None:
        raise Problem(409, "not_running", f"{run.name}: no process of this machine trains there")
    if holder.pid == 0:
        detail = f"{run.name}: a process of another machine or container trains there"
        raise Problem(409, "not_possible", detail, hint="stop it there")
    return queue.adopt(description_of(run, config, holder=holder))


def resume_run(run: Path, queue: JobQueue, config: StudioConfig) -> JobRow:
    """Put a run into the queue again, with the command that it was started with.

    Raises Problem (409) for one that is alive or finished, and for one without its settings; 403
    for one with a function of the user that the server does not name.
    """
    job = queue.store.job_of_run(run)
    if job is not None and job.state not in (*ENDED, JobState.PAUSED):
        raise Problem(409, "not_possible", f"{run.name}: its job is {job.state}")
    if lock_holder(run / ".lock") is not None:
        raise Problem(409, "locked", f"{run.name}: a process trains there now", hint="stop it")
    if read_object(run / "status.json").get("state") == "finished":
        raise Problem(409, "not_possible", f"{run.name}: this run is finished")
    if job is not None:
        require_named_function(run, job.description["options"], config)
        return queue.resume(job.id)
    description = description_of(run, config)
    require_named_function(run, description.spec.options, config)
    return queue.adopt(description)


def description_of(
    run: Path, config: StudioConfig, *, holder: Process | None = None
) -> JobDescription:
    """Return the job that goes on with a run: the words of its command, or its settings.json.

    Args:
        run: folder of the run.
        config: of the server.
        holder: process that trains there now.
    """
    environment = read_object(run / "environment.json")
    command = environment.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    folder = None
    if "train" in words[1:3]:
        folder = working_folder(words, run, holder)
        options = without_place(words[words.index("train") + 1 :])
    elif (run / "settings.json").is_file():
        options = ("--config", str(run / "settings.json"))
    else:
        detail = f"{run.name}: no settings.json, so its command is not known"
        raise Problem(409, "not_possible", detail, hint="start it again from the command line")
    job_id = free_id(config.jobs, run)
    spec = JobSpec(job_id, JobKind.TRAIN, task_of(run), run, options)
    launcher = launcher_of(environment)
    launch = build_launch(spec, launcher, config.jobs / job_id)
    launch = replace(launch, folder=None if folder is None else str(folder))
    return JobDescription(spec, launch, launcher, text_of(run.name), adopted=holder is not None)


def task_of(run: Path) -> str:
    """Return the command of the task of a run. Raises Problem if its settings do not name one."""
    settings = as_object(read_object(run / "settings.json").get("settings"))
    name = as_object(settings.get("task")).get("value")
    if not isinstance(name, str):
        detail = f"{run.name}: settings.json does not name its task"
        raise Problem(409, "not_possible", detail, hint="wait until the run has begun")
    return zoo_of(name).command


def without_place(words: Sequence[str]) -> tuple[str, ...]:
    """Return options without those that name the run folder."""
    kept = []
    is_value = False
    for word in words:
        if is_value:
            is_value = False
        elif word in PLACES:
            is_value = True
        elif not word.startswith(tuple(f"{flag}=" for flag in PLACES)):
            kept.append(word)
    return tuple(kept)


def working_folder(words: Sequence[str], run: Path, holder: Process | None) -> Path | None:
    """Return the folder in which a run was started, for the relative paths of its command.

    That of its process; else the one from which the path that was given leads to the run.
    """
    if holder is not None:
        try:
            return Path(os.readlink(f"/proc/{holder.pid}/cwd"))
        except OSError:
            pass
    given = None
    for word, following in zip(words, (*words[1:], ""), strict=True):
        flag, is_joined, value = word.partition("=")
        if flag in PLACES:
            value = value if is_joined else following
            given = Path(value) if flag == "--output" else Path("runs") / value
    place = given or Path("runs") / run.name
    if place.is_absolute() or ".." in place.parts or run.parts[-len(place.parts) :] != place.parts:
        return None
    folder = Path(*run.parts[: -len(place.parts)])
    return folder if folder.is_dir() else None


def launcher_of(environment: JsonObject) -> LauncherOptions:
    """Return the launcher of a run: as many processes as it had, on the first GPUs if it had any.

    environment: content of its environment.json.
    """
    processes = environment.get("processes")
    processes = processes if isinstance(processes, int) and 0 < processes <= MOST_PROCESSES else 1
    devices = list(range(min(processes, len(gpus())))) if environment.get("cuda") else []
    if processes > 1:
        return TorchrunOptions(kind="torchrun", devices=devices, processes=processes)
    return LocalOptions(devices=devices)
