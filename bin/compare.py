"""Say whether a run is better than another, on the same validation images.

    bin/compare.py runs/flowers runs/flowers-2              every score, per class and per size
    bin/compare.py runs/a runs/b runs/c --baseline runs/b   differences to b, not to the first
    bin/compare.py runs/plain runs/mixed                    folders of `train --seeds`: over seeds

Each run's best weights are evaluated once. Nothing is written.
"""

from typing import Any

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import (
    PATH,
    device_option,
    json_option,
    threads_option,
    traceback_option,
    workers_option,
)
from visionloop.bin.commands.startup import heavy_imports, use_threads


@click.command(
    "compare",
    help="Evaluate best/ of two or more runs of one task on the same validation images, and say "
    "for each score whether a run is better than the first: its difference with the 95 % interval "
    "of a paired bootstrap. Runs whose settings differ in the seed alone are averaged.",
    context_settings={"max_content_width": 120},
)
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN RUN...")
@click.option(
    "--baseline", type=PATH, help="Run that the others are compared with (default: the first)"
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="RUN,RUN..",
    help="Runs to average as seeds of one setting, whatever their settings; may be repeated",
)
@click.option("--data", type=PATH, help="Data folder (default: that of the first run)")
@click.option(
    "--val-split",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of train/ that the runs validated on (default: that of the first run)",
)
@click.option("--metric", help="Key of the score that decides (default: the first one of the task)")
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Samples of the images for the intervals",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Images that are evaluated at once",
)
@workers_option("Worker processes that read images")
@device_option
@threads_option
@json_option("Print one object instead of tables")
@traceback_option
def command(  # type: ignore[explicit-any]  # of click
    runs: tuple[str, ...],
    baseline: str | None,
    groups: tuple[str, ...],
    metric: str | None,
    draws: int,
    as_json: bool,
    threads: int | None,
    **options: Any,
) -> None:
    """Run `compare`."""
    with heavy_imports():
        from visionloop.bin.comparisons.command import CompareOptions, run_compare
        from visionloop.bin.comparisons.evidence import EvidenceOptions
    use_threads(threads)
    evidence = EvidenceOptions(**options)
    run_compare(runs, CompareOptions(evidence, metric, baseline, groups, draws, as_json))


def main() -> None:
    """Run the command line."""
    run_commands(command)


if __name__ == "__main__":
    main()
