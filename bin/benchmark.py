"""Where time and memory go, on this machine, and what to change.

bin/benchmark.py step --task classification         the parts of a training step, and how far it is
from the machine's limit bin/benchmark.py overhead --task classification     the engine over a bare
loop, then with loader, logging, checkpoints bin/benchmark.py data --task detection
samples a second, beside other pipelines; memory of a large index bin/benchmark.py loss --task
detection              our criterion beside the library's, detection or segmentation
bin/benchmark.py loss --faults                      what our pages say of the library, measured
again bin/benchmark.py memory --task segmentation         a step's memory and time with activations
kept and recomputed bin/benchmark.py on-paper --task segmentation       the memory that large models
need, without having it bin/benchmark.py evaluation --task detection        the metrics' time, and
where an evaluation's goes bin/benchmark.py scaling --task classification      one process and two:
speed, and time in communication bin/benchmark.py predict --task super_resolution    latency and
throughput, tiles included bin/benchmark.py startup                            from the command to
the first step bin/benchmark.py estimate                           what `check` expects of a run
beside what the run takes bin/benchmark.py compare --task all --json FILE     beside transformers'
Trainer and timm, same work and our own recipe bin/benchmark.py selftest
on a GPU machine: what was never tried there, as a report bin/benchmark.py suite
all of it at small sizes, as one report
"""

import click

from visionloop.bin.benchmarks.compare import compare
from visionloop.bin.benchmarks.data import data
from visionloop.bin.benchmarks.estimate import estimate
from visionloop.bin.benchmarks.evaluation import evaluation
from visionloop.bin.benchmarks.loss import loss
from visionloop.bin.benchmarks.memory import memory
from visionloop.bin.benchmarks.on_paper import on_paper
from visionloop.bin.benchmarks.overhead import overhead
from visionloop.bin.benchmarks.predict import predict
from visionloop.bin.benchmarks.scaling import scaling
from visionloop.bin.benchmarks.selftest import selftest
from visionloop.bin.benchmarks.startup import startup
from visionloop.bin.benchmarks.step import step
from visionloop.bin.benchmarks.suite import suite
from visionloop.bin.commands.cli import run_commands


@click.group(
    "benchmark",
    help="Measure the engine on this machine. Figures are medians; say the machine's load when you quote them.",
)
def command():
    pass


for benchmark in (
    step,
    overhead,
    data,
    loss,
    memory,
    on_paper,
    evaluation,
    scaling,
    predict,
    startup,
    estimate,
    compare,
    selftest,
    suite,
):
    command.add_command(benchmark)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
