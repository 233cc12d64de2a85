"""Runs killed at random moments end with the bytes of an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("run.py")


def kill_runs(folder, *options):
    command = [sys.executable, str(PROGRAM), str(folder), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.soak
def test_runs_stopped_ten_times_end_with_the_bytes_of_an_undisturbed_run(tmp_path):
    for task, processes, workers in (
        ("classification", "1", "0"),
        ("super_resolution", "2", "2"),
    ):
        options = ["--task", task, "--processes", processes, "--workers", workers]
        result = kill_runs(tmp_path, *options, "--kills", "5")
        assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    # a second call adds to the record
    assert report["by_case"] == {"classification-1p-0w": 5, "super_resolution-2p-2w": 5}
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["differing_runs"] == []
    assert report["lost_checkpoints"] == report["invalid_checkpoints"] == 0

    # a run that differs is detected
    path = tmp_path / "undisturbed" / "classification-1p-0w.json"
    undisturbed = json.loads(path.read_text())
    undisturbed["fingerprint"]["metrics.jsonl"] = "0" * 64
    path.write_text(json.dumps(undisturbed))
    options = ["--task", "classification", "--processes", "1", "--workers", "0"]
    result = kill_runs(tmp_path, *options, "--kills", "6")
    assert result.returncode == 1
    assert json.loads(result.stdout)["differing_runs"] == ["classification-1p-0w"]
    assert "metrics.jsonl" in result.stderr


@pytest.mark.soak
def test_sharded_runs_stopped_five_times_end_with_the_bytes_of_an_undisturbed_run(tmp_path):
    options = ["--task", "classification", "--processes", "2", "--workers", "0"]
    result = kill_runs(tmp_path, *options, "--shard", "full", "--kills", "5")
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["by_case"] == {"classification-2p-0w-full-shards": 5}


def test_a_data_folder_for_several_tasks_is_refused(tmp_path):
    result = kill_runs(tmp_path, "--data", "images")
    assert result.returncode == 2
    assert "--data is for one task; name it with --task" in result.stderr
