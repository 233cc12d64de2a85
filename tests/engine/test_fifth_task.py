"""Another task needs no change in engine/, keeps its invariants, and has all the commands."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fifth_task import commands, make_regression, write_numbered

from visionloop.bin.commands.cli import run_commands
from visionloop.engine.testing.check_task import check_task

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests/support/fifth_task.py"


def test_the_engine_does_not_name_it_and_it_needs_no_other_task():
    words = ("regression", "fifth_task", "huber")
    assert not [
        path
        for path in (ROOT / "engine").glob("*.py")
        for word in words
        if word in path.read_text().lower()
    ]
    imported = [
        node.module
        for node in ast.walk(ast.parse(EXAMPLE.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    assert not [module for module in imported if module.startswith("visionloop.tasks")]


def test_it_trains_is_scored_and_predicts_through_the_commands(tmp_path, capsys):
    data, output = write_numbered(tmp_path / "data", {"train": 24, "val": 8}), tmp_path / "run"
    small = [
        "--steps",
        "60",
        "--batch-size",
        "8",
        "--lr",
        "0.01",
        "--workers",
        "0",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--no-ema",
    ]
    with pytest.raises(SystemExit) as left:
        run_commands(commands, ["check", "--data", str(data / "nothing"), *small])
    assert (
        left.value.code == 2
        and "train.json: expected an object of file names and numbers" in capsys.readouterr().err
    )
    train_in_process(["train", "--data", str(data), "--output", str(output), *small])
    evals = [
        json.loads(line)
        for line in (output / "metrics.jsonl").read_text().splitlines()
        if '"eval"' in line
    ]
    assert evals[-1]["metrics"]["mae"] < evals[0]["metrics"]["mae"]
    record = json.loads(
        (output / "evaluations/step_00000060/record.json").read_text()
    )  # of a task that draws and reports nothing more
    assert (
        record["scores"] == evals[-1]["metrics"]
        and record["classes"] is record["confusion"] is record["sample_score"] is None
    )
    assert (
        record["fixed"][0] == {"name": "val/000.png", "image": None, "score": None}
        and record["worst"] == record["curves"] == []
    )
    capsys.readouterr()
    run_commands(
        commands,
        [
            "evaluate",
            "--model",
            str(output / "best"),
            "--data",
            str(data),
            "--device",
            "cpu",
            "--json",
        ],
    )
    best = min(line["metrics"]["mae"] for line in evals)
    assert json.loads(capsys.readouterr().out)["mae"] == pytest.approx(best, abs=1e-6)
    with pytest.raises(SystemExit) as left:
        words = [
            "--input",
            str(data / "val"),
            "--output",
            str(tmp_path / "predictions"),
            "--device",
            "cpu",
        ]
        run_commands(commands, ["predict", "--model", str(output / "best"), *words])
    assert not left.value.code
    rows = [
        json.loads(line)
        for line in (tmp_path / "predictions/predictions.jsonl").read_text().splitlines()
    ]
    assert [row["file"] for row in rows] == [f"{i:03}.png" for i in range(8)]


def train_in_process(words):
    """`train` leaves by os._exit, so that it runs in a process of its own here."""
    subprocess.run([sys.executable, EXAMPLE, *words], timeout=120, check=True)


@pytest.mark.slow
def test_it_keeps_every_invariant_of_the_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("FIFTH_TASK_DATA", str(write_numbered(tmp_path, {"train": 40, "val": 23})))
    assert check_task(make_regression) == [
        "batches",
        "resume",
        "accumulation",
        "ranks",
        "grad_checkpointing",
        "sharding",
        "empty_targets",
        "overfit",
        "export",
    ]
