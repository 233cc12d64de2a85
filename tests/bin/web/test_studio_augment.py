"""Functions of the user in the studio: those that the server was started with, and no others."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from visionloop.bin.studio import command, existing_function
from visionloop.bin.web.security.augmentation import fingerprint
from visionloop.datasets.augmentation.function import UserFunction

TEXT = "def augment(sample, generator):\n    return sample\n"


@pytest.fixture
def data(root):
    folder = root.parent / "data" / "shapes"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def own(root):
    """FILE.py:NAME of a function that lies below the folders of the server."""
    file = root.parent / "data" / "own.py"
    file.write_text(TEXT)
    return f"{file}:augment"


@pytest.fixture
def name_function(server, own):
    """Return a function after whose call the server is one that was started with `own`."""

    def name_function():
        studio = server.app.state.studio
        studio.config = replace(studio.config, augment=(existing_function(own),))

    return name_function


def request_of(data, own, **settings):
    settings = {"data": data, "model": "tiny", "from_scratch": True, "steps": 2, **settings}
    return {"task": "classification", "settings": settings | {"augment": own}}


def write_run(root, own, **settings):
    """Write a run that was stopped, started with a function from the command line."""
    run = root / "mine"
    run.mkdir()
    rows = {"task": "classification", "augment": own, **settings}
    if own:
        rows["augment_fingerprint"] = UserFunction(own).fingerprint()
    content = {
        "schema": 1,
        "settings": {k: {"value": v, "source": "flag"} for k, v in rows.items()},
    }
    (run / "settings.json").write_text(json.dumps(content))
    (run / "status.json").write_text(json.dumps({"schema": 1, "state": "stopped", "step": 1}))
    words = ["classification.py", "train", "--augment", str(own), "--output", str(run)]
    (run / "environment.json").write_text(json.dumps({"command": words}))
    return run


@pytest.mark.parametrize("path", ["/jobs", "/checks"])
def test_a_request_names_no_function_of_its_own(change, data, own, path):
    body = request_of(data, own)
    problem = change("POST", path, body, status=403)
    assert (problem["code"], problem["field"]) == ("augment_not_named", "augment")
    assert "--augment-file (none)" in problem["detail"]


def test_a_preview_says_so_and_has_no_such_word(change, data, own):
    preview = change("POST", "/jobs/preview", request_of(data, own))
    assert [one["code"] for one in preview["problems"]] == ["augment_not_named"]
    assert "--augment" not in preview["command"]


def test_the_named_function_and_no_other_is_accepted(change, data, own, name_function):
    name_function()
    job = change("POST", "/jobs", request_of(data, own, augment_only=True), status=201)
    assert job["state"] == "queued"
    other = own.replace(":augment", ":other")
    assert change("POST", "/jobs", request_of(data, other), status=403)["field"] == "augment"
    assert change("POST", "/jobs", request_of(data, "own.py:augment"), status=403)


def test_a_form_offers_the_named_functions(get, own, name_function):
    def row():
        table = get("/tasks/detection/settings")
        rows = [row for group in table["groups"] for row in group["settings"]]
        return next((row for row in rows if row["name"] == "augment"), None)

    assert row() is None
    name_function()
    assert (row()["type"], row()["choices"]) == ("choice", [own])


def test_a_run_with_a_function_is_shown_but_not_resumed_or_replayed(
    root, get, change, own, data, name_function
):
    write_run(root, own, data=data)
    (run,) = get("/runs")["runs"]
    path = f"/runs/{run['id']}"
    shown = get(f"{path}/report")["runs"][0]["settings"]
    assert own in json.dumps(shown)
    assert change("POST", f"{path}/resume", {}, status=403)["code"] == "augment_not_named"
    assert change("POST", f"{path}/replays", {"step": 1}, status=403)["field"] == "augment"
    name_function()
    assert change("POST", f"{path}/resume", {})["state"] == "queued"


def test_a_file_that_was_edited_is_another_function(root, get, change, own, data, name_function):
    write_run(root, own, data=data)
    (root.parent / "data" / "own.py").write_text(TEXT + "\n")
    name_function()
    # the words of the command name the file: training itself compares the texts
    (run,) = get("/runs")["runs"]
    assert change("POST", f"/runs/{run['id']}/replays", {"step": 1}, status=403)


def test_a_run_without_a_function_needs_no_name(root, get, change, data):
    run = write_run(root, None, data=data)
    (run / "environment.json").write_text(json.dumps({"command": ["classification.py", "train"]}))
    (run,) = get("/runs")["runs"]
    assert change("POST", f"/runs/{run['id']}/resume", {})["state"] == "queued"


def test_the_fingerprint_of_the_server_is_that_of_a_run(own):
    assert fingerprint(own) == UserFunction(own).fingerprint()
    assert fingerprint("/absent.py:augment") == ""


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("own.py", "expected FILE.py:NAME"),
        ("absent.py:augment", "--augment-file absent.py: no such"),
    ],
)
def test_the_server_starts_with_files_that_exist(spec, why):
    result = CliRunner().invoke(command, ["--augment-file", spec, "--data", "."])
    assert why in str(result.exception)
