"""Every benchmark at sizes meant for half an hour, and one markdown report of them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.environment import describe_environment
from visionloop.bin.benchmarks.markdown import rows_as_markdown
from visionloop.bin.benchmarks.sections import SECTIONS, arguments_of
from visionloop.bin.benchmarks.tasks import STEADY
from visionloop.engine.errors import DEFECT, FINISHED, USER_ERROR

NOTES = Path(__file__).parent / "notes.md"


def folders_by_task(context, parameter, values):
    """{task: folder} of --data TASK=DIR. Raises BadParameter."""
    folders = dict(value.partition("=")[::2] for value in values)
    for task_name, folder in folders.items():
        if task_name not in STEADY or not Path(folder).is_dir():
            raise click.BadParameter(
                f"{task_name}={folder}: expected TASK=DIR, a task of {', '.join(STEADY)} and its data folder"
            )
    return folders


@click.command(
    help="All benchmarks at small sizes, meant for half an hour on two cores, as one markdown report with the notes."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="benchmark-report.md",
    show_default=True,
)
@click.option(
    "--data",
    "folders",
    multiple=True,
    callback=folders_by_task,
    help="TASK=DIR: real data instead of a task's sample data",
)
@click.option(
    "--only", type=click.Choice(list(SECTIONS)), multiple=True, help="these benchmarks alone"
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="of every process that is not about threads",
)
def suite(output, folders, only, threads):
    rows_file = output.with_suffix(".jsonl")
    rows_file.unlink(missing_ok=True)
    planned = [
        (name, arguments_of(name, task, folders, threads))
        for name in only or SECTIONS
        for task in SECTIONS[name].tasks
    ]
    head, began = describe_environment({}), time.monotonic()
    sections = []
    for name, arguments in tqdm(planned, unit="benchmark", disable=None):
        sections.append(measured(name, arguments, rows_file))
        # after each: what was measured so far is there whatever comes
        output.write_text("\n".join(report(head, sections, time.monotonic() - began)))
    failed = [section for section in sections if section["why"]]
    click.echo(f"{output}: {len(sections)} benchmarks, {len(failed)} without figures")
    raise SystemExit(DEFECT if failed else FINISHED)


def measured(name, arguments, rows_file):
    """{"title", "command", "rows", "why", "seconds", "load"} of one benchmark in a new process. why: there are no figures, or None."""
    before = len(rows_of(rows_file))
    began, load = time.monotonic(), describe_environment({})["load"]
    command = [
        sys.executable,
        "-P",
        "-m",
        "visionloop.bin.benchmark",
        *arguments,
        "--json",
        str(rows_file),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    said = (
        done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    ).splitlines()[-1]
    rows = rows_of(rows_file)[before:]
    why = (
        None
        if done.returncode == 0 and rows
        else said
        if done.returncode in (0, USER_ERROR)
        else f"defect: {said}"
    )
    found = {
        "title": name,
        "command": "python bin/benchmark.py " + " ".join(arguments),
        "rows": rows,
        "why": why,
    }
    return found | {"seconds": time.monotonic() - began, "load": load}


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def report(head, sections, seconds):
    """Lines of the whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    yield from [
        "# Benchmarks",
        "",
        f"{head['machine']}; {versions}. {seconds / 60:.0f} minutes. A command's load stands beside it.",
        "",
    ]
    title = None
    for section in sections:
        if section["title"] != title:
            title = section["title"]
            yield from [f"## {title}", "", SECTIONS[title].about, ""]
        load = ", ".join(map(str, section["load"]))
        yield from [f"`{section['command']}` ({section['seconds']:.0f} s; load before {load})", ""]
        if section["why"]:
            yield from [f"No figures: {section['why']}", ""]
        if section["rows"]:
            yield from [*rows_as_markdown(section["rows"]), ""]
    yield from [NOTES.read_text().rstrip(), ""]
