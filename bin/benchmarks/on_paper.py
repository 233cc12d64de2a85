"""How much memory the models of the table need in training, full size, on a machine that has not so much."""

import click

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import json_option
from visionloop.bin.benchmarks.tables import print_figures, print_table

# a detector's forward needs boxes, and how many decides what it keeps
TASKS = ("classification", "segmentation", "super_resolution")
COLUMNS = {
    "state_gib": "weights, gradients, two moments and the average, in fp32",
    "shared_gib": "kept for the backward pass whatever the number of samples: weights in bf16",
    "each_gib": "kept for the backward pass of each sample, the loss left out",
    "most_in": "samples of a micro-batch that fit into a card of so many GiB, its own needs left out",
    "plain, recomputed": "without and with --grad-checkpointing",
}


@click.command(
    "on-paper",
    help="Memory of a training step of the table's models at their full size, computed without that memory.",
)
@click.option(
    "--task", "task_name", type=click.Choice(TASKS), default="segmentation", show_default=True
)
@click.option("--model", help="one model of the table (default: all)")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True)
@json_option
def on_paper(task_name, model, precision, json_file):
    from visionloop.bin.benchmarks.kept_memory import rows_on_paper

    rows = list(rows_on_paper(task_name, precision, model))
    environment = describe_environment({"precision": precision})
    print_table(rows)
    print_figures(COLUMNS | environment)
    for row in rows:
        append_line(json_file, benchmark="on-paper", task=task_name, **row, **environment)
