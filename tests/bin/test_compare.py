"""`compare`: runs on the same validation images, single ones and seeds of one setting."""

import json
import shutil

import pytest
from report_runs import SMALL, change

from visionloop.bin import compare as launcher
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


@pytest.fixture
def compared(command):
    """compared(run, .., *options) -> the object of --json."""

    def compare(*words):
        options = ("--threads", 1, "--device", "cpu", "--draws", 150, "--json")
        code, out, err = command(*words, *options)
        assert code == 0, err
        return json.loads(out)

    return compare


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def line_of(result, metric, part="overall"):
    return next(
        line for line in result["lines"] if (line["metric"], line["part"]) == (metric, part)
    )


def copy_with_seed(source, target, seed, **settings):
    """Copy a run as if it had another seed."""
    shutil.copytree(source, target)

    def edit(content):
        for name, value in {"seed": seed, **settings}.items():
            content["settings"][name].update(value=value)

    change(target / "settings.json", edit)


def test_the_better_run_wins_from_both_sides_and_nothing_is_written(compared, runs):
    before = files_of(runs)
    result = compared(runs / "short", runs / "long")
    opposite = compared(runs / "long", runs / "short")
    assert files_of(runs) == before
    assert (result["metric"], result["images"], result["baseline"]) == ("accuracy", 60, 0)
    accuracy = line_of(result, "accuracy")
    for name, score in zip(("short", "long"), accuracy["scores"], strict=True):
        status = json.loads((runs / name / "status.json").read_text())
        assert score == pytest.approx(status["best"]["score"])
    found, turned = (line_of(each, "accuracy")["differences"][1] for each in (result, opposite))
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["difference"] == pytest.approx(accuracy["scores"][1] - accuracy["scores"][0])
    assert (found["code"], turned["code"]) == ("better", "worse")
    same = -found["high"], -found["low"]  # quantiles are interpolated from the other side
    assert (turned["low"], turned["high"]) == pytest.approx(same, rel=1e-9, abs=0)
    assert line_of(result, "val_loss")["differences"][1]["code"] == "better"  # a lower loss
    verdict = result["settings"][1]["verdict"]
    assert verdict["en"].startswith("long is better than short: accuracy +")
    assert "60장" in verdict["ko"]
    classes = [line for line in result["lines"] if line["part"] == "class"]
    assert len(classes) == len(json.loads((runs / "long/best/config.json").read_text())["id2label"])
    assert all("seeds is not covered" in note["en"] for note in result["notes"][-1:])


def test_a_run_does_not_differ_from_its_copy_at_all(compared, copies):
    shutil.copytree(copies / "long", copies / "again")
    result = compared(copies / "long", copies / "again")
    for line in result["lines"]:
        found = line["differences"][1]
        assert (found["difference"], found["low"], found["high"]) == (0, 0, 0)
        assert found["code"] == "no_difference" and "equal in every draw" in found["words"]


def test_runs_that_differ_in_the_seed_alone_are_averaged_and_so_is_their_folder(compared, copies):
    for seed in range(3):
        copy_with_seed(copies / "long", copies / "many" / f"seed_{seed}", seed)
    result = compared(copies / "short", copies / "many")
    single, many = result["settings"]
    assert (single["name"], many["name"]) == ("short", "many")
    assert (single["covers_seeds"], many["covers_seeds"]) == (False, True)
    assert many["seeds"] == [0, 1, 2]
    # copies of one run have no spread: the interval is that of the run itself
    assert line_of(result, "accuracy")["spreads"] == [None, 0]
    alone = compared(copies / "short", copies / "long")
    for line, other in zip(result["lines"], alone["lines"], strict=True):
        for key in ("difference", "low", "high"):
            expected = other["differences"][1][key]
            assert line["differences"][1][key] == pytest.approx(expected, abs=1e-9)
    notes = " ".join(note["en"] for note in result["notes"])
    assert "short: 1" in notes and "fewer than 5 seeds" in notes


def test_several_runs_are_corrected_for_their_number_and_the_baseline_may_be_any(compared, copies):
    for seed, lr in ((7, 0.1), (8, 0.2)):
        copy_with_seed(copies / "long", copies / f"lr_{lr}", seed, lr=lr)
    runs = [copies / name for name in ("long", "lr_0.1", "lr_0.2", "short")]
    result = compared(*runs, "--baseline", copies / "short")
    assert result["baseline"] == 3 and result["settings"][3]["verdict"] is None
    plain = [each["p"] for each in line_of(result, "accuracy")["differences"][:3]]
    adjusted = [setting["adjusted_p"] for setting in result["settings"]]
    assert adjusted == [*[pytest.approx(min(1, 3 * p)) for p in plain], None]
    assert "3 comparisons (Holm)" in result["notes"][0]["en"]
    grouped = compared(*runs, "--group", f"{runs[0]},{runs[1]}")
    assert [setting["runs"] for setting in grouped["settings"]] == [2, 1, 1]


def test_the_table_has_a_line_for_each_score_and_the_verdict_below(command, runs):
    words = ("--threads", 1, "--device", "cpu", "--draws", 100)
    code, out, _ = command(runs / "short", runs / "long", *words)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "long against short: 60 images, 100 draws"
    accuracy = next(line for line in lines if line.startswith("accuracy "))
    assert accuracy.endswith("better")
    assert any(line.startswith("accuracy by class") for line in lines)
    assert any(line.startswith("long is better than short: accuracy +") for line in lines)
    assert lines[-1].startswith("note: The variation between seeds is not covered")


def test_runs_that_cannot_be_compared_are_refused_with_the_reason(command, copies):
    def refusal(*words):
        code, out, err = command(copies / "long", copies / "short", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    assert "--metric acuracy: expected one of" in refusal("--metric", "acuracy", "--threads", 1)
    assert "--baseline nowhere: is none of the runs" in refusal("--baseline", "nowhere")
    assert "nowhere is none of the runs" in refusal("--group", f"{copies / 'long'},nowhere")
    assert "is given twice" in refusal(copies / "long")
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


def test_one_run_is_no_comparison(command, runs):
    code, _, err = command(runs / "long")
    assert code == 2 and "expected two or more runs" in err
