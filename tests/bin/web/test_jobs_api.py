"""Jobs over the API: settings become options, a preview is the start, logs are read in parts."""

import json
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from studio_jobs import description

from visionloop.bin import classification
from visionloop.bin.web.app import create_app
from visionloop.bin.web.config import API, Limits, StudioConfig
from visionloop.bin.web.jobs.log import read_log, whole_characters
from visionloop.bin.web.jobs.options import task_options

SETTINGS = {"data": "flowers", "model": "tiny", "steps": 3}
HEADERS = {"Authorization": "Bearer token", "X-Visionloop": "1", "Content-Type": "application/json"}


@pytest.fixture
def config(tmp_path):
    for name in ("data/flowers", "data/cars", "runs", "models/own"):
        (tmp_path / name).mkdir(parents=True)
    roots = {name: ((tmp_path / name).resolve(),) for name in ("data", "runs", "models")}
    return StudioConfig(**roots, state=tmp_path / "state", limits=Limits(log_bytes=100))


@pytest.fixture
def app(config):
    """The application, whose queue starts nothing: its thread does not run."""
    return create_app(config, "token")


@pytest.fixture
def call(app):
    """call(method, path, body, status=200) -> JSON."""
    client = TestClient(app, base_url="http://127.0.0.1", headers=HEADERS)

    def send(method, path, body=None, status=200):
        content = None if body is None else json.dumps(body)  # ASCII: half characters too
        response = client.request(method, API + path, content=content)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    return send


def train(settings=(), /, **changes):
    return {"task": "classification", "settings": SETTINGS | dict(settings)} | changes


def test_a_start_runs_exactly_the_command_of_its_preview(call):
    for body in (train(), train(run_name="mine"), train({"from_scratch": True, "lr": 1e-05})):
        preview = call("POST", "/jobs/preview", body)
        again = call("POST", "/jobs/preview", body)
        job = call("POST", "/jobs", body, status=201)
        assert preview == again
        assert preview["problems"] == []
        assert (job["command"], job["run"]) == (preview["command"], preview["run"])
        assert job["command_text"] == preview["text"]


def test_the_options_of_a_command_are_the_settings_of_the_request(config):
    """Read back by click, as the command will."""
    given = {
        "data": str(config.data[0] / "flowers"),
        "model": "tiny",
        "from_scratch": True,
        "ema": False,
        "steps": 7,
        "lr": 3e-05,
        "clip_grad": "inf",
        "save_every": "600s",
        "best_metric": "--output",
        "schedule_milestones": "-x",
    }
    options = task_options("image_classification", given, config)
    assert options.problems == ()
    command = classification.commands.commands["train"]
    with command.make_context("train", list(options.words)) as context:
        read = {name: value for name, value in context.params.items() if value is not None}
    assert read == given | {"clip_grad": float("inf"), "dry_run": False}


@pytest.mark.parametrize(
    ("settings", "status", "field", "text"),
    [
        ({"epoch": 3}, 422, "epoch", "did you mean epochs?"),
        ({"lr": "fast"}, 422, "lr", "expected a number"),
        ({"lr": -1}, 422, "lr", "expected at least 0"),
        ({"schedule": "cosin"}, 422, "schedule", "did you mean cosine?"),
        ({"output": "/tmp/x"}, 422, "output", "not a setting here"),
        ({"resume": "runs/x"}, 422, "resume", "not a setting here"),
        ({"data": "../runs"}, 403, "data", "outside the folders"),
        ({"data": "/etc"}, 403, "data", "outside the folders"),
        ({"data": "absent"}, 422, "data", "no such folder"),
        ({"data": ""}, 422, "data", "expected"),
        ({"model": "/etc"}, 403, "model", "outside the folders"),
        ({"model": "someone/else"}, 422, "model", "not a model of classification"),
        ({"best_metric": "a\nb"}, 422, "best_metric", "printable"),
        ({"best_metric": "a\0b"}, 422, "best_metric", "printable"),
        ({"epochs": 2}, 422, "epochs", "give it or --steps"),
        ({"preset": "fast"}, 422, "preset", "expected one of"),
    ],
)
def test_a_wrong_setting_is_refused_and_shown_in_the_preview(call, settings, status, field, text):
    problem = call("POST", "/jobs", train(settings), status=status)
    assert problem["field"] == field
    assert text in problem["detail"]
    shown = call("POST", "/jobs/preview", train(settings))["problems"]
    assert (shown[0]["field"], shown[0]["message"]) == (field, problem["detail"])
    assert call("GET", "/jobs")["jobs"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "\ud800"},
        {"note": "\udc80"},
        {"run_name": "\ud800"},
        {"task": "\ud800"},
        {"settings": {"\ud800": 1}},
        {"settings": SETTINGS | {"best_metric": "\ud800"}},
        {"settings": SETTINGS | {"data": "\ud800"}},
        {"settings": SETTINGS | {"lr": float("nan")}},
        {"settings": SETTINGS | {"steps": 10**400}},
        {"settings": SETTINGS | {"data": "x" * 5000}},
        {"settings": SETTINGS | {"data": "x" * 300}},
        {"settings": SETTINGS | {"data": ["flowers"]}},
    ],
)
def test_a_hostile_text_or_number_is_no_defect(app, changes):
    client = TestClient(app, base_url="http://127.0.0.1", headers=HEADERS)
    for path in ("/jobs/preview", "/jobs"):
        response = client.post(API + path, content=json.dumps(train() | changes))
        assert response.status_code in (200, 201, 404, 422), response.text
        response.json()


def test_a_link_out_of_the_roots_is_refused(call, config):
    (config.data[0] / "link").symlink_to("/etc")
    problem = call("POST", "/jobs", train({"data": "link"}), status=403)
    assert problem["code"] == "outside_roots"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/a", ".hidden", "-x", "a\nb", "a\0", " a", "x" * 101]
)
def test_the_name_of_a_run_is_that_of_one_plain_folder(call, name):
    problem = call("POST", "/jobs", train(run_name=name), status=422)
    assert problem["field"] == "run_name"


@pytest.mark.parametrize("name", ["<img onerror=x>", "꽃 1", "a;b", "🌸"])
def test_a_strange_name_stays_a_name(call, config, name):
    job = call("POST", "/jobs", train(run_name=name, name=name, note=name), status=201)
    assert job["run"] == str(config.runs[0] / name)
    assert (job["name"], job["note"]) == (name, name)
    assert job["command"].count(job["run"]) == 1


def test_a_default_name_is_not_that_of_another_run(call, config):
    names = []
    for _ in range(2):
        names.append(call("POST", "/jobs", train(), status=201)["run"])
    (config.runs[0] / "classification-flowers-tiny-3").mkdir()
    names.append(call("POST", "/jobs", train(), status=201)["run"])
    endings = ("", "-2", "-4")
    expected = [str(config.runs[0] / f"classification-flowers-tiny{end}") for end in endings]
    assert names == expected
    problem = call("POST", "/jobs", train(run_name="classification-flowers-tiny-3"), status=409)
    assert (problem["code"], problem["field"]) == ("taken", "run_name")


def test_a_gpu_that_is_not_there_is_refused(call):
    body = train(launcher={"kind": "local", "devices": [200]})
    problem = call("POST", "/jobs", body, status=422)
    assert (problem["code"], problem["field"]) == ("no_device", "launcher.devices")
    shown = call("POST", "/jobs/preview", body)
    assert shown["problems"][0]["code"] == "no_device"
    assert shown["command"]


def test_torchrun_starts_the_same_command_in_several_processes(call):
    body = train(launcher={"kind": "torchrun", "processes": 2, "max_restarts": 0})
    command = call("POST", "/jobs/preview", body)["command"]
    start = command.index("train")
    assert command[1:4] == ["-m", "torch.distributed.run", "--standalone"]
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert command[start:] == call("POST", "/jobs/preview", train())["command"][2:]


def test_jobs_are_ordered_named_and_removed(call):
    ids = [call("POST", "/jobs", train(start=False), status=201)["id"] for _ in range(3)]
    assert call("POST", f"/jobs/{ids[2]}/move", {"before": ids[0]})["position"] == 1
    listed = call("GET", "/jobs")
    assert [job["id"] for job in listed["jobs"]] == [ids[2], ids[0], ids[1]]
    assert [job["position"] for job in listed["jobs"]] == [1, 2, 3]
    assert [device["name"] for device in listed["devices"]][-1] == "cpu"
    assert call("PATCH", f"/jobs/{ids[0]}", {"note": "x"})["note"] == "x"
    can = {"stop": True, "kill": False, "resume": True, "pause": False, "remove": True}
    assert call("GET", f"/jobs/{ids[0]}")["can"] == can
    call("DELETE", f"/jobs/{ids[0]}", status=204)
    call("GET", f"/jobs/{ids[0]}", status=404)
    call("GET", "/jobs/..%2f", status=404)
    call("POST", "/jobs", train(unknown=1), status=422)


def test_a_full_disk_refuses_a_job_as_a_whole(call, app):
    studio = app.state.studio
    (pages,) = studio.store._connection.execute("PRAGMA page_count").fetchone()
    studio.store._connection.execute(f"PRAGMA max_page_count = {pages}")
    problem = call("POST", "/jobs", train(note="x" * 9000), status=503)
    assert (problem["code"], bool(problem["hint"])) == ("no_space", True)
    assert list(studio.queue.path.iterdir()) == []
    studio.store._connection.execute("PRAGMA max_page_count = 1000000")
    call("POST", "/jobs", train(note="x" * 9000), status=201)


def test_jobs_are_listed_whatever_is_in_the_status_of_a_run(call, app, config):
    job = call("POST", "/jobs", train(), status=201)
    odd = {"step": "x", "steps": [], "eta": {}, "heartbeat": 1e12, "state": "running"}
    run = Path(job["run"])
    run.mkdir()
    (run / "status.json").write_text(json.dumps(odd))
    app.state.studio.store.update(job["id"], state="running", error={"code": 3, "hint": ["x"]})
    (listed,) = call("GET", "/jobs")["jobs"]
    assert (listed["progress"], listed["error"]["code"]) == (None, "3")


@pytest.mark.parametrize(
    "environment",
    [
        {"command": ["classification.py", "train", "--data", "\udce9"]},
        {"command": 5},
        {"command": ["classification.py", "train"], "processes": 10**9},
    ],
)
def test_a_run_of_the_command_line_with_odd_names_and_numbers_is_a_job(
    call, app, config, environment
):
    """A name in Latin-1 is no valid UTF-8."""
    run = Path(os.fsdecode(os.fsencode(config.runs[0]) + b"/caf\xe9"))
    run.mkdir()
    (run / "settings.json").write_text('{"settings": {"task": {"value": "classification"}}}')
    (run / "status.json").write_text('{"state": "stopped"}')
    (run / "environment.json").write_text(json.dumps(environment))
    app.state.studio.runs.scan()
    (row,) = call("GET", "/runs")["runs"]
    job = call("POST", f"/runs/{row['id']}/resume")
    (listed,) = call("GET", "/jobs")["jobs"]
    assert (listed["id"], listed["run"]) == (job["id"], row["path"])


def test_only_images_in_the_folder_of_a_job_are_served(call, app, config):
    one = app.state.studio.queue.create(description(config.runs[0], "a", "", start=False))
    folder = config.jobs / one.id
    (folder / "sheet.png").write_bytes(b"png")
    (folder / "link.png").symlink_to("/etc/hostname")
    client = TestClient(app, base_url="http://127.0.0.1", headers=HEADERS)
    assert client.get(f"{API}/jobs/a/files/sheet.png").headers["content-type"] == "image/png"
    for name in ("job.json", "link.png", "absent.png"):
        call("GET", f"/jobs/a/files/{name}", status=404)
    call("GET", "/jobs/a/files/..%2f..%2fstudio.png", status=422)


def test_a_log_is_read_in_parts_without_loss_or_repeat(tmp_path):
    path = tmp_path / "log.txt"
    lines = [f"step {i} 훈련 🌸" for i in range(50)]
    content = ("\n".join(lines) + "\n").encode()
    texts, offset = [], 0
    for written in range(0, len(content) + 1, 13):  # a character is often half there
        path.write_bytes(content[:written])
        part = read_log(path, offset, 100, is_alive=True)
        texts.append(part.text)
        offset = part.next
    path.write_bytes(content)
    while not (part := read_log(path, offset, 100, is_alive=False)).ended:
        texts.append(part.text)
        offset = part.next
    assert "".join([*texts, part.text]) == content.decode()


def test_a_line_longer_than_a_part_is_cut_between_two_characters(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("훈" * 500)
    texts, offset = [], 0
    while not (part := read_log(path, offset, 100, is_alive=False)).ended:
        texts.append(part.text)
        offset = part.next
    assert "".join([*texts, part.text]) == "훈" * 500
    assert [whole_characters("a훈".encode()[:n]) for n in range(5)] == [0, 1, 1, 1, 4]


def test_of_a_progress_bar_the_last_state_is_shown(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"10 %\r50 %\r100 %\ndone\r\n\r20 %\r40 %")
    assert read_log(path, 0, 100, is_alive=True).text == "100 %\ndone\n"
    assert read_log(path, 0, 100, is_alive=False).text == "100 %\ndone\n40 %"


def test_the_last_part_of_a_log_begins_with_a_whole_line(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {i}\n" for i in range(100)))
    text = read_log(path, -1, 100, is_alive=True).text
    assert text.startswith("line ")
    assert text.endswith("line 99\n")
    assert read_log(path, 10**9, 100, is_alive=True).text == ""
