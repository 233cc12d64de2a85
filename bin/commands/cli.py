"""The commands of a task, `train evaluate predict check replay export health completion`.

`run_commands` runs them, and those of the other launchers, as a program.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from click.shell_completion import get_completion_class

from visionloop.bin.commands.definitions import (
    LoadTaskClass,
    check_command,
    evaluate_command,
    export_command,
    health_command,
    predict_command,
    replay_command,
    train_command,
)
from visionloop.bin.commands.usage_hints import explain_usage
from visionloop.engine.config.options import Recipe
from visionloop.engine.errors import STOPPED, USER_ERROR, RunAgain, UserError

SHELLS = ("bash", "zsh", "fish")
COMPLETION_HELP = """Print the script that makes a shell complete this command. Use it as

\b
eval "$({program} completion bash)"  in ~/.bashrc
eval "$({program} completion zsh)"   in ~/.zshrc, after compinit
{program} completion fish | source   in ~/.config/fish/config.fish
"""

# before torch is there: every rank would print a long warning of what engine/prepare.py does to DDP
# on purpose
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def task_commands(
    name: str,
    config_class: type,
    load_task_class: LoadTaskClass,
    *,
    recipe: Recipe | None = None,
    explanations: Sequence[str] = (),
    score_options: Sequence[str] = (),
    predict_options: Sequence[str] = (),
    predict_batch: int = 32,
) -> click.Group:
    """Return the click group of a task.

    load_task_class: imports and returns the Task; recipe: of the task, for the defaults that `train
    --help` shows; explanations: kinds of `Task.explain`, switches of `predict`; score_options,
    predict_options: settings of the config class that `evaluate` and `predict` have too, for
    `Task.load_trained`; predict_batch: default batch size of `predict`.
    """
    group = click.Group(
        name,
        help=f"Train and use models for {name.replace('_', '-')}.",
        context_settings={"max_content_width": 120},
    )
    group.add_command(train_command(name, config_class, load_task_class, recipe))
    group.add_command(evaluate_command(config_class, load_task_class, score_options))
    group.add_command(
        predict_command(config_class, load_task_class, explanations, predict_options, predict_batch)
    )
    group.add_command(check_command(config_class, load_task_class, recipe))
    group.add_command(replay_command(load_task_class))
    group.add_command(export_command(load_task_class))
    group.add_command(health_command(load_task_class))
    group.add_command(completion_command(group))
    return group


def completion_command(group: click.Group) -> click.Command:
    """Return `completion`, which prints click's completion script for the installed program."""
    program = program_of(group)

    @click.command("completion", help=COMPLETION_HELP.format(program=program))
    @click.argument("shell", type=click.Choice(SHELLS))
    def completion(shell: str) -> None:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"  # that click looks for
        completion_class = get_completion_class(shell)
        assert completion_class is not None
        click.echo(completion_class(group, {}, program, variable).source())

    return completion


def program_of(group: click.Command) -> str:
    """Return the name that a group of commands is installed as."""
    return f"visionloop-{str(group.name).replace('_', '-')}"


def run_commands(group: click.Command, arguments: Sequence[str] | None = None) -> None:
    """Run a command as a program: a user's mistake is one line on stderr and exit code 2.

    `--traceback` shows the whole error. Ctrl-C in a command that does not handle it itself is one
    line too, and exit code 75. arguments: those of this process by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a file name may be no valid UTF-8: it is printed as stderr does
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        group.main(args=list(arguments), prog_name=program_of(group), standalone_mode=False)
    except UserError as error:
        _refuse(str(error), error, arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help, line by line
        raise SystemExit(USER_ERROR) from None
    except click.UsageError as error:
        _refuse(explain_usage(error, arguments), error, arguments)
    except click.Abort as error:
        if not isinstance(error.__cause__, KeyboardInterrupt) or "--traceback" in arguments:
            # click takes an EOFError, a defect of ours, for a wish to stop
            raise (error.__cause__ or error) from None
        click.echo("stopped; the same command can be run again", err=True)
        raise SystemExit(STOPPED) from None
    except click.exceptions.Exit as error:
        raise SystemExit(error.exit_code) from None


def _refuse(message: str, error: Exception, arguments: Sequence[str]) -> NoReturn:
    """Print the error as one line with the rank, and exit; re-raise it with `--traceback`."""
    if "--traceback" in arguments:
        raise error
    # under torchrun every process makes most mistakes: only the other ranks say which one they are
    rank = os.environ.get("RANK", "0")
    if details := getattr(error, "details", ""):
        click.echo(details, err=True)
    prefix = "error" if rank == "0" else f"error (process {rank})"
    click.echo(f"{prefix}: {message}", err=True)
    if isinstance(error, RunAgain):
        from visionloop.engine.system.signals import end_process

        # at once: what is left of the process group may wait for another process
        end_process(STOPPED)
    raise SystemExit(USER_ERROR)
