"""The commands on the pages of the documentation, and which of them say that they were not run."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = "not run here"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = ("", "sh", "bash", "console")  # languages of a fenced block that may hold commands
PROGRAM = re.compile(
    r"(python bin/\w|bin/\w+\b(?!/)|torchrun |visionloop-\w"
    r"|docker |sbatch |mkdir |tensorboard |source )"
)
INSTALLED = re.compile(r"^visionloop-([\w-]+)")
LABEL = re.compile(r"^\(\w\) ")  # in front of a command that a table refers to


@dataclass(frozen=True)
class Command:
    """A command line of a page.

    line: continued lines joined, without comments; run: False if it says `not run here`.
    """

    page: str
    line: str
    run: bool

    def words(self):
        return shlex.split(self.line)

    def launcher(self):
        """Return "classification" for `[python | torchrun] bin/classification.py`, or None."""
        match = re.search(r"bin/(\w+)\.py", self.line)
        return match and match[1]


def pages():
    """Paths below the root of all pages under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(page for page in listed.stdout.split() if page != "CHANGELOG.md")


def commands_of(page):
    """Return the commands of a page.

    Lines of fenced blocks, and inline code that begins like a command and has arguments.
    """
    text = (ROOT / page).read_text()
    commands = [
        command
        for language, block in FENCE.findall(text)
        if language in SHELL
        for command in _of_block(page, block)
    ]
    for paragraph in FENCE.sub("", text).split("\n\n"):
        for code in re.findall(r"`([^`\n]+)`", paragraph):
            if PROGRAM.match(code) and " " in code:
                commands.append(
                    Command(page, INSTALLED.sub(_launcher_of, code), MARK not in paragraph)
                )
    return commands


def _of_block(page, block):
    """Yield the commands of one block.

    A comment line with the mark is about all lines below it; a leading `...` stands for the line
    before.
    """
    whole_block_runs, before = True, ""
    for line in block.replace("\\\n", " ").splitlines():
        code, _, comment = line.partition("#")
        if not code and MARK in comment:
            whole_block_runs = False
        code = " ".join(LABEL.sub("", code.strip()).split())
        if code.startswith("... "):
            code = f"{before} {code[4:]}"
        if PROGRAM.match(code):
            before = code
            yield Command(page, code, whole_block_runs and MARK not in comment)


def _launcher_of(installed):
    """bin/super_resolution.py for visionloop-super-resolution."""
    return f"bin/{installed[1].replace('-', '_')}.py"
