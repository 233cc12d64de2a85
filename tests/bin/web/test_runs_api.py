"""Runs over the API: rows, report, curves, records and images."""

import json
import os

import pytest
from report_runs import SCHEMA
from written_runs import append, write_branch, write_evaluation, write_run, write_status

from visionloop.bin.web.config import API
from visionloop.bin.web.runs.identity import run_id

HOSTILE = ("<img src=x onerror=alert(1)>", "two\nlines", "🦊" * 60, "-rf", os.fsdecode(b"caf\xe9"))


def test_a_row_says_how_a_run_is_and_names_its_score(get, root):
    folder = write_run(root / "a", points=4)
    get(f"/runs/{run_id(folder)}/report")  # waits for the names of scores
    (row,) = get("/runs")["runs"]
    assert row["id"] == run_id(folder) and row["path"] == str(folder)
    assert (row["task"], row["model"], row["data"]) == ("detection", "dfine-nano-coco", "parts")
    assert (row["state"], row["step"], row["steps"]) == ("finished", 40, 40)
    assert row["best"]["metric"] == row["metric"]["key"] == "mAP"
    assert (row["metric"]["format"], row["metric"]["higher_is_better"]) == ("percent", True)
    error = {"code": "no_memory", "message": "too big", "file": None, "field": None, "hint": "-"}
    write_status(folder, state="failed", error=error)
    detail = get(f"/runs/{run_id(folder)}")
    assert detail["settings"]["task"] == {"value": "detection", "source": "flag"}
    assert detail["evaluations"] == [20, 40] and not detail["has_best"]
    assert detail["disk_free_gib"] > 0 and "train --data /data/parts" in detail["command_text"]


def test_the_list_is_searched_filtered_and_cut(get, root):
    write_run(root / "flowers", points=1)
    write_run(root / "team" / "street", points=1, task="segmentation", model="eomt-Large")
    write_run(root / "lost", points=1)
    write_status(root / "lost", age=100)

    def names(**query):
        answer = get("/runs", **query)
        return sorted(row["name"] for row in answer["runs"]), answer["total"]

    assert names() == (["flowers", "lost", "team/street"], 3)
    assert names(search="LARGE") == names(task="segmentation") == (["team/street"], 1)
    assert names(state="lost") == (["lost"], 1)
    assert names(search="nothing") == ([], 0)
    pages = [names(limit=2, offset=offset) for offset in (0, 2)]
    assert [len(found) for found, _ in pages] == [2, 1] and {total for _, total in pages} == {3}
    assert sorted(name for found, _ in pages for name in found) == names()[0]


def test_a_branch_is_listed_below_its_source_with_step_and_changes(get, root):
    source = write_run(root / "a", points=20)
    write_run(root / "other", points=1)
    folder = write_branch(root / "low", source, 100, lr=[1e-3, 1e-4])
    rows = get("/runs")["runs"]
    names = [row["name"] for row in rows]
    assert names.index("low") == names.index("a") + 1
    assert [row["depth"] for row in rows] == [int(name == "low") for name in names]
    expected = {"id": run_id(source), "name": "a", "step": 100, "changes": "lr 0.001 -> 0.0001"}
    assert get(f"/runs/{run_id(folder)}")["branch"] == expected
    assert get("/runs", search="low")["runs"][0]["depth"] == 0
    assert get(f"/runs/{run_id(source)}")["branch"] is None


def test_a_report_is_the_object_of_the_schema_with_addresses_of_images(get, call, root):
    folder = write_run(root / "a", points=3000, evaluations=3)
    report = get(f"/runs/{run_id(folder)}/report")
    cursor = report.pop("cursor")
    SCHEMA.validate(report)
    (run,) = report["runs"]
    assert report["tasks"][0]["metrics"][0]["label"] == "AP"
    assert len(run["curves"][0]["steps"]) == 1000 and run["curves"][0]["logged"] == 3000
    address = run["worst"]["samples"][0]["image"]
    image = call(address.removeprefix(API))
    assert image.headers["content-type"] == "image/jpeg"
    record = folder / "evaluations" / "step_00030000"
    assert image.content == (record / "fixed_00.jpg").read_bytes()
    events = get(f"/runs/{run_id(folder)}/events/poll", cursor=cursor)["events"]
    assert [event["event"] for event in events] == ["status"]


def test_a_report_grows_with_its_files_and_reads_the_new_lines_alone(get, root):
    folder = write_run(root / "a", points=3, evaluations=1, state="running")
    address = f"/runs/{run_id(folder)}/report"

    def logged():
        return get(address)["runs"][0]["curves"][0]["steps"]

    assert logged() == [10, 20, 30]
    append(folder, '{"step": 40, "kind": "train", "loss": 1.5}\n', '{"step": 50, "kind": ')
    assert logged() == [10, 20, 30, 40]
    append(folder, '"train", "loss": 2}\n', '{"step": 20, "kind": "train", "loss": 7}\n')
    report = get(address)["runs"][0]
    assert report["curves"][0]["steps"] == [10, 20, 30, 40, 50]
    assert report["curves"][0]["values"][1] == 7
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]))
    assert logged() == [10, 20]
    write_evaluation(folder, 70)
    assert get(address)["runs"][0]["last_evaluation"]["step"] == 70


def test_curves_between_two_steps_are_as_fine_as_asked_and_reach_the_edges(get, root):
    folder = write_run(root / "a", points=3000)
    address = f"/runs/{run_id(folder)}/curves"

    def steps(**query):
        return get(address, **query)["curves"][0]["steps"]

    assert steps(first=1005, last=1035) == [1000, 1010, 1020, 1030, 1040]
    assert len(steps()) == 1000 and len(steps(points=100)) == 50
    assert steps(first=29_985) == [29_980, 29_990, 30_000]
    assert steps(first=10**9) == [30_000]
    assert get(address, first=5, last=4, status=422)["field"] == "first"
    assert get(address, points=0, status=422)["field"] == "points"


@pytest.mark.parametrize(
    "name",
    [
        "record.json",
        "link.jpg",
        "missing.jpg",
        "pipe.jpg",
        "..%2Fstep_00000010%2Ffixed_00.jpg",
        "..%2F..%2Fsecret.jpg",
        "%2Fetc%2Fpasswd",
        "fixed_00.jpg%00.png",
        "a" * 300 + ".jpg",
    ],
)
def test_no_file_but_an_image_of_the_record_is_sent(call, root, name):
    folder = write_run(root / "a", points=1, evaluations=1)
    record = folder / "evaluations" / "step_00000010"
    (folder / "secret.jpg").write_text("hidden content")
    (record / "link.jpg").symlink_to(folder / "secret.jpg")
    os.mkfifo(record / "pipe.jpg")
    status = 422 if len(name) > 255 else 404
    answer = call(f"/runs/{run_id(folder)}/evaluations/10/images/{name}", status)
    assert b"hidden content" not in answer.content


def test_a_record_behind_a_link_is_none(get, root, tmp_path):
    folder = write_run(root / "a", points=1, evaluations=1)
    assert get(f"/runs/{run_id(folder)}/evaluations/10")["step"] == 10
    assert get(f"/runs/{run_id(folder)}/evaluations/20", status=404)["code"] == "no_evaluation"
    (folder / "evaluations").rename(tmp_path / "elsewhere")
    (folder / "evaluations").symlink_to(tmp_path / "elsewhere")
    get(f"/runs/{run_id(folder)}/evaluations/10", status=404)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_values_come_as_text_and_never_as_a_failure(get, root, name):
    text = json.loads(r'"\ud800 <b>"')
    folder = write_run(root / name, points=2, model=text, note=text, lr=10**400)
    status = {"state": text, "step": 10**400, "heartbeat": 10**400, "error": {"message": text}}
    best = {"metric": text, "score": 10**400, "step": -1}
    (folder / "status.json").write_text(json.dumps(status | {"best": best}))
    append(folder, '{"step": 30, "kind": "train", "<b>": 1e999, "loss": 1' + "0" * 400 + "}\n")
    (row,) = get("/runs")["runs"]
    assert row["best"]["score"] is None and row["step"] is None
    for part in ("", "/report", "/curves", "/events/poll"):
        get(f"/runs/{row['id']}{part}")
    if name.isprintable():
        assert row["name"] == name


def test_an_id_that_is_none_is_refused(get):
    assert get("/runs/" + "0" * 16, status=404)["code"] == "no_run"
    assert get("/runs/..", status=404)["code"] == "not_found"
    assert get("/runs/xyz", status=422)["field"] == "id"


def test_a_name_and_a_note_are_kept_beside_the_run(get, change, root):
    folder = write_run(root / "a", points=1)
    before = sorted(path.name for path in folder.rglob("*"))
    address = f"/runs/{run_id(folder)}"
    assert (get(address)["name"], get(address)["note"]) == ("a", "")
    assert change("PATCH", address, {"note": "<b>"})["note"] == "<b>"
    assert change("PATCH", address, {"name": " first "})["name"] == "first"
    assert change("PATCH", address, {})["note"] == "<b>"
    assert [row["name"] for row in get("/runs", search="FIRST")["runs"]] == ["first"]
    assert change("PATCH", address, {"name": ""})["name"] == "a"
    assert change("PATCH", address, {"path": "/"}, status=422)["field"] == "path"
    assert change("PATCH", address, {"note": "x" * 10_001}, status=422)["field"] == "note"
    assert sorted(path.name for path in folder.rglob("*")) == before
