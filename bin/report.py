"""Write one HTML page of one or several runs: curves, scores, classes, images, settings.

    bin/report.py runs/flowers                    writes runs/flowers/report.html
    bin/report.py runs/flowers runs/flowers-2 --output compared.html
    bin/report.py runs/flowers --json flowers.json    writes only the object of the page
    bin/report.py list                            lists the runs below runs/

The page needs no network and no server. It works for a run that is still running, was killed or
failed as well: the page says what is missing. See bin/reports/README.md.
"""

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import json_option, traceback_option


class ReportGroup(click.Group):
    """Group whose command `write` need not be typed: other first arguments belong to it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["write", *args]
        return super().parse_args(ctx, args)


@click.group(
    "report",
    cls=ReportGroup,
    help="Write one HTML page of runs: RUN [RUN ..], the same as `write RUN [RUN ..]`.",
    context_settings={"max_content_width": 120},
)
def command() -> None:
    """Group the commands."""


@command.command(
    "write",
    help="Write one page of the run folders given. Type ./list for a folder named like a command.",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    metavar="FILE.html",
    help="Page to write (default: report.html, in the run folder for a single run)",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the object of the page as JSON, and the page only with --output",
)
@traceback_option
def write(runs: tuple[str, ...], output: str | None, json_file: str | None) -> None:
    """Run `report write`."""
    from visionloop.bin.reports.page import run_report

    run_report(runs, output=output, json_file=json_file)


@command.command(
    "list",
    help="Print a line for each run below FOLDER (default: runs), the most recently active first.",
)
@click.argument("folder", default="runs")
@json_option("Print one list of objects instead of the table")
@traceback_option
def list_runs(folder: str, as_json: bool) -> None:
    """Run `report list`."""
    from visionloop.bin.reports.listing import run_list

    run_list(folder, as_json=as_json)


def main() -> None:
    """Run the command line."""
    run_commands(command)


if __name__ == "__main__":
    main()
