"""Forwarding of runs: every point once, whatever is killed."""

import json
import resource
import struct
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from followed_run import FOLLOW, GrowingRun, follow_with_kills, points_of, start_follower

from visionloop.bin.follow import command as commands

__all__ = ["commands"]  # of the fixture `command`


@pytest.fixture
def run(tmp_path):
    return GrowingRun(tmp_path / "run")


def jsonl_lines(path, *kinds):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if not kinds or line["kind"] in kinds]


def jsonl_points(path):
    """[((key, step), value)], repeats included."""
    return [
        ((key, line["step"]), value)
        for line in jsonl_lines(path, "train", "eval")
        for key, value in line["values"].items()
    ]


def growing(run, steps, pause):
    """Let a thread write a run that stops, repeats a part, and finishes."""

    def write():
        run.train(1, steps // 2, pause)
        run.cut(steps // 3)
        run.train(steps // 3 + 1, steps, pause)
        run.status("finished")

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_follower_killed_ten_times_leaves_each_point_once_in_the_file(run, tmp_path):
    target = tmp_path / "points.jsonl"
    writer = growing(run, steps=300, pause=0.01)
    follow_with_kills(run, "--jsonl", target, kills=10, longest=0.6, is_growing=writer.is_alive)
    points = jsonl_points(target)
    assert len(points) == len(dict(points)) and dict(points) == points_of(run)
    assert len(jsonl_lines(target, "settings")) == 1
    assert [line["state"] for line in jsonl_lines(target, "state")] == ["running", "finished"]


def test_an_incomplete_line_of_a_killed_follower_is_written_anew(run, tmp_path, command):
    target = tmp_path / "points.jsonl"
    run.train(1, 20)
    run.status("stopped")
    assert command(run.folder, jsonl=target)[0] == 0
    whole = target.read_bytes()
    for size in range(len(whole) - 1, 0, -97):
        target.write_bytes(whole[:size])
        assert command(run.folder, jsonl=target)[0] == 0
        assert target.read_bytes() == whole


def test_steps_that_a_resumed_training_repeats_are_not_forwarded_twice(run, tmp_path, command):
    target = tmp_path / "points.jsonl"
    run.train(1, 21)
    command(run.folder, "--once", jsonl=target)
    first = jsonl_points(target)
    run.cut(10)
    command(run.folder, "--once", jsonl=target)
    run.train(11, 31)
    command(run.folder, "--once", jsonl=target)
    points = jsonl_points(target)
    assert points[: len(first)] == first
    assert len(points) == len(dict(points)) and dict(points) == points_of(run)


def test_a_live_follower_notices_that_its_file_was_replaced_twice(run, tmp_path):
    target = tmp_path / "points.jsonl"
    run.train(1, 21)
    follower = start_follower(run, "--jsonl", target)
    wait_for(lambda: target.exists() and len(jsonl_points(target)) == len(points_of(run)))
    run.cut(15)
    run.cut(10)
    run.train(11, 40)
    run.status("finished")
    out, err = follower.communicate(timeout=20)
    assert (follower.returncode, err) == (0, "") and "the run is finished" in out
    points = jsonl_points(target)
    assert len(points) == len(dict(points)) and dict(points) == points_of(run)


def test_a_full_disk_delays_points_and_loses_none(run, tmp_path):
    target = tmp_path / "points.jsonl"

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))

    run.train(1, 5)
    follower = start_follower(run, "--jsonl", target, preexec_fn=small_files)
    wait_for(lambda: target.exists() and len(jsonl_points(target)) == len(points_of(run)))
    run.train(5, 60)
    run.status("finished")
    warning = follower.stderr.readline()
    assert warning.startswith(f"warning: {target}: File too large; next try in")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(follower.pid, resource.RLIMIT_FSIZE, unlimited)
    follower.communicate(timeout=30)
    points = jsonl_points(target)
    assert len(points) == len(dict(points)) and dict(points) == points_of(run)


@pytest.mark.parametrize(
    ("state", "shown"),
    [("finished", "finished"), ("stopped", "stopped"), ("failed", "failed"), ("running", "lost")],
)
def test_a_follower_ends_with_its_run(run, tmp_path, command, state, shown):
    run.train(1, 4)
    run.status(state, heartbeat=time.time() - 100, error={"message": "the disk is full"})
    code, out, err = command(run.folder, jsonl=tmp_path / "points.jsonl")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"6 points forwarded, the run is {shown}"
    (line,) = jsonl_lines(tmp_path / "points.jsonl", "state")
    assert (line["state"], line["error"]) == (shown, "the disk is full")


def test_two_followers_of_one_run_and_place_exclude_each_other(run, tmp_path, command):
    run.train(1, 4)
    follower = start_follower(run, "--jsonl", tmp_path / "points.jsonl")
    follower.stdout.readline()
    code, _, err = command(run.folder, "--once", jsonl=tmp_path / "points.jsonl")
    assert code == 2 and "another follower" in err and "Traceback" not in err
    assert command(run.folder, "--once", jsonl=tmp_path / "other.jsonl")[0] == 0
    run.status("finished")
    follower.communicate(timeout=20)
    assert follower.returncode == 0


def test_a_file_of_another_run_is_refused_and_left_as_it_is(run, tmp_path, command):
    other = GrowingRun(tmp_path / "other")
    for one in (run, other):
        one.train(1, 4)
    target = tmp_path / "points.jsonl"
    command(other.folder, "--once", jsonl=target)
    before = target.read_bytes()
    code, _, err = command(run.folder, "--once", jsonl=target)
    assert code == 2 and f"{target}, line 1: not a line of this run" in err
    assert target.read_bytes() == before


def test_wrong_command_lines_are_refused_in_one_line(run, tmp_path, command):
    for arguments, message in (
        ([run.folder], "expected one of --mlflow URI, --wandb and --jsonl FILE"),
        ([run.folder, "--wandb", "--jsonl", tmp_path / "x"], "expected one of"),
        ([tmp_path / "none", "--jsonl", tmp_path / "x"], "no such folder"),
        ([tmp_path, "--jsonl", tmp_path / "x"], "not a run folder"),
        ([run.folder, "--jsonl", tmp_path / "x", "--artifacts"], "--jsonl takes no files"),
        ([run.folder, "--once", "--jsonl", tmp_path / "no" / "x"], "No such file or directory"),
        ([run.folder, "--state", run.metrics, "--jsonl", tmp_path / "x"], "--state FOLDER"),
    ):
        code, _, err = command("", *arguments)
        assert code == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "extra"), [(["--mlflow", "x"], "mlflow"), (["--wandb"], "wandb")]
)
def test_a_missing_extra_is_named(run, command, monkeypatch, flags, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    code, _, err = command("", run.folder, *flags)
    assert code == 2 and f"pip install 'visionloop[{extra}]'" in err


def test_a_follower_imports_no_torch(run, tmp_path):
    run.train(1, 4)
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    arguments = [FOLLOW, run.folder, "--once", "--jsonl", tmp_path / "points.jsonl"]
    out = subprocess.check_output([sys.executable, "-P", "-c", program, *map(str, arguments)])
    assert out.decode().splitlines()[-1] == "[]"


class Store:
    """A database of MLflow."""

    def __init__(self, folder):
        mlflow = pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)

    def runs(self, experiment="visionloop"):
        found = self.client.get_experiment_by_name(experiment)
        return self.client.search_runs([found.experiment_id])

    def points(self, run):
        """[((key, step), value)], repeats included."""
        return [
            ((metric.key, metric.step), metric.value)
            for key in run.data.metrics
            for metric in self.client.get_metric_history(run.info.run_id, key)
        ]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)  # its default folder of files is below the current one
    return Store(tmp_path)


@pytest.mark.slow
def test_a_follower_killed_ten_times_leaves_each_point_once_in_mlflow(run, store):
    writer = growing(run, steps=400, pause=0.03)
    follow_with_kills(run, "--mlflow", store.uri, kills=10, longest=3.5, is_growing=writer.is_alive)
    (found,) = store.runs()
    points = store.points(found)
    assert len(points) == len(dict(points)) and dict(points) == points_of(run)
    assert found.info.status == "FINISHED"


def test_mlflow_gets_settings_scores_state_and_best_of_a_real_run(
    trained_run, tmp_path, store, command
):
    options = {"state": tmp_path / "notes", "mlflow": store.uri, "experiment": "shapes"}
    for _ in range(2):
        code, _, err = command(trained_run, "--artifacts", **options)
        assert (code, err) == (0, "")
    (found,) = store.runs("shapes")
    assert found.info.run_name == "shapes" and found.info.status == "FINISHED"
    settings = json.loads((trained_run / "settings.json").read_text())["settings"]
    assert found.data.params.keys() == settings.keys()
    assert found.data.params["model"] == "tiny" and found.data.params["steps"] == "6"
    lines = [json.loads(line) for line in (trained_run / "metrics.jsonl").open()]
    points = store.points(found)
    for kind, key, name in (("train", "train/loss", "loss"), ("eval", "eval/val_loss", "val_loss")):
        expected = [(line["step"], line[name]) for line in lines if line["kind"] == kind]
        assert [(step, value) for (k, step), value in points if k == key] == expected
    best = json.loads((trained_run / "status.json").read_text())["best"]
    assert found.data.tags["visionloop.best_step"] == str(best["step"])
    assert found.data.tags["visionloop.state"] == "finished"
    names = {file.path for file in store.client.list_artifacts(found.info.run_id, "best")}
    assert names == {f"best/{path.name}" for path in (trained_run / "best").iterdir()}


def test_a_resumed_run_goes_on_in_its_run_of_mlflow(run, store, command):
    run.train(1, 11)
    run.status("stopped")
    command(run.folder, mlflow=store.uri)
    assert store.runs()[0].info.status == "KILLED"
    run.settings(lr=0.001, model="tiny", image_size=None, steps=20)
    run.cut(5)
    run.status("running")
    run.train(6, 21)
    command(run.folder, "--once", mlflow=store.uri)
    assert store.runs()[0].info.status == "RUNNING"
    run.status("finished")
    command(run.folder, mlflow=store.uri)
    (found,) = store.runs()
    points = store.points(found)
    assert len(points) == len(dict(points)) and dict(points) == points_of(run)
    assert found.info.status == "FINISHED" and found.data.params["steps"] == "20"


def test_an_unreachable_server_is_reported_in_one_line(run, command, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, _, err = command(run.folder, mlflow="http://127.0.0.1:9")
    assert code == 2 and err.startswith("error: --mlflow: ") and len(err.splitlines()) == 1


def test_wandb_without_a_network_writes_each_row_once(run, monkeypatch, command):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run.train(1, 21)
    command(run.folder, "--once", "--wandb")
    run.cut(10)
    run.train(11, 31)
    run.status("finished")
    command(run.folder, "--wandb")
    rows = [row for path in sorted(run.folder.rglob("*.wandb")) for row in wandb_rows(path)]
    points = Counter((key, row["step"]) for row in rows for key in row if "/" in key)
    assert set(points) == set(points_of(run)) and set(points.values()) == {1}
    assert [row["_step"] for row in rows] == list(range(len(rows)))


def wandb_rows(path):
    """The rows in a local file of W&B, in the format of LevelDB's logs."""
    from wandb.proto import wandb_internal_pb2

    content, position, data = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768  # the rest of a block that takes no header
            continue
        size, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        data += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or its last part
            record = wandb_internal_pb2.Record.FromString(data)
            data = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in items
                }


def wait_for(condition, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "nothing happened"
        time.sleep(0.02)
