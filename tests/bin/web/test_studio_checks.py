"""Checks of data, model and settings as jobs; models of this machine that may be trained on."""

import json
import time

import pytest
from contract_schema import fits
from studio_client import studio_client, studio_config

from visionloop.datasets.synthetic.writers import WRITERS

QUICK = {"model": "tiny", "epochs": 1, "batch_size": 4, "threads": 1, "workers": 0}
ENDED = ("finished", "failed", "stopped", "lost")


@pytest.fixture(name="client")
def client_fixture(tmp_path):
    with studio_client(studio_config(tmp_path)) as client:
        yield client


def ended(client, job, seconds=120):
    """Wait for the end of a job."""
    deadline = time.monotonic() + seconds
    while (job := client.get(f"jobs/{job['id']}").json())["state"] not in ENDED:
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    return job


@pytest.mark.slow
def test_a_check_gives_counts_costs_and_a_contact_sheet(client, tmp_path):
    folder = tmp_path / "data" / "shapes"
    folder.mkdir()
    WRITERS["classification"](folder, 0, images={"train": 16, "val": 8})
    body = {"task": "classification", "settings": QUICK | {"data": str(folder)}}

    job = ended(client, client.post("checks", json=body).json())
    report = fits("check", client.get(f"jobs/{job['id']}/result").json())
    sheet = client.get(f"jobs/{job['id']}/files/sheet.png")

    assert (job["state"], job["kind"]) == ("finished", "check")
    assert report["errors"] == []
    assert sum(report["classes"].values()) == 16
    assert report["estimate"]["seconds"] > 0
    assert sheet.headers["content-type"] == "image/png"


@pytest.mark.slow
def test_errors_of_the_data_are_the_result_of_a_check(client, tmp_path):
    folder = tmp_path / "data" / "wrong"
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps({"images": 3, "annotations": []}))
    body = {"task": "detection", "settings": QUICK | {"data": str(folder)}}

    job = ended(client, client.post("checks", json=body).json())
    report = fits("check", client.get(f"jobs/{job['id']}/result").json())

    assert job["state"] == "finished"
    assert report["errors"]
    assert report["estimate"]["seconds"] is None


def test_a_check_refuses_what_a_training_refuses(client, tmp_path):
    (tmp_path / "data" / "a").mkdir()
    data = {"data": str(tmp_path / "data" / "a")}

    def refusal(task, settings, **more):
        response = client.post("checks", json={"task": task, "settings": settings} | more)
        return response.status_code, response.json()["field"]

    assert refusal("detection", data | {"lr": "fast"}) == (422, "lr")
    assert refusal("detection", data | {"nonsense": 1}) == (422, "nonsense")
    assert refusal("detection", {"data": "/etc"}) == (403, "data")
    assert refusal("detection", data | {"model": "someone/else"}) == (422, "model")
    assert refusal("nothing", data) == (404, "task")
    assert refusal("detection", data, sheet="/etc/x.png") == (422, "sheet")
    assert client.get("jobs").json()["jobs"] == []


def test_models_of_this_machine_are_listed_for_their_task(client, tmp_path):
    folder = tmp_path / "models" / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    (folder / "model.safetensors").touch()

    assert [one["path"] for one in client.get("models").json()["local"]] == [str(folder)]
    assert len(client.get("models?task=classification").json()["local"]) == 1
    assert client.get("models?task=detection").json()["local"] == []
