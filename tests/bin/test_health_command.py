"""`health` as a person, and a container's HEALTHCHECK, use it."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from visionloop.bin import (
    classification,
    detection,
    instance_segmentation,
    panoptic_segmentation,
    segmentation,
    super_resolution,
)
from visionloop.bin.commands import health
from visionloop.engine.system import shared_memory

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = (
    classification,
    detection,
    segmentation,
    instance_segmentation,
    panoptic_segmentation,
    super_resolution,
)
commands = classification.commands  # what the fixture `command` runs


def test_every_task_has_it():
    assert all("health" in launcher.commands.commands for launcher in LAUNCHERS)


def test_a_usable_machine_is_reported_with_exit_code_0(command):
    code, out, err = command("health", "--device", "cpu", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "") and report["usable"] is True and report["errors"] == []
    assert list(report) == [
        "usable",
        "errors",
        "warnings",
        "python",
        "versions",
        "precision",
        "devices",
        "disks",
        "shared_memory_gib",
    ]
    assert (
        report["versions"]["torch"] == metadata.version("torch")
        and None not in report["versions"].values()
    )
    assert "pytest" not in report["versions"], "an extra is not needed"
    assert report["devices"][-1]["kind"] == "cpu" and report["devices"][-1]["memory_gib"] > 0
    assert set(report["disks"]) == {"current", "cache", "weights"}
    assert (
        report["disks"]["current"]["path"] == str(Path.cwd())
        and report["disks"]["current"]["writable"]
    )


def test_people_read_the_same_in_lines(command):
    code, out, _ = command("health", "--device", "cpu")
    lines = out.splitlines()
    assert code == 0 and lines[-1] == "usable" and f"torch {metadata.version('torch')}" in lines[0]
    assert [line for line in lines if line.startswith("error")] == []
    assert sum(" GiB free" in line for line in lines) >= 3


def test_a_check_on_the_cpu_looks_at_no_gpu(monkeypatch):
    """That would make a CUDA context, and a training may need the memory."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = SimpleNamespace(total_memory=2**34, name="a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    kinds = [device["kind"] for device in health.find_devices({"errors": []}, "cpu")]
    assert "cuda" not in kinds and kinds[-1] == "cpu"


def test_a_missing_device_is_an_error_and_the_rest_is_still_reported(command):
    absent = "mps" if torch.cuda.is_available() else "cuda"
    code, out, _ = command("health", "--device", absent, "--json")
    report = json.loads(out)
    assert code == 1 and report["usable"] is False
    (error,) = report["errors"]
    assert error.startswith(f"--device {absent}: ") and report["devices"][-1]["kind"] == "cpu"


@pytest.mark.slow
def test_a_broken_an_absent_and_a_wrong_library_are_each_named(tmp_path):
    """In a process whose path begins with what an unlucky installation leaves behind."""
    (tmp_path / "pycocotools").mkdir()
    (tmp_path / "pycocotools" / "__init__.py").write_text(
        "raise OSError('libcoco.so: cannot open shared object file')\n"
    )
    (tmp_path / "safetensors-0.1.dist-info").mkdir()
    (tmp_path / "safetensors-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: safetensors\nVersion: 0.1\n"
    )
    (tmp_path / "visionloop-9.dist-info").mkdir()
    requirements = "".join(
        f"Requires-Dist: {name}\n"
        for name in ("pycocotools>=2", "safetensors>=0.6", "no-such-library>=3")
    )
    (tmp_path / "visionloop-9.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: visionloop\nVersion: 9\n{requirements}"
    )
    run = subprocess.run(
        [
            sys.executable,
            str(ROOT / "bin" / "classification.py"),
            "health",
            "--device",
            "cpu",
            "--json",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    report = json.loads(run.stdout)
    assert run.returncode == 1 and report["usable"] is False, run.stderr
    assert report["errors"][:3] == [
        "safetensors: version 0.1, expected >=0.6",
        "no-such-library: not installed",
        "pycocotools: OSError: libcoco.so: cannot open shared object file",
    ]
    assert (
        report["versions"]["no-such-library"] is None
        and report["devices"]
        and report["disks"]["current"]["path"] == str(tmp_path)
    )


def test_a_machine_without_torch_is_reported_in_one_line(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "raise ImportError('libcudart.so.12: no such file')\n"
    )
    run = subprocess.run(
        [sys.executable, str(ROOT / "bin" / "detection.py"), "health"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert (run.returncode, run.stderr) == (1, "")
    assert "error: torch: ImportError: libcudart.so.12: no such file" in run.stdout.splitlines()
    assert run.stdout.splitlines()[-1] == "not usable"


def fresh_report():
    return {"errors": [], "warnings": []}


def test_a_folder_that_is_not_there_yet_is_measured_where_it_would_be(tmp_path):
    report = fresh_report()
    disk = health.check_disk(report, "cache", tmp_path / "not" / "there")
    assert (
        disk["path"] == str(tmp_path / "not" / "there")
        and disk["free_gib"] > 0
        and disk["writable"]
    )
    assert not (tmp_path / "not").exists()


def test_a_full_disk_is_an_error_where_runs_are_written_and_a_warning_elsewhere(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(health, "MIN_FREE_DISK", 1e9)
    monkeypatch.setattr(health, "LOW_FREE_DISK", 1e9)
    report = fresh_report()
    health.check_disk(report, "current", tmp_path)
    health.check_disk(report, "cache", tmp_path)
    assert len(report["errors"]) == len(report["warnings"]) == 1
    assert report["errors"][0].startswith(f"{tmp_path}: the disk is full")


def test_little_shared_memory_is_a_warning_that_says_what_to_do(monkeypatch, tmp_path):
    report = fresh_report()
    assert (
        health.check_shared_memory(report, str(tmp_path / "absent")) is None
        and report == fresh_report()
    )
    monkeypatch.setattr(shared_memory, "LOW_SHARED_MEMORY", 1e9)
    assert health.check_shared_memory(report, str(tmp_path)) > 0
    (warning,) = report["warnings"]
    assert "--shm-size" in warning and "--workers 0" in warning and report["errors"] == []


def test_help_imports_no_torch():
    code = """
import sys
from visionloop.bin.classification import commands
commands.main(["health", "--help"], standalone_mode=False)
assert "torch" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stderr) == (0, "")
