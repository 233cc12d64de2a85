"""Where the time goes, on this machine.

    bin/benchmark.py overhead --task classification     the engine over a bare loop, any task
    bin/benchmark.py loss --task detection              our criterion beside the library's, detection or segmentation
    bin/benchmark.py memory --task segmentation         a step's memory and time with activations kept and recomputed, any task
"""

import click

from visionloop.bin.benchmarks.loss import loss
from visionloop.bin.benchmarks.memory import memory
from visionloop.bin.benchmarks.overhead import overhead
from visionloop.bin.commands.group import run_commands


@click.group("benchmark", help="Measure the engine on this machine. Figures are medians; say the machine's load when you quote them.")
def command():
    pass


command.add_command(loss)
command.add_command(memory)
command.add_command(overhead)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
