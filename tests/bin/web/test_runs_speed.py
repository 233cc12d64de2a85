"""Fifty runs of 10 000 log points: CPU seconds of the lists, the report and the comparison."""

import shutil
import time

import pytest
from written_runs import write_run

RUNS, POINTS = 50, 10_000


@pytest.mark.slow
def test_fifty_long_runs_are_listed_and_compared_in_time(get, root):
    """Limits are three times what one core of a small machine takes."""
    first = write_run(root / "run-00", points=POINTS, evaluations=20)
    for number in range(1, RUNS):
        shutil.copytree(first, root / f"run-{number:02}")
    ids = [row["id"] for row in get("/runs")["runs"]]
    assert len(ids) == RUNS
    ten = ",".join(ids[:10])
    get(f"/runs/{ids[-1]}/report")  # imports are not counted

    def seconds(path, **query):
        began = time.process_time()
        get(path, **query)
        return time.process_time() - began

    assert seconds("/runs") < 0.1
    assert seconds("/comparisons", runs=ten) < 3.0
    assert seconds("/comparisons", runs=ten) < 0.5
    assert seconds(f"/runs/{ids[0]}/report") < 0.1
    assert seconds(f"/runs/{ids[0]}/curves", first=5000, last=50_000) < 0.1
