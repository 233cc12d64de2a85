"""Commands as a person types them."""

import pytest

from visionloop.bin.commands.cli import run_commands


@pytest.fixture
def command(request, capsys):
    """command(*arguments) -> (exit code, stdout, stderr) of the module's `commands`."""

    def run(*arguments):
        code = 0
        try:
            run_commands(request.module.commands, [str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run
