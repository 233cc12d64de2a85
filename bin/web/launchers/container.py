"""Parts of a training that runs elsewhere: the command of a container, and the paths it names."""

import unicodedata
from pathlib import Path

from visionloop.bin.web.jobs.spec import JobKind, JobSpec
from visionloop.engine.errors import UserError

JOB_PREFIX = "visionloop-"  # of the name of a container or of a cluster's job


def job_name(spec: JobSpec) -> str:
    """Return the name of the job elsewhere: lower-case letters, digits and hyphens."""
    return JOB_PREFIX + spec.id.lower()


def run_folder(spec: JobSpec) -> Path:
    """Return the run folder of a training.

    Raises UserError if a word of the job holds a control character: batch systems and mount options
    are lines of text.
    """
    assert spec.kind is JobKind.TRAIN and spec.run is not None, "only trainings run elsewhere"
    for word in (str(spec.run), *spec.options):
        if any(unicodedata.category(character) == "Cc" for character in word):
            raise UserError(
                f"{word!r}: expected a text without line breaks and other control characters, "
                "which a container or a batch system cannot be given",
                field="launcher",
            )
    return spec.run


def container_command(spec: JobSpec, *options: str) -> tuple[str, ...]:
    """Return the command of a container: `visionloop-launch run` with options of its own."""
    train = (spec.task, str(run_folder(spec)), *spec.options)
    return ("visionloop-launch", "run", *options, *train)


def named_paths(spec: JobSpec) -> tuple[Path, ...]:
    """Return the absolute paths among a job's options, such as the folder of `--data`."""
    words = [word.partition("=")[2] if word.startswith("--") else word for word in spec.options]
    return tuple(dict.fromkeys(Path(word) for word in words if word.startswith("/")))
