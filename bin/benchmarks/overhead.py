"""What the engine costs over a bare loop of the same model and batches, rung by rung."""

import io
import multiprocessing
import statistics
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import click

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import (
    batch_size_option,
    data_option,
    image_size_option,
    json_option,
    model_option,
    task_option,
    threads_option,
)
from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.tables import print_figures, print_table
from visionloop.bin.benchmarks.tasks import build_steady, sample_data
from visionloop.bin.commands.cli import device_option

# each rung has all that those before it have
RUNGS = {
    "memory": "samples from memory; engine_step_ms and overhead without the time in which batches are made",
    # counted although any loop has to load: the bare one is given its batches, and no worker runs
    # beside it
    "loader": "samples from the disk by --workers; from here on with waiting for a batch, and with what workers take of the machine",
    "logging": "metrics.jsonl and TensorBoard once a block",
    "checkpoints": "a checkpoint every two blocks, written by a thread",
}
COLUMNS = (
    "rung",
    "bare_step_ms",
    "engine_step_ms",
    "batch_wait_ms",
    "overhead_percent",
    "overhead_low_percent",
    "overhead_high_percent",
)


@click.command(
    help="The engine against a bare loop: same model, same batches, in turn in one process; equal weights at the end."
)
@task_option
@data_option
@model_option
@image_size_option
@batch_size_option(32)
@click.option("--micro-batch", type=int, help="accumulate: most samples at once")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="bf16", show_default=True
)
@click.option(
    "--steps", type=click.IntRange(1), default=240, show_default=True, help="of each rung"
)
@click.option(
    "--block",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="steps before the two take turns",
)
@click.option(
    "--rung",
    "rungs",
    type=click.Choice(list(RUNGS)),
    multiple=True,
    help="default: all; each has what those before it have",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="workers, in all rungs but the first",
)
@threads_option
@device_option
@json_option
def overhead(task_name, data, rungs, json_file, **options):
    if options["steps"] < 6 * options["block"]:
        raise click.BadParameter(
            f"expected at least six blocks of {options['block']}, since the first two warm up",
            param_hint="--steps",
        )
    chosen = [rung for rung in RUNGS if not rungs or rung in rungs]
    if chosen != ["memory"]:
        from visionloop.engine.data.forkserver import start_fork_server

        start_fork_server()  # before this process has threads
    rows, environment = [], describe_environment(options)
    with tempfile.TemporaryDirectory() as scratch:
        data = data or sample_data(task_name, Path(scratch))
        for rung in chosen:
            rows.append(
                {"rung": rung}
                | measure(task_name, data, Path(scratch) / rung, rung=rung, **options)
            )
            append_line(json_file, benchmark="overhead", task=task_name, **rows[-1], **environment)
    print_table([{name: row[name] for name in COLUMNS} for row in rows])
    print_figures(
        {rung: RUNGS[rung] for rung in chosen}
        | {name: rows[-1][name] for name in rows[-1] if name not in COLUMNS}
        | environment
    )


def measure(task_name, data, output, *, rung, steps, block, batch_size, workers, threads, **flags):
    """{figure: value} of one rung: the engine's loop as ever, and a bare loop in turn with it. Neither evaluates nor averages weights.

    flags: model, image_size, micro_batch, precision, device.
    """
    from visionloop.bin.benchmarks.bare_loop import BareLoop, InMemory, TakeTurns
    from visionloop.engine.config.options import build
    from visionloop.engine.config.train_config import TrainConfig
    from visionloop.engine.loop import fit
    from visionloop.engine.prepare import prepare_run, set_process
    from visionloop.engine.system.signals import StopFlag

    has = list(RUNGS)[: list(RUNGS).index(rung) + 1]
    flags |= dict(data=data, steps=steps, batch_size=batch_size, threads=threads)
    world, task, train_set, val, settings, facts = build_steady(task_name, flags)
    config = replace(
        build(TrainConfig, settings),
        workers=workers if "loader" in has else 0,
        log_every=block if "logging" in has else steps,
        save_every=2 * block if "checkpoints" in has else 0,
    )
    set_process(config)
    output.mkdir(parents=True)
    others = multiprocessing.active_children()
    samples = train_set if "loader" in has else InMemory(train_set)
    run = prepare_run(
        task, config, world, samples, val, output=output, settings=facts, start_step=0, evaluated_at=0, stop=StopFlag()
    )  # fmt: skip
    bare = BareLoop(task, run, config)
    turns = TakeTurns(task, run, bare, block, others)
    run.evaluated_at = run.saved_at = (
        steps  # no evaluation at the end, and no checkpoint where none was asked for
    )
    with redirect_stdout(io.StringIO()):
        fit(run, task)
    turns.hand_over()
    run.data.close()
    run.log.close()
    apart = bare.difference(run.module)
    assert apart == 0 or world.device.type != "cpu", (
        f"weights differ by {apart:.2g}: the two loops did not compute the same"
    )
    weights = "equal" if apart == 0 else f"equal to {apart:.1g}"
    whole = turns.whole_blocks(together=2 if "checkpoints" in has else 1)
    return figures_of(whole, batch_size, with_waiting="loader" in has) | {
        "weights": weights,
        "device": world.device.type,
    }


def figures_of(blocks, batch_size, *, with_waiting):
    """{figure: value} of equally long blocks: [(steps, seconds of the engine, of them waiting for batches, seconds of the bare loop)].

    Sums over blocks, not the median step, which would not see what happens every ten steps. Their
    ratio block by block: both of a pair saw the same moment of a noisy machine.
    """
    steps = blocks[0][0]
    engine = [seconds if with_waiting else seconds - wait for _, seconds, wait, _ in blocks]
    bare = [row[-1] for row in blocks]
    ratio, (low, high) = ratio_with_interval(engine, bare)
    step_ms = {
        name: 1000 * statistics.median(values) / steps
        for name, values in (("bare", bare), ("engine", engine))
    }
    return {
        "bare_step_ms": round(step_ms["bare"], 3),
        "engine_step_ms": round(step_ms["engine"], 3),
        "batch_wait_ms": round(1000 * statistics.median(row[2] for row in blocks) / steps, 3),
        "overhead_percent": round(100 * (ratio - 1), 2),
        "overhead_low_percent": round(100 * (low - 1), 2),
        "overhead_high_percent": round(100 * (high - 1), 2),
        "bare_samples_per_second": round(1000 * batch_size / step_ms["bare"], 1),
        "blocks": len(blocks),
    }
