"""Proportional memory (PSS): a page that N processes share counts 1/N in each, so a sum over processes counts every page once."""

import re
from contextlib import suppress
from pathlib import Path

from visionloop.engine.errors import UserError


def proportional_mib(pid="self"):
    """MiB of a process that is in RAM. Raises UserError where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except FileNotFoundError:
        why = "proportional memory is read from /proc/PID/smaps_rollup, which Linux has and this system has not"
        raise UserError(why, code="no_smaps_rollup") from None
    return int(re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)[1]) / 1024


def descendants(pid):
    """{process id: its parent's} of all processes below this one."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # ended in the meantime
            if folder.name.isdecimal():
                # after the name, which may hold anything but ends at the last parenthesis: state,
                # parent
                parents[int(folder.name)] = int(
                    (folder / "stat").read_text().rpartition(")")[2].split()[1]
                )
    found, newest = {}, {pid}
    while newest:
        below = {child: parent for child, parent in parents.items() if parent in newest}
        found |= below
        newest = set(below)
    return found
