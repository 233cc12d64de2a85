"""`report list`, and the command line of reports."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from report_runs import (
    change,
    copy_run,
)

from visionloop.bin import report as launcher

ROOT = Path(__file__).parents[2]
commands = launcher.command  # of the fixture `command`
NO_RUN = "not a run folder (it holds none of settings.json, status.json, metrics.jsonl)"


@pytest.fixture
def run(trained_run, tmp_path):
    return copy_run(trained_run, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: no such folder, expected a run folder\n"),
        (["{folder}"], f"error: {{folder}}: {NO_RUN}; `list` prints the runs below a folder\n"),
        (["{run}/evaluations"], f"error: {{run}}/evaluations: {NO_RUN}; did you mean {{run}}?\n"),
        (["{run}", "{run}"], "error: RUN: the same folder is given twice\n"),
        (["{run}", "--output", "{run}"], "error: --output {run}: is a folder, expected a file\n"),
        (
            ["{run}", "--output", "{run}/status.json/x.html"],
            "error: --output {run}/status.json/x.html: cannot write (File exists)\n",
        ),
        (["list", "nowhere"], "error: nowhere: no such folder, expected one with runs\n"),
        (["{run}", "--jsn", "x"], "error: No such option '--jsn'. Did you mean '--json'?\n"),
    ],
)
def test_a_user_error_is_one_line(command, run, arguments, message):
    places = {"run": run, "folder": run.parent}
    assert command(*(argument.format(**places) for argument in arguments)) == (
        2,
        "",
        message.format(**places),
    )


def test_without_arguments_the_help_is_shown_line_by_line(command):
    code, out, err = command()
    assert (
        (code, out) == (2, "")
        and err.startswith("Usage: ")
        and "\n  list " in err
        and "\n  write " in err
    )


def test_the_page_is_written_to_the_run_folder_by_default(command, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(run, tmp_path / "other")
    assert command(run)[1].startswith(f"{run / 'report.html'}: ")
    assert (
        command("write", run, other)[1].startswith("report.html: ")
        and (tmp_path / "report.html").is_file()
    )
    assert (
        command("--output", "deep/x.html", run)[0] == 0 and (tmp_path / "deep" / "x.html").is_file()
    )


def test_list_has_a_line_for_each_run_the_latest_first(command, run, tmp_path):
    older = shutil.copytree(run, tmp_path / "deep" / "older")
    shutil.copytree(run, tmp_path / ".hidden")
    (tmp_path / "empty").mkdir()
    change(run / "status.json", lambda content: content.update(heartbeat=time.time() - 5))
    change(
        older / "status.json",
        lambda content: content.update(state="running", heartbeat=time.time() - 7200),
    )
    code, out, _ = command("list", tmp_path, "--json")
    rows = json.loads(out)
    assert code == 0 and [(row["name"], row["state"], row["task"]) for row in rows] == [
        ("run", "finished", "classification"), ("deep/older", "lost", "classification"),
    ]  # fmt: skip
    assert (rows[0]["step"], rows[0]["steps"], rows[0]["best"]["metric"]) == (
        6,
        6,
        "accuracy",
    ) and rows[1]["age_seconds"] >= 7200
    code, out, _ = command("list", tmp_path)
    head, *lines = out.splitlines()
    assert code == 0 and head.split() == ["run", "task", "state", "step", "best", "last", "active"]
    assert re.fullmatch(
        r"deep/older +classification +lost +6/6 +accuracy [01]\.\d{4} at step \d +2 h ago", lines[1]
    )


def test_list_shows_runs_whose_files_are_broken(command, tmp_path):
    for name, content in (
        ("a", "[]"),
        ("b", '{"settings": []}'),
        ("c", '{"settings": {"task": 3}}'),
        ("d", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(content)
    code, out, _ = command("list", tmp_path)
    assert code == 0 and [line.split()[:4] for line in out.splitlines()[1:]] == [
        [name, "-", "unknown", "-"] for name in "abcd"
    ]
    (tmp_path / "none").mkdir()
    assert command("list", tmp_path / "none") == (0, f"{tmp_path / 'none'}: no runs\n", "")


def test_help_and_list_import_no_torch(tmp_path):
    code = """
import sys
from visionloop.bin.report import command
for arguments in (["--help"], ["write", "--help"], ["list", sys.argv[1]]):
    command.main(arguments, standalone_mode=False)
assert not {"torch", "transformers"} & set(sys.modules), "imported"
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
