"""Measure where training time and memory go on this machine.

    bin/benchmark.py step --task classification     parts of a step, share of the matmul rate
    bin/benchmark.py overhead --task classification the engine beside a bare loop, level by level
    bin/benchmark.py data --task detection          training samples per second, beside torchvision
    bin/benchmark.py memory --task segmentation     memory and time with and without recomputation
    bin/benchmark.py on-paper --task segmentation   memory of full-size models, computed without it
    bin/benchmark.py scaling --task classification  one process and two: speed, share of collectives
    bin/benchmark.py predict --task detection       latency and throughput of predict
    bin/benchmark.py startup                        from the command to the first training step
    bin/benchmark.py peers --task all --json FILE   beside transformers' Trainer and timm

Measured results: bin/benchmarks/RESULTS.md.
"""

import click

from visionloop.bin.benchmarks.data import data
from visionloop.bin.benchmarks.memory import memory
from visionloop.bin.benchmarks.on_paper import on_paper
from visionloop.bin.benchmarks.overhead import overhead
from visionloop.bin.benchmarks.peers.command import peers
from visionloop.bin.benchmarks.predict import predict
from visionloop.bin.benchmarks.scaling import scaling
from visionloop.bin.benchmarks.startup import startup
from visionloop.bin.benchmarks.step import step
from visionloop.bin.commands.cli import run_commands


@click.group(
    "benchmark",
    help="Measure where training time and memory go on this machine. Cases are interleaved, figures"
    " are medians, ratios have 95 % intervals. Quote the load of the machine with them.",
    context_settings={"show_default": True, "max_content_width": 100},
)
def command() -> None:
    pass


for benchmark in (step, overhead, data, memory, on_paper, scaling, predict, startup, peers):
    command.add_command(benchmark)


def main() -> None:
    """Run the command line."""
    run_commands(command)


if __name__ == "__main__":
    main()
