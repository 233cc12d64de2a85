"""Command-line options that several benchmarks share."""

from collections.abc import Callable
from pathlib import Path

import click

from visionloop.bin.benchmarks.results import Value
from visionloop.bin.benchmarks.tasks import STEADY
from visionloop.bin.commands.options import device_option

# the parameters of a command are those of its options
Command = Callable[..., Value]  # type: ignore[explicit-any]
TASK = click.Choice(list(STEADY))
PRECISION = click.Choice(["fp32", "bf16", "fp16"])
POSITIVE = click.IntRange(1)
JSON_FILE = click.Path(dir_okay=False, path_type=Path)
PRECISION_HELP = "Autocast precision (default: that of `train`)"
PRECISIONS_HELP = "Autocast precision, can be repeated (default: fp32 and that of `train`)"
SIZE_HELP = (
    "Side of the training images in pixels; super-resolution: of the input crops"
    " (default: the model's)"
)
OPTIONS = {
    "task": click.option("--task", "task_name", type=TASK, default="classification", help="Task"),
    "data": click.option("--data", help="Data folder (default: generated sample data)"),
    "model": click.option("--model", default="tiny", help="Architecture, with random weights"),
    "image-size": click.option("--image-size", "--size", type=click.IntRange(8), help=SIZE_HELP),
    "threads": click.option("--threads", type=POSITIVE, default=1, help="Threads per process"),
    "device": device_option,
    "json": click.option(
        "--json", "json_file", type=JSON_FILE, help="File to append JSON lines of results to"
    ),
}
# with a default of each benchmark's own
DEFAULTED = {
    "batch_size": ("--batch-size", POSITIVE, "Samples per training step"),
    "precision": ("--precision", PRECISION, "Autocast precision"),
    "repeats": ("--repeats", POSITIVE, "Interleaved rounds: each measures every case once"),
}


def shared_options(*names: str, **defaults: int | str) -> Callable[[Command], Command]:
    """Decorate a command with options: keys of OPTIONS, then of DEFAULTED with their defaults."""
    chosen = [OPTIONS[name] for name in names]
    for name, default in defaults.items():
        flag, kind, text = DEFAULTED[name]
        chosen.append(click.option(flag, type=kind, default=default, help=text))

    def decorate(command: Command) -> Command:
        for option in reversed(chosen):
            command = option(command)
        return command

    return decorate
