"""Best weights as a zip with hashes, comparisons, logs and replays of runs."""

import hashlib
import io
import os
import subprocess
import zipfile

import pytest
from written_runs import write_run

from visionloop.bin.web.config import API
from visionloop.bin.web.runs.identity import run_id


def write_best(folder):
    best = folder / "best"
    (best / "more").mkdir(parents=True)
    (best / "model.safetensors").write_bytes(os.urandom(3_000_000))
    (best / "config.json").write_text("{}")
    (best / "empty").touch()
    (best / "more" / "labels.txt").write_text("한국어\n")
    (best / "README.md").write_text("# A card <script>\n")
    return best


def test_the_zip_holds_best_with_valid_hashes_and_nothing_else(call, get, root, tmp_path):
    folder = write_run(root / "<b>&..\n", points=1)
    best = write_best(folder)
    (tmp_path / "secret").write_text("hidden content")
    (best / "link").symlink_to(tmp_path / "secret")
    (best / "folder").symlink_to(tmp_path)
    (best / "two\nlines").touch()
    os.mkfifo(best / "pipe")
    names = ["README.md", "config.json", "empty", "model.safetensors", "more/labels.txt"]
    listed = get(f"/runs/{run_id(folder)}/best")
    assert [file["name"] for file in listed["files"]] == names
    assert listed["model_card"] == "# A card <script>\n"
    answer = call(f"/runs/{run_id(folder)}/best.zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="b-best.zip"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"best/{name}" for name in (*names, "SHA256SUMS")]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / "best"
    for row in listed["files"]:
        content = (unpacked / row["name"]).read_bytes()
        assert content == (best / row["name"]).read_bytes()
        assert (row["size"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=unpacked, check=True, capture_output=True)


def test_hashes_follow_a_file_that_is_replaced(get, root):
    folder = write_run(root / "a", points=1)
    best = write_best(folder)

    def hashes():
        files = get(f"/runs/{run_id(folder)}/best")["files"]
        return {file["name"]: file["sha256"] for file in files}

    before = hashes()
    assert hashes() == before
    (best / "new").write_text("[]")
    (best / "new").rename(best / "config.json")
    after = hashes()
    assert after["config.json"] == hashlib.sha256(b"[]").hexdigest()
    assert {name for name in after if after[name] != before[name]} == {"config.json"}


@pytest.mark.parametrize("address", ["best", "best.zip"])
def test_a_run_without_best_and_one_whose_best_is_a_link(get, root, tmp_path, address):
    folder = write_run(root / "a", points=1)
    assert get(f"/runs/{run_id(folder)}/{address}", status=404)["code"] == "no_best"
    write_best(tmp_path / "elsewhere")
    (folder / "best").symlink_to(tmp_path / "elsewhere" / "best")
    assert get(f"/runs/{run_id(folder)}/{address}", status=404)["code"] == "no_best"


def test_a_comparison_has_all_runs_in_order_and_the_settings_that_differ(get, root):
    folders = [write_run(root / name, points=2, seed=1, lr=lr) for name, lr in (("b", 1), ("a", 2))]
    folders.append(write_run(root / "c", points=2, seed=1, task="segmentation"))
    ids = [run_id(folder) for folder in folders]
    answer = get("/comparisons", runs=",".join(ids))
    assert answer["ids"] == ids and [run["name"] for run in answer["runs"]] == ["b", "a", "c"]
    assert answer["differences"] == {
        "lr": [1, 2, None],
        "task": ["detection", "detection", "segmentation"],
    }
    assert [task["name"] for task in answer["tasks"]] == ["detection", "segmentation"]
    same_name = write_run(root / "team" / "a", points=2)
    answer = get("/comparisons", runs=f"{ids[1]},{run_id(same_name)}")
    assert [run["name"] for run in answer["runs"]] == ["runs/a", "team/a"]


def test_what_cannot_be_compared_is_refused(get, root):
    id = run_id(write_run(root / "a", points=1))
    assert get("/comparisons", status=422)["field"] == "runs"
    for runs in ("", id, f"{id},", f"{id},{id}", ",".join([id] * 11), f"{id},../x"):
        assert get("/comparisons", runs=runs, status=422)["field"] == "runs"
    assert get("/comparisons", runs=f"{id},{'0' * 16}", status=404)["code"] == "no_run"


def test_a_run_that_was_started_elsewhere_has_no_log_here(get, root):
    folder = write_run(root / "a", points=1)
    assert get(f"/runs/{run_id(folder)}/log", status=404)["code"] == "no_log"


def test_a_replay_is_a_job_of_the_runs_own_task_on_data_below_the_roots(change, root):
    inside = write_run(root / "a", points=1, data=str(root.parent / "data" / "parts"))
    outside = write_run(root / "b", points=1)
    other = write_run(root / "c", points=1, task="--help")
    address = "/runs/{}/replays"
    job = change("POST", address.format(run_id(inside)), {"step": 3}, status=201)
    words = ["replay", "--run", str(inside), "--step", "3", "--output", "replay", "--json"]
    assert job["kind"] == "replay" and job["task"] == "detection"
    assert job["command"][1].endswith("bin/detection.py")
    assert [word for word in job["command"][2:] if word not in ("--device", "cpu")] == words
    refused = change("POST", address.format(run_id(outside)), {"step": 3}, status=403)
    assert refused["code"] == "outside_roots"
    assert change("POST", address.format(run_id(other)), {"step": 3}, status=409)["field"] == "id"
    assert (
        change("POST", address.format(run_id(inside)), {"step": 0}, status=422)["field"] == "step"
    )


def test_a_comparison_of_best_weights_is_a_job_on_the_data_of_the_first_run(change, root):
    data = str(root.parent / "data" / "parts")
    first, second = (write_run(root / name, points=1, data=data) for name in ("a", "b"))
    relative = write_run(root / "c", points=1, data="parts")
    outside = write_run(root / "d", points=1)
    for folder in (first, second, relative, outside):
        write_best(folder)
    ids = [run_id(first), run_id(second)]
    job = change("POST", "/comparisons", {"runs": ids}, status=201)
    words = [str(first), str(second), "--data", data, "--json"]
    assert job["kind"] == "compare" and job["command"][1].endswith("bin/compare.py")
    assert [word for word in job["command"][2:] if word not in ("--device", "cpu")] == words

    def code(*runs, status):
        return change("POST", "/comparisons", {"runs": list(runs)}, status=status)["code"]

    assert code(run_id(relative), ids[0], status=409) == "relative_data"
    assert code(run_id(outside), ids[0], status=403) == "outside_roots"
    assert code(ids[0], ids[0], status=422) == code(ids[0], status=422) == "bad_input"
    assert code(ids[0], "0" * 16, status=404) == "no_run"
    (second / "best").rename(second / "gone")
    assert code(*ids, status=404) == "no_best"


def test_a_header_protects_what_changes(server, root):
    folder = write_run(root / "a", points=1)
    del server.headers["X-Visionloop"]
    for method, path in (
        ("PATCH", f"/runs/{run_id(folder)}"),
        ("POST", f"/runs/{run_id(folder)}/replays"),
        ("POST", "/comparisons"),
    ):
        answer = server.request(method, API + path, json={})
        assert answer.status_code == 403
