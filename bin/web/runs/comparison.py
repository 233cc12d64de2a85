"""Several runs in one report, with the settings that differ."""

from collections.abc import Sequence

from visionloop.bin.reports.contents import make_report
from visionloop.bin.reports.run_folder import RunFolder
from visionloop.bin.web.runs.index import IndexedRun
from visionloop.bin.web.runs.reader import RunReader
from visionloop.engine.types import JsonObject

# they name one run, or follow from where it ran
NOT_COMPARED = (
    "output",
    "run_name",
    "resume",
    "branch",
    "extend",
    "threads",
    "data_fingerprint",
)


def compared(runs: Sequence[IndexedRun], reader: RunReader) -> JsonObject:
    """Return the report of runs, with "differences" and "ids", in the order of `runs`."""
    read = [reader.part(run) for run in runs]
    parts = {folder.path: part for folder, part, _ in read}
    report = make_report(
        [folder for folder, _, _ in read],
        describe=lambda folder, name: parts[folder.path] | {"name": name},
    )
    return {
        **report,
        "ids": [run.id for run in runs],
        "differences": differences([folder for folder, _, _ in read]),
    }


def differences(folders: Sequence[RunFolder]) -> dict[str, list[object]]:
    """Return {setting: values of the runs} of the settings that differ; None where one lacks it."""
    names = dict.fromkeys(name for folder in folders for name in folder.settings)
    values = {name: [folder.value(name) for folder in folders] for name in names}
    return {
        name: row
        for name, row in values.items()
        if name not in NOT_COMPARED and any(value != row[0] for value in row)
    }
