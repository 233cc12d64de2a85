"""What our tests cannot try without a GPU, tried on the machine at hand, and told as one page to paste."""

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from visionloop.bin.benchmarks.environment import append_line, describe_environment
from visionloop.bin.benchmarks.options import json_option
from visionloop.bin.benchmarks.selftest_checks import choose
from visionloop.bin.benchmarks.selftest_process import (
    FAILED,
    NOT_POSSIBLE,
    NOT_RUN,
    OK,
    CheckProcess,
)
from visionloop.bin.commands.cli import device_option
from visionloop.engine.errors import DEFECT, UserError

LONGEST = 180  # seconds of one check: then it hangs
TO_START = 300  # seconds that a new process may need to import everything
SIGNS = {OK: "ok", FAILED: "**failed**", NOT_POSSIBLE: NOT_POSSIBLE, NOT_RUN: NOT_RUN}


@click.command(
    help="Try what needs a GPU: precisions, nccl, equal bytes, host syncs, memory, speed. Prints a page of markdown to paste."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="for all checks; what does not fit is not run",
)
@click.option(
    "--only", "names", multiple=True, help="a check or a kind of them, see --list; may be repeated"
)
@click.option("--list", "as_list", is_flag=True, help="name the checks in their order, and stop")
@device_option
@json_option
def selftest(minutes, names, as_list, device, json_file):
    try:
        checks = choose(names)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--only") from None
    if as_list:
        for check in checks:
            click.echo(f"{check.name:30} {check.proves}")
        return
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as scratch, environment_of_checks(scratch):
        machine, results = run_all(checks, Path(scratch), device, deadline)
    environment = describe_environment({"minutes": minutes, "only": list(names) or None}) | machine
    click.echo("\n".join(report_lines(checks, results, environment)))
    for check, result in zip(checks, results, strict=True):
        figures = (
            {name: value for name, value in result.items() if name != "figures"}
            | result["figures"]
            | environment
        )
        append_line(
            json_file,
            benchmark="selftest",
            check=check.name,
            task=check.task,
            proves=check.proves,
            **figures,
        )
    if any(result["state"] == FAILED for result in results):
        sys.exit(DEFECT)


@contextmanager
def environment_of_checks(scratch):
    """Nothing is asked of the network, and nothing is left in the user's cache folder."""
    before = dict(os.environ)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": f"{scratch}/cache",
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def run_all(checks, scratch, device, deadline):
    """(facts of the device, one result a check). The process of the next check gets ready while one runs."""
    waiting = [CheckProcess(scratch / f"{number}.log") for number in range(2)]
    try:
        machine = waiting.pop(0).run(
            None, trial_arguments(None, device, scratch, "machine"), TO_START
        )
        if machine["state"] == FAILED:
            raise UserError(machine["reason"].removeprefix("UserError: "), field="device")
        facts, results = machine["figures"], []
        for number, check in enumerate(tqdm(checks, unit="check", disable=None)):
            left = deadline - time.monotonic()
            if left <= 0:
                results.append(
                    {
                        "state": NOT_RUN,
                        "reason": "",
                        "seconds": 0.0,
                        "figures": {},
                        "traceback": None,
                    }
                )
                continue
            process = waiting.pop()
            if number + 1 < len(checks):
                waiting.append(CheckProcess(scratch / f"{check.name.replace(':', '-')}.log"))
            given = trial_arguments(
                check.task, facts["device"], scratch, check.name.replace(":", "-")
            )
            result = process.run(check.kind, given, min(LONGEST, left))
            if result["state"] == FAILED and result["seconds"] >= left:
                result |= {"state": NOT_RUN, "reason": f"cut after {left:.0f} s"}
            results.append(result)
        return facts, results
    finally:
        for process in waiting:
            process.close()


def trial_arguments(task_name, device, scratch, name):
    """Of selftest_trial.Trial, in a new folder."""
    folder = scratch / name
    folder.mkdir()
    return {"task_name": task_name, "device": device, "folder": folder, "shared": scratch / "data"}


def report_lines(checks, results, environment):
    """The page: the machine, what failed first of all, then a table of everything."""
    states = [result["state"] for result in results]
    counts = ", ".join(f"{states.count(state)} {state}" for state in SIGNS if state in states)
    yield "# visionloop selftest"
    yield ""
    yield f"{counts}, in {sum(result['seconds'] for result in results):.0f} s."
    yield ""
    yield from (f"- {name}: {value}" for name, value in environment.items())
    yield ""
    yield "| check | result | seconds | figures | what it proves |"
    yield "|---|---|---|---|---|"
    for check, result in zip(checks, results, strict=True):
        told = SIGNS[result["state"]] + (f": {result['reason']}" if result["reason"] else "")
        figures = ", ".join(f"{name} {shown(value)}" for name, value in result["figures"].items())
        cells = (check.name, told, f"{result['seconds']:.1f}", figures, check.proves)
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def shown(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
