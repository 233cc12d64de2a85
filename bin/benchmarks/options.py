"""Options that several benchmarks share."""

from pathlib import Path

import click

from visionloop.bin.benchmarks.tasks import STEADY

task_option = click.option(
    "--task",
    "task_name",
    type=click.Choice(list(STEADY)),
    default="classification",
    show_default=True,
)
data_option = click.option("--data", help="data folder (default: the task's sample data)")
model_option = click.option("--model", default="tiny", show_default=True)
image_size_option = click.option(
    "--image-size", "--size", type=click.IntRange(8), help="side in pixels (default: the model's)"
)
threads_option = click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="append the figures to this file, one object a line",
)


def batch_size_option(default, help="samples of a step"):
    return click.option(
        "--batch-size", type=click.IntRange(1), default=default, show_default=True, help=help
    )


def repeats_option(default, help="timed turns of each case"):
    return click.option(
        "--repeats", type=click.IntRange(1), default=default, show_default=True, help=help
    )
