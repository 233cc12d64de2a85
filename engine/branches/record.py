"""branch.json in the folder of a branch. No torch here: reports read it.

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
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_file
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


def check_history(output: Path, record: JsonObject) -> str | None:
    """Return what is wrong with the shared part of a branch's metrics.jsonl, None if nothing is."""
    try:
        size, expected = int(record["history"]["bytes"]), record["history"]["sha256"]
        with open(output / METRICS, "rb") as file:
            lines = file.read(size)
    except OSError as error:
        return f"{METRICS}: {error.strerror}"
    except (KeyError, TypeError, ValueError):
        return f"{RECORD}: no history"
    if hashlib.sha256(lines).hexdigest() != expected:
        return f"{METRICS}: the lines up to step {record['step']} are not those of the source"
    return None
