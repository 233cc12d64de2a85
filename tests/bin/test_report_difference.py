"""`report difference`: two runs on the same validation images."""

import json
import shutil

import pytest
from report_runs import SMALL, change

from visionloop.bin import report as launcher
from visionloop.bin.classification import load_task_class
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.train import train

commands = launcher.command  # of the fixture `command`


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of one step and one that has learned something, on the same data."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "data").mkdir()
    WRITERS["classification"](folder / "data", 0, images={"train": 60, "val": 60})
    for name, steps in (("short", 1), ("long", 80)):
        settings = SMALL | {"steps": steps, "eval_every": steps, "batch_size": 16, "lr": 3e-3}
        train(
            load_task_class(),
            data=str(folder / "data"),
            model="tiny",
            from_scratch=True,
            image_size=32,
            output=str(folder / name),
            **settings,
        )
    return folder


@pytest.fixture
def copies(runs, tmp_path):
    """A writable copy of both runs."""
    for name in ("short", "long"):
        shutil.copytree(runs / name, tmp_path / name)
    return tmp_path


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_the_better_run_wins_from_both_sides_and_nothing_is_written(command, runs):
    before = files_of(runs)
    words = ("--threads", 1, "--device", "cpu", "--draws", 200, "--json")
    code, out, _ = command("difference", runs / "long", runs / "short", *words)
    result = json.loads(out)
    code, other_way, _ = command("difference", runs / "short", runs / "long", *words)
    opposite = json.loads(other_way)
    assert code == 0 and files_of(runs) == before
    assert (result["metric"], result["images"], result["runs"]) == (
        "accuracy",
        60,
        ["long", "short"],
    )
    for name, score in zip(("long", "short"), result["scores"], strict=True):
        status = json.loads((runs / name / "status.json").read_text())
        assert score == pytest.approx(status["best"]["score"])
    assert 0 < result["low"] < result["difference"] < result["high"]
    assert result["difference"] == pytest.approx(result["scores"][0] - result["scores"][1])
    assert (result["verdict"]["code"], opposite["verdict"]["code"]) == ("a_better", "b_better")
    turned = -result["high"], -result["low"]  # quantiles are interpolated from the other side
    assert (opposite["low"], opposite["high"]) == pytest.approx(turned, rel=1e-12, abs=0)
    assert result["verdict"]["en"].startswith("long is better than short. accuracy +")
    assert "60장" in result["verdict"]["ko"]


def test_a_lower_loss_is_better(command, runs):
    words = ("--threads", 1, "--device", "cpu", "--metric", "val_loss", "--draws", 100, "--json")
    _, out, _ = command("difference", runs / "long", runs / "short", *words)
    result = json.loads(out)
    assert result["high"] < 0 and result["verdict"]["code"] == "a_better"


def test_equal_runs_do_not_differ_at_all(command, copies):
    shutil.copytree(copies / "long", copies / "again")
    code, out, _ = command(
        "difference", copies / "long", copies / "again", "--threads", 1, "--device", "cpu", "--json"
    )
    result = json.loads(out)
    assert code == 0
    assert (result["difference"], result["low"], result["high"]) == (0, 0, 0)
    assert result["verdict"]["code"] == "no_difference"


def test_runs_that_cannot_be_compared_are_refused_with_the_reason(command, copies):
    def refusal(*words):
        code, out, err = command("difference", copies / "long", copies / "short", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    assert "--metric acuracy: expected one of" in refusal("--metric", "acuracy", "--threads", 1)
    change(
        copies / "short" / "best" / "config.json",
        lambda config: config.update(id2label={"0": "cat", "1": "dog"}, label2id={}),
    )
    assert "trained on different classes (cat, " in refusal()
    change(
        copies / "short" / "settings.json",
        lambda content: content["settings"]["task"].update(value="detection"),
    )
    assert "is a run of classification" in refusal()
    shutil.rmtree(copies / "short" / "best")
    assert "no best/ yet; the first evaluation writes it" in refusal()
    shutil.rmtree(copies / "short")
    assert "no such folder, expected a run folder" in refusal()
