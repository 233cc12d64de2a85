"""The `scaling` benchmark: speed of several processes, and the time of their communication."""

import tempfile
from itertools import product
from pathlib import Path

import click

from visionloop.bin.benchmarks.options import POSITIVE, shared_options
from visionloop.bin.benchmarks.results import Row, Value, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import sample_data
from visionloop.engine.config.train_config import Shard
from visionloop.engine.errors import UserError

COLUMNS = {
    "step_ms": "mean over the steps of a round, median over rounds",
    "samples_per_second": "of all processes together",
    "efficiency_percent": "samples per second relative to the number of processes times the rate of"
    " one process alone",
    "efficiency_without_collectives_percent": "the same for steps without collectives: what the"
    " machine itself gives to so many processes at once",
    "collectives_percent": "share of the step beyond the same step of the slowest process without"
    " collectives",
    "messages, sent_mib": "collectives of a step, and what each process sends, by their arithmetic",
    "waiting_percent": "share of the step that the slowest process takes beyond the mean of all",
}


@click.command(
    help="Train on 1, 2, ... processes with strong scaling (the batch is divided) and weak scaling"
    " (each process has a whole batch), interleaved with one process alone."
)
@shared_options("task", "data", "model", "image-size", batch_size=16, precision="fp32")
@click.option(
    "--processes", "numbers", type=POSITIVE, multiple=True, default=[1, 2],
    help="Number of processes, can be repeated",
)  # fmt: skip
@click.option(
    "--shard", "shards", type=click.Choice(["none", "full", "node"]), multiple=True,
    default=["none"], help="Value of --shard of `train`, can be repeated",
)  # fmt: skip
@click.option(
    "--per-node", type=POSITIVE, default=2,
    help="Processes of a node, for --shard node: all of them are on this machine",
)  # fmt: skip
@click.option("--steps", type=POSITIVE, default=4, help="Steps of each kind per round")
@shared_options("threads", "device", "json", repeats=10)
def scaling(
    task_name: str, data: str | None, numbers: tuple[int, ...], shards: tuple[Shard, ...],
    per_node: int, device: str | None, json_file: Path | None, steps: int, repeats: int,
    **options: Value,
) -> None:  # fmt: skip
    import torch

    from visionloop.bin.benchmarks.scaling_ranks import batch_sizes, measure_rank, scaling_figures
    from visionloop.engine.testing.short_runs import on_ranks

    most, gpus = max(numbers), torch.cuda.device_count()
    if options["batch_size"] < most:
        raise click.BadParameter(f"--batch-size: less than one sample for each of {most} processes")
    if device == "cuda" and gpus < most:
        raise click.BadParameter(f"--processes {most}: {gpus} GPUs are visible")
    flags = options | {"device": device or ("cuda" if gpus >= most else "cpu")}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        own = flags | {"data": data or sample_data(task_name, Path(scratch))}
        for number, shard in product(sorted(set(numbers)), dict.fromkeys(shards)):
            if number == 1 and shard != "none":
                continue  # nothing is divided
            sizes, node = batch_sizes(number, flags["batch_size"]), min(per_node, number)
            result, *_ = on_ranks(
                number, measure_rank, task_name, own, sizes, steps, repeats, shard, node
            )
            if "error" in result:
                raise UserError(result["error"])
            for mode in sizes:
                row = {"processes": number, "shard": shard, "scaling": mode}
                rows.append(
                    row | scaling_figures(result["rounds"], mode, sizes) | result["traffic"]
                )
    context = describe_environment(
        task=task_name, **flags, per_node=per_node, steps=steps, repeats=repeats
    )
    keys = ("processes", "shard", "scaling")
    write_results("scaling", rows, json_file, keys, COLUMNS, context)
