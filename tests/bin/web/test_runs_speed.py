"""Fifty runs of 10 000 log points: CPU time of the lists, the report and the comparison."""

import json
import shutil
import time

import pytest
from written_runs import write_run

RUNS, POINTS = 50, 10_000
TIMES = 10


@pytest.mark.slow
def test_fifty_long_runs_are_listed_and_compared_in_time(get, root):
    """The unit is the CPU time that json takes for the log of one run.

    It makes the limits, about four times what is needed, those of a fast and of a slow machine.
    """
    first = write_run(root / "run-00", points=POINTS, evaluations=20)
    for number in range(1, RUNS):
        shutil.copytree(first, root / f"run-{number:02}")
    ids = [row["id"] for row in get("/runs")["runs"]]
    assert len(ids) == RUNS
    ten = ",".join(ids[:10])
    get(f"/runs/{ids[-1]}/report")  # imports are not counted

    def seconds(action):
        began = time.process_time()
        action()
        return time.process_time() - began

    def parse():
        for _ in range(TIMES):
            for line in (first / "metrics.jsonl").read_text().splitlines():
                json.loads(line)

    unit = seconds(parse) / TIMES

    def units(path, **query):
        return seconds(lambda: get(path, **query)) / unit

    assert units("/runs") < 1
    assert units("/comparisons", runs=ten) < 90
    assert units("/comparisons", runs=ten) < 10
    assert units(f"/runs/{ids[0]}/report") < 1.5
    assert units(f"/runs/{ids[0]}/curves", first=5000, last=50_000) < 2
