"""Start a training for a program that reads exit codes: Docker, Kubernetes, SLURM.

    bin/launch.py run --processes 8 classification runs/flowers --data flowers/
    bin/launch.py state runs/flowers

Exit codes, with any number of processes: 0 finished; 75 stopped, or another process was lost, or a
step did not fit into memory: the same command resumes; 2 a mistake in the input; 1 a defect.
torchrun by itself ends with 1 for all but the first. See docker/README.md.
"""

import sys
from pathlib import Path

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import PATH, traceback_option
from visionloop.bin.launches.outcome import outcome_of_start, outcome_of_status, read_status
from visionloop.bin.model_zoo.listing import MODEL_ZOOS

COMMANDS = [zoo.command.replace("-", "_") for zoo in MODEL_ZOOS]


def say(text: str) -> None:
    """Print a line to stderr: stdout belongs to the training."""
    click.echo(f"visionloop-launch: {text}", err=True)


@click.group(
    "launch",
    help="Start a training for a program that reads exit codes: Docker, Kubernetes, SLURM.",
    context_settings={"max_content_width": 120},
)
def command() -> None:
    """Group the commands."""


@command.command(
    "run",
    help="Train TASK in the folder RUN, or resume it there. OPTIONS: of the task's `train`. Exit "
    "code 0: finished; 75: run the same command again; 2: a mistake in the input; 1: a defect.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes of this node, one for each GPU; several are started with torchrun",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Nodes of the run; each one runs this command",
)
@click.option(
    "--node-rank",
    type=click.IntRange(min=0),
    default=0,
    envvar="JOB_COMPLETION_INDEX",
    show_default=True,
    help="Number of this node, from 0; an indexed Job of Kubernetes sets JOB_COMPLETION_INDEX",
)
@click.option("--master-address", help="Name or address of node 0, required for several nodes")
@click.option(
    "--master-port",
    type=click.IntRange(1, 65535),
    default=29500,
    show_default=True,
    help="Free port of node 0, for several nodes",
)
@traceback_option
@click.argument("task", type=click.Choice(COMMANDS))
@click.argument("run", type=PATH)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run_command(
    task: str,
    run: str,
    options: tuple[str, ...],
    processes: int,
    nodes: int,
    node_rank: int,
    master_address: str | None,
    master_port: int,
) -> None:
    """Run `launch run`."""
    from visionloop.bin.launches.command import Nodes, train_command
    from visionloop.bin.launches.supervise import supervise

    folder = Path(run)
    nodes_of_run = Nodes(nodes, node_rank, master_address, master_port)
    command_line = train_command(task, folder, options, processes=processes, nodes=nodes_of_run)
    before = read_status(folder)
    code, was_stopped = supervise(command_line)
    outcome = outcome_of_start(before, read_status(folder), code, was_stopped=was_stopped)
    say(f"{run}: {outcome.state} (exit code {outcome.code})")
    sys.exit(outcome.code)


@command.command(
    "state",
    help="Print the state in RUN/status.json, with the code of its error, and exit with the code "
    "that `run` ends with in that state.",
)
@click.argument("run", type=PATH)
@traceback_option
def state_command(run: str) -> None:
    """Run `launch state`."""
    outcome = outcome_of_status(read_status(Path(run)))
    click.echo(outcome.state)
    sys.exit(outcome.code)


@command.command(
    "stop-slurm",
    help="Stop the SLURM job of this name: one that waits is removed from the queue; one that runs "
    "saves and is not queued again.",
)
@click.argument("name")
@traceback_option
def stop_slurm_command(name: str) -> None:
    """Run `launch stop-slurm`."""
    from visionloop.bin.launches.slurm import stop_job

    stop_job(name)


def main() -> None:
    run_commands(command)


if __name__ == "__main__":
    main()
