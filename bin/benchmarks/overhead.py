"""The `overhead` benchmark: the engine against a bare loop of the same model, level by level."""

import contextlib
import io
import multiprocessing
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import click

from visionloop.bin.benchmarks.measurement import median_ms, ratio_with_interval
from visionloop.bin.benchmarks.options import POSITIVE, PRECISION, PRECISION_HELP, shared_options
from visionloop.bin.benchmarks.results import Row, Value, describe_environment, write_results
from visionloop.bin.benchmarks.tasks import (
    build_steady_task,
    default_precision,
    prepare_steady_run,
    sample_data,
)

# each level has all that those before it have
LEVELS = {
    "memory": "samples from memory; step time and overhead without the time spent making batches",
    # counted although any loop has to load: the bare loop is handed its batches, and no worker
    # runs at the same time
    "loader": "samples from disk by --workers; from here on with waiting for batches, and with what"
    " the workers take from the machine",
    "logging": "metrics.jsonl and TensorBoard once per block",
    "checkpoints": "a checkpoint every two blocks, written by a thread",
    "page": "the page of the run is open: the studio's server and a client on this machine",
}
COLUMNS = {
    "bare_step_ms": "the bare loop, median over blocks",
    "engine_step_ms": "the engine's loop, median over blocks",
    "batch_wait_ms": "waiting for batches, per step of the engine",
    "overhead_percent": "engine over bare loop, median over pairs of blocks",
    "overhead_low_percent": "lower end of its 95 % interval",
    "overhead_high_percent": "upper end of its 95 % interval",
    "bare_samples_per_second": "the bare loop",
    "blocks": "pairs of blocks that were timed",
    "weights": "of the two loops at the end",
}
MICRO_BATCH_HELP = "Samples per micro-batch, gradients are accumulated (default: the whole batch)"
LEVEL_HELP = "Level to measure, can be repeated; each includes those before it (default: all)"


@click.command(
    help="Compare the engine with a bare loop: same model, same batches, interleaved in one"
    " process; the weights must be equal at the end."
)
@shared_options("task", "data", "model", "image-size", batch_size=32)
@click.option("--micro-batch", type=int, help=MICRO_BATCH_HELP)
@click.option("--precision", type=PRECISION, help=PRECISION_HELP)
@click.option("--steps", type=POSITIVE, default=240, help="Steps of each level")
@click.option(
    "--block", type=click.IntRange(2), default=10, help="Steps before the loops alternate"
)
@click.option("--level", "levels", type=click.Choice(list(LEVELS)), multiple=True, help=LEVEL_HELP)
@click.option(
    "--workers", type=POSITIVE, default=1, help="Data workers of all levels but the first"
)
@shared_options("threads", "device", "json")
def overhead(
    task_name: str, data: str | None, levels: tuple[str, ...], json_file: Path | None,
    **options: Value,
) -> None:  # fmt: skip
    if options["steps"] < 6 * options["block"]:
        why = f"expected at least six blocks of {options['block']} steps: the first two warm up"
        raise click.BadParameter(why, param_hint="--steps")
    chosen = [level for level in LEVELS if not levels or level in levels]
    if chosen != ["memory"]:
        from visionloop.engine.data.forkserver import start_fork_server

        start_fork_server()  # before this process has threads
    if options["precision"] is None:
        options["precision"] = default_precision(task_name, options["model"], options["device"])
    context = describe_environment(task=task_name, **options)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        flags = options | {"data": data or sample_data(task_name, Path(scratch))}
        for level in chosen:
            row = measure_level(task_name, level, Path(scratch) / level, **flags)
            rows.append({"level": level} | row)
    legend = COLUMNS | {f"level {level}": LEVELS[level] for level in chosen}
    write_results("overhead", rows, json_file, ["level"], legend, context)


def measure_level(
    task_name: str,
    level: str,
    output: Path,
    *,
    steps: int,
    block: int,
    workers: int,
    **flags: Value,
) -> Row:
    """Run the engine's loop interleaved with a bare loop. Neither evaluates nor keeps an EMA."""
    import torch

    from visionloop.bin.benchmarks.bare_loop import BareLoop, CachedSamples, InterleavedLoops
    from visionloop.bin.benchmarks.open_page import open_page
    from visionloop.bin.benchmarks.repeated_step import largest_difference
    from visionloop.engine.loop import fit

    active = list(LEVELS)[: list(LEVELS).index(level) + 1]
    settings = dict(
        workers=workers if "loader" in active else 0,
        log_every=block if "logging" in active else steps,
        save_every=2 * block if "checkpoints" in active else 0,
    )
    built = build_steady_task(task_name, flags | {"steps": steps})
    if "loader" not in active:
        built = built._replace(train_set=CachedSamples(built.train_set))
    earlier_processes = multiprocessing.active_children()  # the page's will rest as workers do
    run = prepare_steady_run(built, output, **settings)
    bare = BareLoop(built.task, run)
    loops = InterleavedLoops(built.task, run, bare, block, earlier_processes)
    # no evaluation at the end, and no checkpoint where none was asked for
    run.state.evaluated_at = run.last_save.step = steps
    page = open_page(output, output.parent / "studio") if "page" in active else nullcontext()
    with contextlib.redirect_stdout(io.StringIO()), page:
        fit(run, built.task)
    loops.run_bare_block()
    run.data.close()
    run.log.close()
    with torch.no_grad():
        engine, other = (
            {name: parameter.data for name, parameter in module.named_parameters()}
            for module in (run.module, bare.module)
        )
        difference = largest_difference(engine, other)
    device = built.world.device.type
    assert difference == 0 or device != "cpu", f"the weights differ by {difference:.2g}"
    blocks = loops.whole_blocks(together=2 if "checkpoints" in active else 1)
    figures = overhead_figures(blocks, flags["batch_size"], with_waiting="loader" in active)
    equal = "equal" if difference == 0 else f"equal to {difference:.1g}"
    return figures | {"weights": equal, "device": device}


class TimedBlock(NamedTuple):
    """Seconds of some steps: the engine's, of them waiting for batches, the bare loop's."""

    steps: int
    engine: float
    waiting: float
    bare: float


def overhead_figures(blocks: list[TimedBlock], batch_size: int, *, with_waiting: bool) -> Row:
    """Return {figure: value} of equally long blocks.

    Sums over blocks, not the median step, which would not see what happens every ten steps. The
    ratio is taken block by block: both of a pair ran at the same moment of a noisy machine.
    """
    steps = blocks[0].steps
    engine = [block.engine - (0 if with_waiting else block.waiting) for block in blocks]
    bare = [block.bare for block in blocks]
    ratio, (low, high) = ratio_with_interval(engine, bare)
    bare_ms = median_ms((seconds / steps for seconds in bare), 3)
    return {
        "bare_step_ms": bare_ms,
        "engine_step_ms": median_ms((seconds / steps for seconds in engine), 3),
        "batch_wait_ms": median_ms((block.waiting / steps for block in blocks), 3),
        "overhead_percent": round(100 * (ratio - 1), 2),
        "overhead_low_percent": round(100 * (low - 1), 2),
        "overhead_high_percent": round(100 * (high - 1), 2),
        "bare_samples_per_second": round(1000 * batch_size / bare_ms, 1),
        "blocks": len(blocks),
    }
