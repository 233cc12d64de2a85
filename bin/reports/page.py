"""`report write`: the page of runs as one HTML file.

The page is a template, a style, scripts, and the object of the runs as JSON between them. No text
of the object is turned into HTML here. The scripts are ES modules, which the studio serves one by
one; the page holds them in one script, because a file cannot import another from a disk.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from visionloop.bin.checkpoints.folders import format_size
from visionloop.bin.reports.contents import report_of
from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

HERE = Path(__file__).parent
MODULES = ("elements", "axes", "charts", "tables", "confusion", "images", "sections", "report")
SCRIPTS = tuple(f"{name}.js" for name in MODULES)
# the forms of module lines that these files use; any other would leave a broken script in the page
IMPORT = re.compile(r'(?:import|export) \{ \w+(?:, \w+)* \} from "\./(\w+\.js)";\n')
EXPORT = re.compile(r"export (?=(?:async )?function |const )")
ESCAPES = {letter: f"\\u{ord(letter):04x}" for letter in "<>&"}


def run_report(paths: Sequence[str], *, output: str | None, json_file: str | None) -> None:
    """Write one page of all runs to `output`, and its object to `json_file`.

    Without both, the page is report.html, in the run folder for a single run.
    """
    if len(set(map(Path, paths))) < len(paths):
        raise UserError("RUN: the same folder is given twice", field="runs")
    report = report_of(paths)
    if output is None and json_file is None:
        output = str(Path(paths[0]) / "report.html") if len(paths) == 1 else "report.html"
    if json_file is not None:
        content = json.dumps(report, allow_nan=False, indent=1)
        write_file(Path(json_file), f"{content}\n", "--json")
    if output is not None:
        write_file(Path(output), make_page(report), "--output")


def write_file(path: Path, text: str, flag: str) -> None:
    """Write a file and print its size. Raises UserError for a path that cannot be written."""
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
    print(f"{path}: {format_size(path.stat().st_size)}")


def make_page(report: JsonObject) -> str:
    """Return the text of the HTML file, ASCII."""
    parts = {
        "style": (HERE / "report.css").read_text(encoding="ascii"),
        "script": "\n".join(map(script_of, SCRIPTS)),
        "report": escape(report),
    }
    template = (HERE / "page.html").read_text(encoding="ascii")
    # one pass: a text of the object that looks like a slot is not filled
    return re.sub(r"\{\{(style|script|report)\}\}", lambda match: parts[match[1]], template)


def script_of(name: str) -> str:
    """Return the text of a module for one script with the others: without import and export."""
    text = (HERE / name).read_text(encoding="ascii")
    return re.sub(EXPORT, "", re.sub(IMPORT, "", text))


def escape(report: JsonObject) -> str:
    """Return the object as JSON for a <script>: ASCII, without characters that HTML interprets."""
    text = json.dumps(report, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: ESCAPES[match[0]], text)
