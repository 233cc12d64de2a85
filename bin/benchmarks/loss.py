"""What a loss costs: ours against the library's, on equal answers; and what we say of faults of the library, measured again."""

import click

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import json_option, repeats_option, threads_option
from visionloop.bin.benchmarks.tables import print_figures
from visionloop.bin.benchmarks.tasks import STEADY

# a task with a criterion of its own, and the options that are for it alone
OPTIONS = {"detection": ("batch_sizes", "layers", "queries"), "segmentation": ("shapes",)}
# batch, levels, queries, side of the grid, masks of an image, points: 128 px at both numbers of
# points, 512 px
SHAPES = ("4,4,20,32,9,1024", "4,4,20,32,9,12544", "1,5,100,128,16,12544")


@click.command(
    help="Our criterion against the library's loss: forward and backward on equal random answers, in turn in one process."
)
@click.option(
    "--task",
    "task_name",
    type=click.Choice(list(STEADY)),
    show_default="detection; with --faults all",
)
@click.option(
    "--faults",
    is_flag=True,
    help="measure again what our pages say of the library, and name the sentences that must go",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=int,
    multiple=True,
    default=[4, 16],
    show_default=True,
    help="detection",
)
@click.option(
    "--layers", type=int, default=6, show_default=True, help="detection: layers of the decoder"
)
@click.option(
    "--queries",
    type=int,
    default=300,
    show_default=True,
    help="detection: besides about 200 for denoising",
)
@click.option(
    "--shape", "shapes", multiple=True, default=SHAPES, show_default=True,
    help="segmentation: batch, levels, queries, side of the grid of logits, masks of an image, points",
)  # fmt: skip
@click.option("--classes", type=int, default=80, show_default=True)
@threads_option
@repeats_option(15)
@click.option("--device", default="cpu", show_default=True)
@json_option
def loss(task_name, faults, json_file, **options):
    import torch

    from visionloop.bin.benchmarks import loss_detection, loss_segmentation
    from visionloop.bin.benchmarks.faults.report import report_claims
    from visionloop.engine.distributed import pick_device

    torch.set_num_threads(options["threads"])
    if faults:
        return report_claims([task_name] if task_name else list(STEADY), json_file)
    task_name = task_name or "detection"
    if task_name not in OPTIONS:
        why = f"the library has no criterion for {task_name}: expected {', '.join(OPTIONS)}, or --faults"
        raise click.BadParameter(why, param_hint="--task")
    used = {name: options[name] for name in (*OPTIONS[task_name], "classes", "repeats")}
    task = {"detection": loss_detection, "segmentation": loss_segmentation}[task_name]
    for figures in task.measurements(device=pick_device(options["device"]), **used):
        figures |= describe_environment(
            {**used, "threads": options["threads"], "device": options["device"]}
        )
        print_figures(figures)
        append_line(json_file, benchmark="loss", task=task_name, **figures)
