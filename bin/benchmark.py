"""Where the time goes, on this machine.

    bin/benchmark.py overhead --task classification
    bin/benchmark.py loss --task detection
"""

import click

from visionloop.bin.benchmarks.loss import loss
from visionloop.bin.benchmarks.overhead import overhead
from visionloop.bin.commands.group import run_commands


@click.group("benchmark", help="Measure the engine on this machine. Figures are medians; say the machine's load when you quote them.")
def command():
    pass


command.add_command(loss)
command.add_command(overhead)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
