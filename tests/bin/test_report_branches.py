"""Branches in `report list` and on the page of a report."""

import json
import shutil

import pytest
from report_runs import SCHEMA
from written_runs import write_branch, write_run

from visionloop.bin import report as launcher
from visionloop.bin.reports.branches import in_tree
from visionloop.bin.reports.contents import report_of

commands = launcher.command  # of the fixture `command`


@pytest.fixture
def runs(tmp_path):
    source = write_run(tmp_path / "runs" / "a", points=20)
    write_branch(tmp_path / "runs" / "low", source, 100, lr=[1e-3, 1e-4])
    write_branch(tmp_path / "runs" / "twice", tmp_path / "runs" / "low", 150)
    return tmp_path / "runs"


def test_list_shows_each_branch_below_its_source_with_step_and_changes(command, runs):
    lines = command("list", runs)[1].splitlines()
    names = [line.split("  ")[0] if line[0] != " " else line[:12].strip() for line in lines]
    assert lines[0].endswith("branch")
    assert names[1:] == ["a", "└─ low", "└─ twice"] and lines[3].startswith("   └─ twice")
    assert lines[2].endswith("a@100: lr 0.001 -> 0.0001")
    assert lines[3].endswith("low@150: no changes")


def test_a_tree_that_was_moved_or_lost_its_source_is_listed(command, runs, tmp_path):
    moved = runs.rename(tmp_path / "moved")
    assert "\n└─ low" in command("list", moved)[1]
    shutil.rmtree(moved / "a")
    out = command("list", moved)[1]
    assert "\nlow" in out and "\n└─ twice" in out


def test_runs_that_name_each_other_are_each_listed_once(tmp_path):
    rows = [(name, {"run": str(tmp_path / other), "name": other}) for name, other in ("ab", "ba")]
    tree = list(in_tree(rows, lambda row: (tmp_path / row[0], row[1])))
    assert sorted(name for _, (name, _) in tree) == ["a", "b"]


def test_the_object_of_a_branch_has_its_source_and_says_when_the_history_is_another(runs):
    report = report_of([runs / "low"])
    SCHEMA.validate(json.loads(json.dumps(report)))
    (run,) = report["runs"]
    assert run["branch"] == {
        "run": str((runs / "a").resolve()),
        "name": "a",
        "step": 100,
        "changes": {"lr": [1e-3, 1e-4]},
    }
    assert not [note for note in run["notes"] if "source" in note]
    text = (runs / "low" / "metrics.jsonl").read_text()
    (runs / "low" / "metrics.jsonl").write_text(text.replace("loss", "lost", 1))
    (run,) = report_of([runs / "low"])["runs"]
    assert "metrics.jsonl: the lines up to step 100 are not those of the source" in run["notes"]
    assert report_of([runs / "a"])["runs"][0]["branch"] is None
