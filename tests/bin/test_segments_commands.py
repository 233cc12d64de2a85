"""The commands of instance and panoptic segmentation, on models trained for sixty steps."""

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from segments_files import decode, write_instances
from small_segments import CLASSES, write_scenes
from torchrun_runs import ENVIRONMENT, LONGEST, ROOT
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

from visionloop.bin import instance_segmentation, panoptic_segmentation
from visionloop.bin.commands.cli import run_commands
from visionloop.tasks.segmentation.export import PROCESSOR_FILE

pytestmark = pytest.mark.slow
LAUNCHERS = {"instance": instance_segmentation, "panoptic": panoptic_segmentation}
TRAINING = (
    "--model tiny --image-size 64 --num-queries 12 --batch-size 8 --micro-batch 4 --steps 60"
    " --eval-every 0 --save-every 30 --log-every 1 --workers 0 --threads 1 --device cpu"
    " --precision fp32"
)
SCORE = 0.3  # so young a model is not sure of much
# width x height; where rounding the resized side is flooring it, and both ways
SIZES = {"wide": (40, 32), "square": (64, 64), "tall": (24, 48), "large": (1200, 900)}


def run(kind, *words, **options):
    """(exit code, stdout, stderr) of a command; keywords are options with their value."""
    words = [*words[0].split(), *words[1:]]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_commands(LAUNCHERS[kind].commands, [str(word) for word in words])
        except SystemExit as left:
            code = left.code or 0
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=LAUNCHERS)
def trained(request, data, tmp_path_factory):
    """A run of `train` that was killed once: its kind, data, folder and best/."""
    output = tmp_path_factory.mktemp("runs") / "run"
    script = ROOT / "bin" / f"{request.param}_segmentation.py"
    words = [sys.executable, script, "train", *TRAINING.split(), "--data", data, "--output", output]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + LONGEST
    while not (output / "checkpoints" / "step_00000030").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    again = subprocess.run(
        words, env=ENVIRONMENT, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert again.returncode == 0, again.stderr
    return SimpleNamespace(kind=request.param, data=data, output=output, best=output / "best")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Scenes of unusual sizes and modes."""
    folder = tmp_path_factory.mktemp("images")
    scene = write_scenes(folder / "scenes", images={"train": 3}) / "train" / "02.png"
    (folder / "in").mkdir()
    with Image.open(scene) as image:
        for name, size in SIZES.items():
            image.resize(size).save(folder / "in" / f"{name}.png")
        image.resize((3000, 2000)).convert("L").save(folder / "in" / "gray.png")
        for name, size in {"pixel": (1, 1), "line": (90, 1), "column": (2, 300)}.items():
            image.resize(size).save(folder / "in" / f"{name}.png")
    return folder / "in"


@pytest.fixture(scope="module")
def predicted(trained, images, tmp_path_factory):
    """The folder of `predict` on the images, and its rows."""
    output = tmp_path_factory.mktemp("predictions") / "out"
    code, _, errors = run(
        trained.kind,
        "predict --batch-size 3 --device cpu",
        model=trained.best,
        input=images,
        output=output,
        score=SCORE,
    )
    assert code == 0, errors
    return SimpleNamespace(folder=output, rows=read_rows(output / "predictions.jsonl"))


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_ids(path):
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.array(image).astype(int) @ [1, 256, 65536]


# train and evaluate --------------------


def test_a_run_learns_and_its_best_folder_is_scored_alike_by_evaluate(trained):
    status = json.loads((trained.output / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 60)
    lines = read_rows(trained.output / "metrics.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == 60 and np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    (logged,) = [line["metrics"] for line in lines if line["kind"] == "eval"]
    out = trained.output.parent / "evaluated.json"
    settings = {"score": 0.5} if trained.kind == "panoptic" else {}  # that of the recipe for tiny
    code, printed, _ = run(
        trained.kind,
        "evaluate --json",
        model=trained.best,
        data=trained.data,
        output=out,
        **settings,
    )
    scores = json.loads(printed, parse_constant=pytest.fail)  # NaN is no json
    assert code == 0 and scores == json.loads(out.read_text())
    undefined = [name for name, score in logged.items() if score is None]
    assert [name for name, score in scores.items() if score is None] == undefined
    assert all(scores[name] == pytest.approx(logged[name], rel=1e-5)
               for name in logged.keys() - undefined)  # fmt: skip
    assert scores.keys() == logged.keys()
    key = "pq_stuff" if trained.kind == "panoptic" else "mAP50"
    assert scores[key] > 0.01 and scores["val_loss"] < losses[0]
    per_class = json.loads((out.parent / "evaluated_per_class.json").read_text())
    names = [name for name, (_, _, is_thing) in CLASSES.items()
             if is_thing or trained.kind == "panoptic"]  # fmt: skip
    assert list(per_class) == names


def test_a_lower_score_finds_more_segments(trained):
    if trained.kind == "instance":
        pytest.skip("all scores of instances count")

    def recognized(score):
        arguments = {"model": trained.best, "data": trained.data, "score": score}
        return json.loads(run("panoptic", "evaluate --json", **arguments)[1])

    at_half, certain = recognized(0.5), recognized(0.999)
    assert certain["pq_at_half"] == at_half["pq"] > certain["pq"] == 0


# predict --------------------


def test_predictions_have_the_size_of_the_file_and_belong_together(trained, predicted, images):
    names = sorted(path.name for path in images.iterdir())
    assert [row["file"] for row in predicted.rows] == names
    assert sum(len(row["segments"]) for row in predicted.rows) > 4
    for row in predicted.rows:
        with Image.open(images / row["file"]) as image:
            assert image.size == (row["width"], row["height"])
        scores = [segment["score"] for segment in row["segments"]]
        assert all(SCORE <= score <= 1 for score in scores)
        for segment in row["segments"]:
            left, top, width, height = segment["box"]
            assert 0 < segment["area"] <= width * height
            assert left + width <= row["width"] and top + height <= row["height"]


def test_panoptic_files_agree_with_the_rows(trained, predicted):
    if trained.kind == "instance":
        pytest.skip("instances have no PNG")
    content = json.loads((predicted.folder / "panoptic.json").read_text())
    assert [(row["name"], row["isthing"]) for row in content["categories"]] == [
        (name, is_thing) for name, (_, _, is_thing) in CLASSES.items()
    ]
    annotations = {each["file_name"]: each for each in content["annotations"]}
    for row in predicted.rows:
        annotation = annotations[row["file"].replace(".jpg", ".png")]
        ids = read_ids(predicted.folder / "segments" / annotation["file_name"])
        assert ids.shape == (row["height"], row["width"])
        counted = {int(i): int((ids == i).sum()) for i in np.unique(ids) if i}
        assert {each["segment"]: each["area"] for each in row["segments"]} == counted
        assert {each["id"]: each["area"] for each in annotation["segments_info"]} == counted
        stuff = [each["label"] for each in row["segments"] if not CLASSES[each["label"]][2]]
        assert len(stuff) == len(set(stuff)), "one segment for each stuff class"


def test_instance_files_agree_with_the_rows(trained, predicted):
    if trained.kind == "panoptic":
        pytest.skip("panoptic segments have no run lengths")
    results = json.loads((predicted.folder / "coco_results.json").read_text())
    assert len(results) == sum(len(row["segments"]) for row in predicted.rows)
    for row in predicted.rows:
        scores = [segment["score"] for segment in row["segments"]]
        assert scores == sorted(scores, reverse=True)
        for segment in row["segments"]:
            assert segment["mask"]["size"] == [row["height"], row["width"]]
            (mask,) = decode([segment["mask"]["counts"]], row["height"], row["width"])
            assert mask.sum() == segment["area"]
    categories = {result["category_id"]: result["category_name"] for result in results}
    assert categories.items() <= {0: "car", 1: "dog"}.items()


# export --------------------


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("export") / "out"
    code, printed, _ = run(trained.kind, "export", model=trained.best, output=output)
    assert code == 0 and "read back bit for bit" in printed
    return output


def test_transformers_gives_the_same_panoptic_segments(trained, exported, predicted, images):
    if trained.kind == "instance":
        pytest.skip("transformers paints overlapping masks over each other")
    model = AutoModelForUniversalSegmentation.from_pretrained(exported).eval()
    processor = AutoImageProcessor.from_pretrained(exported)
    stuff = [i for i, is_thing in enumerate(model.config.is_thing) if not is_thing]
    assert stuff == [2, 3]
    rows = {row["file"]: row for row in predicted.rows}
    for name, (width, height) in SIZES.items():
        inputs = processor(Image.open(images / f"{name}.png").convert("RGB"), return_tensors="pt")
        assert inputs["pixel_values"].shape == (1, 3, 64, 64)
        with torch.no_grad():
            outputs = model(inputs["pixel_values"])
        theirs = processor.post_process_panoptic_segmentation(
            outputs, target_sizes=[(height, width)], threshold=SCORE, stuff_classes=stuff
        )[0]
        segments = rows[f"{name}.png"]["segments"]
        expected = [(each["label_id"], round(each["score"], 3)) for each in theirs["segments_info"]]
        assert [(each["id"], round(each["score"], 3)) for each in segments] == expected
        ours = read_ids(predicted.folder / "segments" / f"{name}.png")
        labels = {each["id"]: i + 1 for i, each in enumerate(theirs["segments_info"])}
        others = np.vectorize(lambda i, labels=labels: labels.get(i, 0))(theirs["segmentation"])
        assert (ours != others).mean() <= 2e-3, name  # two queries may own a pixel alike
        assert segments


def test_the_code_of_the_model_card_prints_what_predict_found(
    trained, exported, images, tmp_path, monkeypatch, capsys
):
    _, _, rest = (exported / "README.md").read_text().partition("```python\n")
    code = rest.partition("```")[0]
    assert '"THIS FOLDER"' in code and '"image.jpg"' in code
    with Image.open(images / "large.png") as image:
        image.save(tmp_path / "image.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("THIS FOLDER", str(exported)), "card", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    score = 0.5 if trained.kind == "instance" else 0.8
    run(trained.kind, "predict", model=exported, input=tmp_path / "image.jpg",
        output=tmp_path / "out", score=score)  # fmt: skip
    (row,) = read_rows(tmp_path / "out" / "predictions.jsonl")
    assert len(printed) == len(row["segments"])
    for line, segment in zip(sorted(printed), sorted_segments(row), strict=True):
        name, probability, area, unit = line.split()
        assert (name, unit) == (segment["label"], "pixels")
        assert float(probability) == pytest.approx(segment["score"], abs=2e-3)
        assert int(area) == pytest.approx(segment["area"], abs=50 + 0.001 * int(area))


def sorted_segments(row):
    """The segments of a row in the order of lines that begin with class and score."""
    key = [f"{each['label']} {round(each['score'], 3)}" for each in row["segments"]]
    return [row["segments"][i] for i in sorted(range(len(key)), key=key.__getitem__)]


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs the onnx extra",
)
def test_export_to_onnx_agrees_with_pytorch(trained, tmp_path):
    code, printed, _ = run(
        trained.kind, "export --onnx", model=trained.best, output=tmp_path / "out"
    )
    assert code == 0 and "a batch of any size; onnxruntime and PyTorch agree" in printed
    assert (tmp_path / "out" / "model.onnx").exists()


# replay and health --------------------


def test_replay_gives_the_losses_of_a_step_bit_for_bit(trained, tmp_path):
    (row,) = [
        row for row in read_rows(trained.output / "metrics.jsonl")
        if row["kind"] == "train" and row["step"] == 31
    ]  # fmt: skip
    code, printed, _ = run(
        trained.kind, "replay --step 31 --json", run=trained.output, output=tmp_path / "out"
    )
    report = json.loads(printed)
    assert code == 0 and report["losses"] == {name: row[name] for name in report["losses"]}
    assert set(report["losses"]) == {"loss", "loss_class", "loss_mask", "loss_dice"}
    assert report["gradient_norm"] == row["grad_norm"] and report["weights"]["exact"]
    (sheet,) = report["images"]
    assert np.array(Image.open(tmp_path / "out" / sheet)).std() > 10


@pytest.mark.parametrize("kind", LAUNCHERS)
def test_health_reports_a_usable_machine(kind):
    code, printed, _ = run(kind, "health --json", device="cpu")
    assert code == 0 and json.loads(printed)["usable"] is True


# wrong input --------------------


def one_line(result, *parts):
    code, _, errors = result
    (line,) = [line for line in errors.splitlines() if line.startswith("error")]
    assert code == 2 and all(part in line for part in parts), errors


@pytest.mark.parametrize("kind", LAUNCHERS)
def test_a_semantic_folder_is_refused_in_one_line(kind, trained, data, images, tmp_path):
    content = json.loads((trained.best / PROCESSOR_FILE).read_text())
    for path in trained.best.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / PROCESSOR_FILE).unlink()
    (tmp_path / PROCESSOR_FILE).write_text(json.dumps(content | {"do_split_image": True}))
    for result in (
        run(kind, "evaluate", model=tmp_path, data=data),
        run(kind, "predict", model=tmp_path, input=images, output=tmp_path / "out"),
    ):
        one_line(result, f"--model {tmp_path}: a semantic segmenter")


def test_data_of_instances_alone_is_no_panoptic_data(tmp_path):
    write_instances(tmp_path / "data")
    result = run("panoptic", f"train {TRAINING}", data=tmp_path / "data", output=tmp_path / "run")
    one_line(result, str(tmp_path / "data"), "panoptic_train.json")


@pytest.mark.parametrize("option", ["score", "overlap"])
def test_shares_beyond_one_are_refused(option, data, tmp_path):
    arguments = {"model": tmp_path, "data": data, option: 1.5}
    one_line(run("panoptic", "evaluate", **arguments), f"--{option}", "1.5")
