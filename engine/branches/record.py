"""branch.json in the folder of a branch, and the history that it shares with its source.

branch.json is one JSON object:

- schema: 1
- branch, extend: as the command gave them; extend is null without --extend.
- run: absolute path of the source, which may be gone by now.
- step: of the checkpoint that the branch begins with.
- manifest_sha256: of the manifest.json of that checkpoint, which holds the hashes of its files.
- changes: {setting: [value of the source, value of the branch]}.
- data_origin: [step, sample], see `DataOrigin`.
- history: {"bytes", "sha256"} of the lines up to that step, with which metrics.jsonl of the branch
  begins. They are those of the source, byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.checkpoints.folder import step_folders
from visionloop.engine.evaluation.record import FOLDER
from visionloop.engine.logging.run_log import retained_lines
from visionloop.engine.types import JsonObject

RECORD = "branch.json"
METRICS = "metrics.jsonl"


def read_record(output: Path) -> JsonObject | None:
    """Return branch.json of a run, None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((output / RECORD).read_text())
        if isinstance(record, dict) and record.get("schema") == 1:
            return record
    return None


def write_record(output: Path, record: JsonObject) -> None:
    """Write branch.json and wait until it is on the disk."""
    content = {"schema": 1, **record}
    replace_file(output / RECORD, json.dumps(content, indent=1) + "\n", durable=True)


def copy_history(source: Path, output: Path, step: int, evaluated_at: int) -> JsonObject:
    """Copy what a run has logged until a checkpoint; return the `history` of branch.json.

    Args:
        source: the run.
        output: the folder of its branch.
        step: steps done at the checkpoint.
        evaluated_at: steps done at the last evaluation before.
    """
    lines = b""
    with contextlib.suppress(FileNotFoundError):
        lines = retained_lines((source / METRICS).read_text(), step, evaluated_at).encode()
    replace_file(output / METRICS, lines)
    shutil.rmtree(output / FOLDER, ignore_errors=True)
    for evaluated, folder in step_folders(source / FOLDER):
        if evaluated <= evaluated_at:
            shutil.copytree(folder, output / FOLDER / folder.name)
    return {"bytes": len(lines), "sha256": hashlib.sha256(lines).hexdigest()}


def check_history(output: Path, record: JsonObject) -> str | None:
    """Return what is wrong with the shared part of a branch's metrics.jsonl, None if nothing is."""
    history = record["history"]
    try:
        with open(output / METRICS, "rb") as file:
            lines = file.read(history["bytes"])
    except OSError as error:
        return f"{METRICS}: {error.strerror}"
    if hashlib.sha256(lines).hexdigest() != history["sha256"]:
        return f"{METRICS}: the lines up to step {record['step']} are not those of the source"
    return None
