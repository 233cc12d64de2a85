"""Look at the checkpoints of a run: which there are, what is in one, whether they are whole; and remove old ones.

    bin/checkpoint.py list runs/flowers
    bin/checkpoint.py inspect runs/flowers/checkpoints/step_00002000
    bin/checkpoint.py verify runs/flowers                 exit code 1 where something is damaged
    bin/checkpoint.py prune runs/flowers --keep 2 --dry-run

PATH is a run's folder or its checkpoints/; for inspect and verify also one checkpoint folder, or a
best/.
"""

import click

from visionloop.bin.commands.cli import json_option, run_commands, traceback_option


@click.group(
    "checkpoint",
    help="Look at the checkpoints of a run, check that they are whole, remove old ones.",
    context_settings={"max_content_width": 120},
)
def command():
    pass


@command.command(
    "list",
    help="A line for each checkpoint of the run in PATH. Every file is read: a second or so for a GiB.",
)
@click.argument("path")
@json_option("print one object instead of the table")
@traceback_option
def list_checkpoints(path, as_json):
    from visionloop.bin.checkpoints.report import run_list

    run_list(path, as_json=as_json)


@command.command(
    "inspect", help="What is in the checkpoint PATH, or in the newest whole one of the run in PATH."
)
@click.argument("path")
@json_option("print one object instead of lines")
@traceback_option
def inspect(path, as_json):
    from visionloop.bin.checkpoints.inspection import run_inspect

    run_inspect(path, as_json=as_json)


@command.command(
    "verify",
    help="Read every file of the checkpoints and best/ of the run in PATH, or of one of them. Damage: exit code 1.",
)
@click.argument("path")
@json_option("print one object instead of lines")
@traceback_option
def verify(path, as_json):
    from visionloop.bin.checkpoints.report import run_verify

    raise SystemExit(run_verify(path, as_json=as_json))


@command.command(
    "prune",
    help="Remove all checkpoints of the run in PATH but the newest whole ones and the best. Not while it runs.",
)
@click.argument("path")
@click.option(
    "--keep",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="how many of the newest whole ones stay",
)
@click.option("--dry-run", is_flag=True, help="say what would be removed, and remove nothing")
@traceback_option
def prune(path, keep, dry_run):
    from visionloop.bin.checkpoints.removal import run_prune

    run_prune(path, keep=keep, dry_run=dry_run)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
