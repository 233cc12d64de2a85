"""The page: a template, a style, scripts, and the object as json between them. Nothing of the data is turned into HTML here."""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("charts.js", "tables.js", "images.js", "report.js")
ESCAPED = {letter: f"\\u{ord(letter):04x}" for letter in "<>&"}


def make_page(report):
    """The text of the HTML file, ASCII."""
    parts = {
        "style": (HERE / "report.css").read_text(encoding="ascii"),
        "script": "\n".join((HERE / name).read_text(encoding="ascii") for name in SCRIPTS),
        "report": escape(report),
    }
    template = (HERE / "page.html").read_text(encoding="ascii")
    # one pass: a text of the data that looks like a place to fill is not filled
    return re.sub(r"\{\{(style|script|report)\}\}", lambda match: parts[match[1]], template)


def escape(report):
    """The object as json that can stand in a <script>: ASCII, without any letter that HTML reads."""
    text = json.dumps(report, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: ESCAPED[match[0]], text)
