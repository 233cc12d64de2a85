"""`report RUN ..`: read the runs, write the page or its object."""

import json
from pathlib import Path

from visionloop.bin.checkpoints.folders import show_size
from visionloop.bin.reports.contents import report_of
from visionloop.bin.reports.page import make_page
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.errors import UserError


def run_report(paths, *, output, json_file):
    """Write one page of all runs to `output`, their object to `json_file`; with neither, report.html, in the run's folder if it is one."""
    if len(set(map(Path, paths))) < len(paths):
        raise UserError("RUN: the same folder is named twice", field="runs")
    report = report_of(paths)
    if output is None and json_file is None:
        output = Path(paths[0]) / "report.html" if len(paths) == 1 else Path("report.html")
    if json_file is not None:
        write(Path(json_file), json.dumps(report, allow_nan=False, indent=1) + "\n", "--json")
    if output is not None:
        write(Path(output), make_page(report), "--output")


def write(path, text, flag):
    """Write the file whole and say so. Raises UserError where that is not possible."""
    if path.is_dir():
        raise UserError(
            f"{flag} {path}: is a folder, expected a file", field=flag[2:], file=str(path)
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise UserError(
            f"{flag} {path}: cannot write ({error.strerror})",
            code="cannot_write",
            field=flag[2:],
            file=str(path),
        ) from None
    print(f"{path}: {show_size(path.stat().st_size)}")
