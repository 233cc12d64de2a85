"""List, inspect, verify, prune and consolidate the checkpoints of a run.

    bin/checkpoint.py list runs/flowers
    bin/checkpoint.py inspect runs/flowers/checkpoints/step_00002000
    bin/checkpoint.py verify runs/flowers                 exit code 1 if something is damaged
    bin/checkpoint.py prune runs/flowers --keep 2 --dry-run
    bin/checkpoint.py consolidate runs/flowers/checkpoints/step_00002000 flowers-2000

PATH is a run folder or its checkpoints/; for inspect, verify and consolidate also one checkpoint
folder, for inspect and verify a best/.
"""

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import json_option, traceback_option


@click.group(
    "checkpoint",
    help="List, inspect, verify, prune and consolidate the checkpoints of a run.",
    context_settings={"max_content_width": 120},
)
def command() -> None:
    pass


@command.command(
    "list",
    help="List the checkpoints of the run in PATH with score and condition. Reads every file.",
)
@click.argument("path")
@json_option("print one object instead of the table")
@traceback_option
def list_checkpoints(path: str, as_json: bool) -> None:
    from visionloop.bin.checkpoints.report import run_list

    run_list(path, as_json=as_json)


@command.command(
    "inspect",
    help="Show the contents of the checkpoint PATH, or of the latest valid one of the run in PATH.",
)
@click.argument("path")
@json_option("print one object instead of lines")
@traceback_option
def inspect(path: str, as_json: bool) -> None:
    from visionloop.bin.checkpoints.inspection import run_inspect

    run_inspect(path, as_json=as_json)


@command.command(
    "verify",
    help="Compare every file of the checkpoints and best/ in PATH with its hash. Exits with 1 "
    "if a file is damaged.",
)
@click.argument("path")
@json_option("print one object instead of lines")
@traceback_option
def verify(path: str, as_json: bool) -> None:
    from visionloop.bin.checkpoints.report import run_verify

    raise SystemExit(run_verify(path, as_json=as_json))


@command.command(
    "prune",
    help="Remove all checkpoints of the run in PATH except the latest valid ones and the best. "
    "Refused while the run is alive.",
)
@click.argument("path")
@click.option(
    "--keep",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="number of latest valid checkpoints to keep",
)
@click.option(
    "--keep-every",
    type=click.IntRange(0),
    metavar="N",
    help="keep the checkpoints at the multiples of N too; 0: none (default: as the run)",
)
@click.option("--dry-run", is_flag=True, help="print what would be removed and remove nothing")
@traceback_option
def prune(path: str, keep: int, keep_every: int | None, dry_run: bool) -> None:
    from visionloop.bin.checkpoints.removal import run_prune

    run_prune(path, keep=keep, keep_every=keep_every, dry_run=dry_run)


@command.command(
    "consolidate",
    help="Write the sharded checkpoint PATH, or the latest valid one of the run in PATH, as a "
    "whole one to the new folder OUTPUT. It takes the memory of the largest tensor.",
)
@click.argument("path")
@click.argument("output")
@traceback_option
def consolidate(path: str, output: str) -> None:
    from visionloop.bin.checkpoints.consolidation import run_consolidate

    run_consolidate(path, output)


def main() -> None:
    run_commands(command)


if __name__ == "__main__":
    main()
