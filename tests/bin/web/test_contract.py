"""Objects of the API that the platform contract defines: they fit its schema."""

import json

import pytest
from contract_schema import fits
from written_runs import append, evaluation_line, write_run, write_status

ERROR = {
    "code": "bad_input",
    "message": "train/a.jpg: not an image",
    "file": "train/a.jpg",
    "field": None,
    "hint": "remove the file",
}


def events_of(get, run_id):
    """Return {event: its objects} of a run."""
    events = {}
    for event in get(f"/runs/{run_id}/events/poll")["events"]:
        events.setdefault(event["event"], []).append(json.loads(event["data"]))
    return events


def test_tasks_models_and_metrics_fit_the_schema(get):
    task_types = {fits("task", row)["value"] for row in get("/tasks")["tasks"]}

    assert len(task_types) == 6
    assert {fits("model", row)["task_type"] for row in get("/models")["models"]} == task_types
    metrics = get("/metrics")
    assert metrics.keys() == task_types
    for row in metrics.values():
        keys = {metric["key"] for metric in fits("metrics_of_task", row)["metrics"]}
        assert {row["primary"], row["best"]} <= keys


@pytest.mark.parametrize("run_state", ["running", "finished", "stopped"])
def test_events_of_a_run_are_lines_and_a_status_of_the_schema(get, root, run_state):
    run = write_run(root / "a", points=5, state=run_state)
    append(run, evaluation_line(60) | {"val_loss": float("nan")})
    (row,) = get("/runs")["runs"]

    events = events_of(get, row["id"])

    assert {fits("metrics_line", line)["kind"] for line in events["metrics"]} == {"train", "eval"}
    assert len(events["metrics"]) == 8
    (status,) = events["status"]
    assert fits("status", status)["state"] == row["state"] == run_state


def test_the_error_of_a_failed_run_fits_the_schema_in_every_place(get, root):
    write_status(write_run(root / "a", points=5), state="failed", error=ERROR)
    (row,) = get("/runs")["runs"]

    assert fits("error", row["error"]) == ERROR
    assert fits("error", get(f"/runs/{row['id']}")["error"]) == ERROR
    (status,) = events_of(get, row["id"])["status"]
    assert fits("status", status)["error"] == ERROR


def test_the_error_of_a_failed_job_fits_the_schema(server, get, change, root):
    data = root.parent / "data" / "a"
    data.mkdir()
    settings = {"data": str(data), "model": "tiny", "from_scratch": True, "steps": 1}
    job = change("POST", "/jobs", {"task": "detection", "settings": settings}, status=201)
    studio = server.app.state.studio
    studio.store.update(job["id"], state="failed", error=ERROR)

    assert fits("error", get(f"/jobs/{job['id']}")["error"]) == ERROR
