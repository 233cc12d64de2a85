"""Commands as a user types them, run in this process."""

import sys

import pytest

from visionloop.bin import convert as convert_launcher
from visionloop.bin.commands.cli import run_commands


@pytest.fixture
def command(request, capsys):
    """command("evaluate --json", *arguments, data=folder) -> (exit code, stdout, stderr).

    It runs the module's `commands`; keywords are options with their value.
    """

    def run(words="", *arguments, **options):
        words = words.split() if isinstance(words, str) else [words]  # a path may hold spaces
        arguments = [*words, *arguments]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        code = 0
        try:
            run_commands(request.module.commands, [str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def convert(monkeypatch, capsys):
    """convert("voc", source, output, *options) -> (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["visionloop-convert", *map(str, arguments)])
        code = 0
        try:
            convert_launcher.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A small run of classification, evaluated three times; copy it before you change it."""
    from report_runs import train_run  # here: most tests need no training

    return train_run(tmp_path_factory.mktemp("runs"))
