"""The file of json lines that a comparison writes and goes on from: one object a run."""

import hashlib
import json
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path

from visionloop.bin.benchmarks.comparisons.cases import Case
from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.engine.errors import UserError

PEERS = ("accelerate", "datasets", "timm")
# two runs with equal values of these are the same run
IDENTITY = (*(field.name for field in fields(Case)), "data_fingerprint", "versions", "machine")


class Record:
    """The runs of a file. what: {"data", "data_fingerprint"} and the like, which every run of this start has."""

    def __init__(self, path, what):
        self.path, self.what = path, what
        self.rows = read_rows(path)

    def describe(self, case):
        """Everything that a row says besides figures."""
        environment = describe_environment({})
        del environment["options"]  # they are the row itself
        environment["versions"] |= peer_versions()
        return {
            "benchmark": "compare",
            **asdict(case),
            "flags": case.flags,
            **self.what,
            **environment,
        }

    def find(self, case):
        """The row of this run, None where it is still to be made."""
        wanted = identity_of(self.describe(case))
        return next((row for row in self.rows if identity_of(row) == wanted), None)

    def add(self, described, figures):
        """Write one more run down; returns its row."""
        row = described | figures
        append_line(self.path, **row)
        self.rows.append(row)
        return row


def identity_of(row):
    return {name: row.get(name) for name in IDENTITY}


def read_rows(path):
    """The rows of this benchmark in a file, [] where there is none. A last line that was cut off is taken out of the file.

    Raises UserError for any other line that is not json.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
        lines = lines[:-1]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(
                f"--json {path}: line {number} is not json ({error})", file=str(path)
            ) from None
    return [row for row in rows if row.get("benchmark") == "compare"]


def peer_versions():
    """{name: version} of what is compared with. Raises UserError where it is not installed."""
    try:
        return {name: metadata.version(name) for name in PEERS}
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"compare: {error.name} is not installed; pip install -e '.[compare]'"
        ) from None


def fingerprint(folder):
    """SHA-256 over the relative paths and sizes of a folder's files, as a run's own fingerprint is."""
    folder, digest = Path(folder), hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()
