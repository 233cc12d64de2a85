"""job.json: all that a job is, enough to rebuild its row in the database."""

import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from visionloop.bin.web.jobs.folder import JobFolder, read_json
from visionloop.bin.web.jobs.outcome import MOST_RESTARTS
from visionloop.bin.web.jobs.spec import JobKind, JobSpec, JobState
from visionloop.bin.web.jobs.store import LAUNCHER, JobRow
from visionloop.bin.web.launchers.launch import Launch, LauncherOptions, LocalOptions
from visionloop.bin.web.problems import Problem
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.types import JsonObject

SCHEMA = 1
KEYS = ("task", "run", "name", "note", "start", "adopted", "created", "has_result")
log = logging.getLogger("visionloop.studio")


@dataclass(frozen=True)
class JobDescription:
    """A job that is to be created.

    Attributes:
        spec: kind, task, run folder and options.
        launch: its command.
        launcher: options that the launch was built from.
        name, note: texts of the user.
        start: False: it waits until it is resumed.
        adopted: a run that was started elsewhere; it begins when it is resumed.
    """

    spec: JobSpec
    launch: Launch
    launcher: LauncherOptions = field(default_factory=LocalOptions)
    name: str = ""
    note: str = ""
    start: bool = True
    adopted: bool = False

    def as_json(self) -> JsonObject:
        """Return the content of job.json."""
        return {
            "schema": SCHEMA,
            "id": self.spec.id,
            "kind": self.spec.kind.value,
            "task": self.spec.task,
            "run": None if self.spec.run is None else str(self.spec.run),
            "options": list(self.spec.options),
            "launcher": self.launcher.model_dump(),
            "launch": asdict(self.launch),
            "name": self.name,
            "note": self.note,
            "start": self.start,
            "adopted": self.adopted,
            "has_result": self.spec.kind is not JobKind.TRAIN,
            "created": time.time(),
        }


def write_job(path: Path, description: JobDescription) -> None:
    """Write the folder of a new job, whole or not at all. Raises Problem if there is one.

    path: folder of all jobs.
    """
    target = path / description.spec.id
    if target.exists():
        raise Problem(409, "taken", "there is a job with this id already", hint="try again")
    temporary = path / f".{description.spec.id}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    content = json.dumps(description.as_json(), indent=1) + "\n"
    replace_file(temporary / "job.json", content, durable=True)
    temporary.rename(target)


def read_jobs(path: Path) -> dict[str, JsonObject]:
    """Return {id: content of job.json} of all jobs, the oldest first."""
    described = {}
    for folder in path.iterdir():
        if folder.name.startswith("."):
            continue
        content = read_json(folder / "job.json")
        if content is None or not is_description(content, folder.name):
            log.error("%s: not the folder of a job: job.json is missing or damaged", folder)
        else:
            described[folder.name] = content
    return dict(sorted(described.items(), key=lambda item: (item[1]["created"], item[0])))


def is_description(content: JsonObject, job_id: str) -> bool:
    """Return whether an object is the job.json of a job."""
    try:
        LAUNCHER.validate_python(content["launcher"])
        Launch(**content["launch"])
        JobKind(content["kind"])
    except (KeyError, TypeError, ValueError):
        return False
    return content.get("id") == job_id and all(key in content for key in KEYS)


def row_of(description: JsonObject, folder: JobFolder) -> JobRow:
    """Return the row of a job that is not in the database, from what is in its folder.

    One that has begun counts as running: if that is no longer so, the queue will see it.
    """
    attempt = folder.newest_attempt()
    state = JobState.QUEUED if description["start"] else JobState.PAUSED
    started = None
    if attempt:
        state, started = JobState.RUNNING, (folder.process() or {}).get("started")
    elif description["adopted"]:
        state, started = JobState.RUNNING, description["created"]
    return JobRow(
        id=description["id"],
        description=description,
        name=description["name"],
        note=description["note"],
        state=state,
        wanted=None,
        attempt=attempt,
        restarts=MOST_RESTARTS if attempt else 0,  # none goes on by itself that had ended
        position=0,
        created=description["created"],
        started=started,
        ended=None,
        exit_code=None,
        error=None,
    )
