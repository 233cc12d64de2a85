"""The commands of classification, on a model that is trained for two steps."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from visionloop.bin.classification import commands
from visionloop.bin.commands.cli import run_commands
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six classes of uniform colors, train and val."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, number in (("train", 10), ("val", 2)):
        for k in range(6):
            (folder / split / f"class {k}").mkdir(parents=True)
            for i in range(number):
                pixels = np.clip(40 * k + generator.normal(0, 9, (40, 52, 3)), 0, 255).astype(
                    np.uint8
                )
                Image.fromarray(pixels).save(folder / split / f"class {k}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def best(data, tmp_path_factory):
    """best/ of a run of two steps."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train(
        ClassificationTask,
        data=str(data),
        model="tiny",
        image_size=32,
        steps=2,
        batch_size=8,
        workers=0,
        threads=1,
        output=str(output),
        precision="fp32",
        device="cpu",
        init="transformers",
    )
    return output / "best"


def test_help_imports_neither_torch_nor_transformers():
    code = (
        "import sys\nfrom visionloop.bin.commands.cli import run_commands\n"
        "from visionloop.bin.classification import commands\n"
        "try:\n    run_commands(commands, ['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'slow'"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "--crop-scale-min" in result.stdout and "--no-hflip" in result.stdout


@pytest.mark.parametrize("raised", [KeyboardInterrupt, EOFError])
def test_ctrl_c_is_one_line_and_a_defect_keeps_its_traceback(
    command, monkeypatch, tmp_path, raised
):
    def load_trained(*arguments, **settings):
        raise raised

    monkeypatch.setattr(ClassificationTask, "load_trained", load_trained)
    arguments = ("evaluate", "--model", tmp_path, "--data", tmp_path)
    if raised is KeyboardInterrupt:
        assert command(*arguments) == (75, "", "\nstopped; the same command can be run again\n")
        arguments += ("--traceback",)
    with pytest.raises(raised):
        command(*arguments)


def test_a_misspelt_option_gets_one_line_with_a_suggestion(command):
    code, _, errors = command("train", "--bach-size", "4")
    assert code == 2 and errors.startswith("error: No such option '--bach-size'.")
    assert "'--batch-size'" in errors and errors.count("\n") == 1
    code, _, errors = command("trian")
    assert code == 2 and "train" in errors and errors.count("\n") == 1


def test_a_mistake_is_one_line_and_traceback_shows_the_rest(command, tmp_path):
    code, _, errors = command("evaluate", "--model", tmp_path / "none", "--data", tmp_path)
    assert code == 2 and errors.startswith("error: --model") and errors.count("\n") == 1
    with pytest.raises(ValueError, match="no such folder"):
        run_commands(
            commands,
            ["evaluate", "--model", str(tmp_path / "none"), "--data", str(tmp_path), "--traceback"],
        )


def test_evaluate_prints_what_the_run_had_scored(command, best, data, tmp_path):
    code, printed, _ = command(
        "evaluate --json", model=best, data=data, output=tmp_path / "out" / "scores.json"
    )
    scores = json.loads(printed)
    assert code == 0 and set(scores) == {
        "accuracy",
        "accuracy_top5",
        "mean_class_accuracy",
        "val_loss",
    }
    lines = [json.loads(line) for line in (best.parent / "metrics.jsonl").read_text().splitlines()]
    logged = [line["metrics"] for line in lines if line["kind"] == "eval"]
    assert any(abs(scores["val_loss"] - row["val_loss"]) < 1e-6 for row in logged)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores
    assert (tmp_path / "out" / "scores_confusion.png").exists()
    per_class = json.loads(
        (tmp_path / "out" / "scores_per_class.json").read_text(), parse_constant=pytest.fail
    )  # NaN is no json
    assert list(per_class) == [f"class {k}" for k in range(6)] and {
        row["images"] for row in per_class.values()
    } == {2}
    assert np.mean([row["accuracy"] for row in per_class.values()]) == pytest.approx(
        scores["mean_class_accuracy"]
    )


def test_evaluate_shows_intervals_and_the_baseline_on_few_images(command, best, data):
    code, printed, _ = command("evaluate", "--model", best, "--data", data, "--split", "train")
    assert code == 0 and "60 images" in printed and " to " in printed
    assert "always naming the most frequent class" in printed and "16.67 %" in printed
    lines = printed.split("\n\n")[1].splitlines()
    assert (
        lines[0].split() == ["class", "images", "accuracy", "precision"]
        and len(lines) == 7
        and "nan" not in printed
    )
    assert len({len(line) for line in lines}) == 1  # aligned


def test_saved_predictions_have_the_scores_of_the_model(command, best, data, tmp_path):
    scores = json.loads(
        command("evaluate --json", model=best, data=data, save_predictions=tmp_path / "x.jsonl")[1]
    )
    command("predict", "--model", best, "--input", data / "val", "--output", tmp_path / "out")
    arguments = ("evaluate", "--data", data, "--json", "--predictions")
    code, printed, _ = command(*arguments, tmp_path / "out" / "predictions.jsonl")
    assert code == 0 and scores.pop("val_loss") > 0 and json.loads(printed) == scores
    code, printed, _ = command(*arguments, tmp_path / "x.jsonl")
    assert (
        code == 0 and scores.pop("accuracy_top5") > 0 and json.loads(printed) == scores
    )  # labels alone
    code, printed, _ = command("evaluate", "--data", data, "--predictions", tmp_path / "x.jsonl")
    assert code == 0 and "12 images" in printed and "class 3" in printed


def test_predictions_are_in_input_order_and_a_broken_image_does_not_stop_predict(
    command, best, tmp_path
):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i, name in enumerate(("b.jpg", "a.png", "deep/c.webp")):
        Image.fromarray(np.full((30, 60, 3), 70 * i, dtype=np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    arguments = (
        "predict",
        "--model",
        best,
        "--input",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--json",
        "--attention",
    )
    code, printed, errors = command(*arguments)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert (
        code == 2
        and f"error: {tmp_path / 'in' / 'broken.jpg'}: " in errors
        and "predicted 3 of 4 images" in errors
    )
    assert [row["file"] for row in rows] == ["a.png", "b.jpg", "broken.jpg", "deep/c.webp"]
    assert "error" in rows[2] and all(len(row["top5"]) == 5 for row in rows if "label" in row)
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == printed
    for kind in ("images", "attention"):
        assert {path.name for path in (tmp_path / "out" / kind).rglob("*.*")} == {
            "a.png",
            "b.jpg",
            "c.webp",
        }
    assert (tmp_path / "out" / "contact_sheet.png").exists() and (
        tmp_path / "out" / "attention_sheet.png"
    ).exists()
    # its own folder is written again; the predictions are those of transformers
    (tmp_path / "in" / "broken.jpg").unlink()
    assert command(*arguments)[0] == 0
    model, processor = (
        AutoModelForImageClassification.from_pretrained(best),
        AutoImageProcessor.from_pretrained(best),
    )
    with torch.no_grad():
        logits = model(
            **processor(Image.open(tmp_path / "in" / "a.png"), return_tensors="pt")
        ).logits
    assert model.config.id2label[logits.argmax().item()] == rows[0]["label"]
    assert logits.softmax(1).max().item() == pytest.approx(rows[0]["score"], abs=1e-5)


def test_evaluate_and_predict_take_the_threads_that_they_are_given(
    command, best, data, tmp_path, monkeypatch
):
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    assert command("evaluate", "--model", best, "--data", data, "--threads", "1")[0] == 0
    assert (
        command("predict --threads 3", model=best, input=data / "val", output=tmp_path / "out")[0]
        == 0
    )
    assert command("evaluate", "--model", best, "--data", data)[0] == 0
    assert taken == [1, 3]


def test_predict_leaves_a_foreign_folder_alone(command, best, data, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("keep")
    code, _, errors = command(
        "predict", "--model", best, "--input", data / "val", "--output", tmp_path / "letters"
    )
    assert code == 2 and "not empty and not written by this command" in errors
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["mine.txt"]


def test_export_gives_transformers_the_same_logits(command, best, data, tmp_path):
    code, printed, _ = command("export", "--model", best, "--output", tmp_path / "out")
    assert code == 0 and "read back bit for bit" in printed
    card = (tmp_path / "out" / "README.md").read_text()
    assert "class 3" in card and str(data) not in card and "from_pretrained" in card
    image = Image.open(data / "val" / "class 2" / "0.png")
    logits = []
    for folder in (best, tmp_path / "out"):
        model, processor = (
            AutoModelForImageClassification.from_pretrained(folder),
            AutoImageProcessor.from_pretrained(folder),
        )
        with torch.no_grad():
            logits.append(model(**processor(image, return_tensors="pt")).logits)
    assert torch.equal(*logits)
    assert (
        command("export", "--model", best, "--output", tmp_path / "out")[0] == 0
    )  # its own folder is written again


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs the onnx extra",
)
def test_export_to_onnx_agrees_with_pytorch(command, best, tmp_path):
    code, printed, _ = command("export", "--model", best, "--output", tmp_path / "out", "--onnx")
    assert code == 0 and "onnxruntime and PyTorch agree" in printed
    assert (tmp_path / "out" / "model.onnx").exists()


def test_check_reports_the_first_loss_and_what_the_run_costs(command, data):
    arguments = (
        "check",
        "--data",
        data,
        "--model",
        "tiny",
        "--image-size",
        "32",
        "--steps",
        "10",
        "--batch-size",
        "8",
        "--device",
        "cpu",
    )
    code, printed, _ = command(*arguments, "--precision", "fp32", "--json")
    report = json.loads(printed)
    assert code == 0 and report["errors"] == [] and report["classes"]["class 0"] == 10
    assert set(report["estimate"]) == {"memory_gib", "disk_gib", "seconds"} and all(
        value > 0 for value in report["estimate"].values()
    )
    code, printed, _ = command(*arguments, "--precision", "fp32")
    assert "expected 1.792" in printed  # ln 6


def test_check_names_every_broken_file_and_exits_with_2(command, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "copy")
    broken = [copy / "train" / "class 1" / "0.png", copy / "val" / "class 4" / "1.png"]
    for path in broken:
        path.write_bytes(b"")
    code, printed, errors = command("check", "--data", copy, "--model", "tiny", "--json")
    assert code == 2 and all(f"error: {path}: empty file" in errors for path in broken)
    assert len(json.loads(printed)["errors"]) == 2


def test_the_launcher_runs_as_a_file(tmp_path):
    launcher = Path(__file__).parents[2] / "bin" / "classification.py"
    result = subprocess.run(
        [sys.executable, launcher, "train", "--dry-run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["preset"] == {"value": "scratch", "source": "recipe"}
