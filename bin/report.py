"""One HTML page of one run or of several beside each other: curves, scores, classes, images, settings. It needs no network and no server.

    bin/report.py runs/flowers                            writes runs/flowers/report.html
    bin/report.py runs/flowers runs/flowers-2 --output compared.html
    bin/report.py runs/flowers --json flowers.json        the object that the page is drawn from,
    alone bin/report.py list                                    which runs there are below runs/

Of a run that is still going on, was killed or failed as well: what is missing is said in the page.
bin/reports/README.md tells more.
"""

import click

from visionloop.bin.commands.cli import json_option, run_commands, traceback_option


class ReportGroup(click.Group):
    """`write` need not be typed: arguments that begin with no command are its own."""

    def parse_args(self, context, arguments):
        if arguments and arguments[0] not in (*self.commands, "--help"):
            arguments = ["write", *arguments]
        return super().parse_args(context, arguments)


@click.group(
    "report",
    cls=ReportGroup,
    help="One HTML page of runs: RUN [RUN ..], the same as `write RUN [RUN ..]`.",
    context_settings={"max_content_width": 120},
)
def command():
    pass


@command.command(
    "write",
    help="Write one page of all the runs in RUN.. A run that is called like a command: ./list.",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    metavar="FILE.html",
    help="default: report.html, in the run's folder if it is one run",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="write the page's object there; without --output nothing else",
)
@traceback_option
def write(runs, output, json_file):
    from visionloop.bin.reports.writing import run_report

    run_report(runs, output=output, json_file=json_file)


@command.command("list", help="A line for each run below FOLDER (runs), the latest first.")
@click.argument("folder", default="runs")
@json_option("print one list of objects instead of the table")
@traceback_option
def list_runs(folder, as_json):
    from visionloop.bin.reports.listing import run_list

    run_list(folder, as_json=as_json)


def main():
    run_commands(command)


if __name__ == "__main__":
    main()
