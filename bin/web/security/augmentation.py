"""Functions of the user, `--augment FILE.py:NAME`: those that the server was started with alone.

A client of the API names data, models and settings, never code that is run.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from visionloop.bin.reports.run_folder import as_object, read_object
from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.problems import Problem
from visionloop.engine.augmentation import FACT

FLAG = "--augment"


def require_named(value: str, config: StudioConfig) -> None:
    """Raise Problem (403) for an `augment` of a request which the server does not name."""
    if value not in config.augment:
        raise refusal(f"augment: {value}", config)


def require_named_function(run: Path | None, options: Sequence[str], config: StudioConfig) -> None:
    """Raise Problem (403) for a run that would apply a function which the server does not name.

    Args:
        run: folder of the run; the text that it began with is on record there.
        options: of its command.
        config: of the server.
    """
    words = [*options, ""]
    given = [
        words[i + 1] if word == FLAG else word.partition("=")[2]
        for i, word in enumerate(options)
        if word.partition("=")[0] == FLAG
    ]
    if given and all(value in config.augment for value in given):
        return
    settings = as_object(read_object(run / "settings.json").get("settings")) if run else {}
    has_function = given or as_object(settings.get("augment")).get("value") is not None
    known = str(as_object(settings.get(FACT)).get("value")).removesuffix(", only")
    if has_function and known not in map(fingerprint, config.augment):
        raise refusal("this run has a function of its own (--augment)", config)


def fingerprint(spec: str) -> str:
    """Return the fingerprint of FILE.py:NAME as a run records it, "" for a file that is gone."""
    file, _, name = spec.rpartition(":")
    try:
        return f"{name} sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
    except OSError:
        return ""


def refusal(what: str, config: StudioConfig) -> Problem:
    """Return the error of a function that the server does not name."""
    names = ", ".join(config.augment) or "none"
    return Problem(
        403,
        "augment_not_named",
        f"{what}; this server starts no code but that of its --augment-file ({names})",
        field="augment",
        hint="start the server with --augment-file FILE.py:NAME, or the run from a command line",
    )
