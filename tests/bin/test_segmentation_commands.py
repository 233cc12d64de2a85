"""The commands of segmentation, on a model that is trained for sixty steps."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

from visionloop.bin import segmentation
from visionloop.datasets.synthetic.segmentation import CLASSES, draw_scene, write_segmentation
from visionloop.engine.train import train
from visionloop.tasks.segmentation.drawing import class_colors
from visionloop.tasks.segmentation.semantic.task import SemanticTask

commands = segmentation.commands  # what the fixture `command` runs

SMALL = "--model tiny --image-size 32 --batch-size 4 --device cpu --precision fp32 --steps 8"
SCORES = {"miou", "pixel_accuracy", "mean_class_accuracy"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images to train on, four to evaluate on, of different sizes."""
    folder = tmp_path_factory.mktemp("data")
    write_segmentation(folder, 0, images={"train": 8, "val": 4})
    return folder


@pytest.fixture(scope="module")
def best(data, tmp_path_factory):
    """best/ of a run long enough that several classes are predicted and annealing has ended."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train(
        SemanticTask,
        data=str(data),
        model="tiny",
        image_size=32,
        steps=60,
        batch_size=8,
        eval_every=0,
        workers=0,
        threads=1,
        output=str(output),
        precision="fp32",
        device="cpu",
    )
    return output / "best"


@pytest.fixture(scope="module")
def masked(best, tmp_path_factory):
    """The same weights with masked attention on, which transformers' forward and ours both read."""
    folder = tmp_path_factory.mktemp("masked")
    task, module = SemanticTask.load_trained(best)
    module.mask_probs = [1.0] * len(module.mask_probs)
    task.save(module, module.state_dict(), folder)
    return folder


@pytest.fixture(scope="module")
def predicted(best, data, tmp_path_factory):
    """Return the folder of `predict` for the validation images."""
    output = tmp_path_factory.mktemp("predictions") / "out"
    with pytest.raises(SystemExit) as left:
        commands.main(
            [
                "predict",
                "--model",
                str(best),
                "--input",
                str(data / "images" / "val"),
                "--output",
                str(output),
            ]
        )
    assert left.value.code == 0
    return output


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_ids(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


# evaluate --------------------


def test_evaluate_prints_what_the_run_had_scored(command, best, data, tmp_path):
    code, printed, _ = command(
        "evaluate --json", model=best, data=data, output=tmp_path / "out" / "scores.json"
    )
    scores = json.loads(printed, parse_constant=pytest.fail)  # NaN is no json
    assert code == 0 and set(scores) == {*SCORES, "val_loss"}
    (logged,) = [
        row["metrics"] for row in read_rows(best.parent / "metrics.jsonl") if row["kind"] == "eval"
    ]
    assert scores == pytest.approx(logged, rel=1e-5)
    assert (
        json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=pytest.fail)
        == scores
    )
    per_class = json.loads(
        (tmp_path / "out" / "scores_per_class.json").read_text(), parse_constant=pytest.fail
    )
    assert list(per_class) == list(CLASSES)
    for tag in ("confusion", "iou"):
        with Image.open(tmp_path / "out" / f"scores_{tag}.png") as image:
            assert np.array(image).std() > 10


def test_the_table_has_a_line_for_each_class(command, best, data):
    code, printed, _ = command("evaluate", "--model", best, "--data", data)
    head, rows = printed.split("\n\n")
    assert code == 0 and "4 images" in head and "mIoU" in head and "nan" not in printed
    lines = rows.splitlines()
    assert lines[0].split()[0] == "class" and [line.split()[0] for line in lines[1:]] == list(
        CLASSES
    )
    assert len({len(line) for line in lines}) == 1  # aligned


def test_scores_of_every_level_stand_beside_the_last_ones(command, best, data):
    scores = json.loads(command("evaluate", "--model", best, "--data", data, "--json")[1])
    code, printed, _ = command(
        "evaluate", "--model", best, "--data", data, "--json", "--score-levels"
    )
    levels = json.loads(printed)
    assert code == 0 and set(levels) == {*scores, "miou_level_0", "miou_level_1"}
    assert {name: levels[name] for name in scores} == scores  # looking at a level changes nothing
    assert all(0 < levels[f"miou_level_{i}"] < 1 for i in range(2))
    assert (
        "mIoU before query block 1"
        in command("evaluate", "--model", best, "--data", data, "--score-levels")[1]
    )
    code, _, errors = command("evaluate", "--predictions", "p", "--data", data, "--score-levels")
    assert code == 2 and errors == "error: --score-levels: needs --model\n"


def test_saved_predictions_have_the_scores_of_the_model(command, best, data, predicted):
    scores = json.loads(command("evaluate", "--model", best, "--data", data, "--json")[1])
    for path in (predicted, predicted / "ids"):
        code, printed, _ = command("evaluate", "--predictions", path, "--data", data, "--json")
        evaluated = json.loads(printed)
        assert code == 0 and {key: evaluated[key] for key in SCORES} == {
            key: scores[key] for key in SCORES
        }
        assert evaluated.get("val_loss") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--predictions", "no-such-folder"),
            "--predictions no-such-folder: expected a folder of masks",
        ),
        (
            ("--model", "m", "--save-predictions", "x.json"),
            "--save-predictions x.json: predictions of segmentation cannot be saved",
        ),
        (("--model", "no-such-folder"), "--model no-such-folder: no such folder"),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(command, data, arguments, message):
    code, _, errors = command("evaluate", "--data", data, *arguments)
    assert code == 2 and errors.startswith(f"error: {message}") and errors.count("\n") == 1


# predict --------------------


def test_predict_writes_ids_colors_images_and_shares(predicted, data):
    rows = read_rows(predicted / "predictions.jsonl")
    assert [row["file"] for row in rows] == [f"000{i}.jpg" for i in range(4)]
    table = class_colors(CLASSES)
    for row in rows:
        stem = row["file"].removesuffix(".jpg")
        ids = read_ids(predicted / "ids" / f"{stem}.png")
        with Image.open(data / "images" / "val" / row["file"]) as image:
            assert image.size == (row["width"], row["height"]) == ids.shape[::-1]
        assert {one["id"]: one["label"] for one in row["classes"]} == {
            int(i): CLASSES[i] for i in np.unique(ids)
        }
        shares = [one["share"] for one in row["classes"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares == pytest.approx(
            [(ids == one["id"]).mean() for one in row["classes"]], abs=1e-6
        )
        with Image.open(predicted / "colors" / f"{stem}.png") as image:
            assert np.array_equal(np.array(image), table[ids])
        with Image.open(predicted / "images" / row["file"]) as image:
            assert max(image.size) >= 640
    with Image.open(predicted / "contact_sheet.png") as image:
        assert np.array(image).std() > 10


def test_two_images_with_one_stem_get_masks_of_their_own(command, best, data, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    source = data / "images" / "val" / "0000.jpg"
    for name in ("a.jpg", "b.jpg", "deep/a.jpg"):
        shutil.copy(source, tmp_path / "in" / name)
    for name in ("a.png", "a.jpg.jpg"):
        Image.open(source).save(tmp_path / "in" / name)
    code, _, _ = command(
        "predict", "--model", best, "--input", tmp_path / "in", "--output", tmp_path / "out"
    )
    masks = {
        path.relative_to(tmp_path / "out" / "ids").as_posix()
        for path in (tmp_path / "out" / "ids").rglob("*.png")
    }
    assert code == 0 and masks == {"a.jpg.png", "a.png.png", "a.jpg.jpg.png", "b.png", "deep/a.png"}


def test_a_broken_image_does_not_stop_predict(command, best, data, tmp_path):
    shutil.copytree(data / "images" / "val", tmp_path / "in")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    code, printed, errors = command(
        "predict --json", model=best, input=tmp_path / "in", output=tmp_path / "out"
    )
    assert (
        code == 2
        and "predicted 4 of 5 images" in errors
        and f"error: {tmp_path / 'in' / 'broken.jpg'}: " in errors
    )
    rows = read_rows(tmp_path / "out" / "predictions.jsonl")
    assert [("error" in row) for row in rows] == [False] * 4 + [True] and [
        json.loads(line) for line in printed.splitlines()
    ] == rows
    assert len(list((tmp_path / "out" / "ids").iterdir())) == 4


def test_predict_takes_large_thin_and_small_images(command, best, tmp_path):
    (tmp_path / "in").mkdir()
    sizes = {
        "large": (2048, 1536),
        "thin": (1024, 16),
        "tall": (16, 1024),
        "small": (7, 5),
        "line": (40, 1),
    }  # width x height
    for name, size in sizes.items():
        Image.fromarray(draw_scene(np.random.default_rng(0))[0]).resize(size).save(
            tmp_path / "in" / f"{name}.png"
        )
    code, _, _ = command(
        "predict --batch-size 3", model=best, input=tmp_path / "in", output=tmp_path / "out"
    )
    assert code == 0
    for name, size in sizes.items():
        assert read_ids(tmp_path / "out" / "ids" / f"{name}.png").shape == size[::-1]


# check --------------------


def test_check_prints_shares_and_costs_and_writes_the_sheet(command, data, tmp_path):
    code, printed, errors = command(
        "check", "--data", data, *SMALL.split(), "--json", "--sheet", tmp_path / "new" / "sheet.png"
    )
    report = json.loads(printed)
    assert (
        code == 0
        and set(report) == {"errors", "warnings", "classes", "estimate"}
        and report["errors"] == []
    )
    assert list(report["classes"]) == list(CLASSES) and all(
        number > 0 for number in report["classes"].values()
    )
    assert set(report["estimate"]) == {"memory_gib", "disk_gib", "seconds"} and all(
        value > 0 for value in report["estimate"].values()
    )
    assert all(
        errors.count(f"warning: {row['path']}: {row['why']}") == 1 for row in report["warnings"]
    )
    sheet = np.array(Image.open(tmp_path / "new" / "sheet.png"))
    left, right = np.array_split(sheet, 2, axis=1)
    assert min(sheet.shape[:2]) > 500 and left.std() > 20 and right.std() > 20


def test_lines_for_people_are_printed_without_json(command, data):
    code, printed, _ = command("check", "--data", data, *SMALL.split())
    assert code == 0 and "8 images in train" in printed and "pixels in train: ground " in printed
    assert printed.splitlines()[-1].startswith("0 error(s)")


def test_every_broken_pair_is_a_line_that_names_its_file(command, data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    images, masks = folder / "images" / "train", folder / "masks" / "train"
    (images / "0001.jpg").write_bytes(b"")
    Image.fromarray(np.full((3, 4), 1, dtype=np.uint8)).save(masks / "0002.png")
    ids = np.array(Image.open(masks / "0003.png"))
    ids[0] = 77
    Image.fromarray(ids).save(masks / "0003.png")
    code, printed, errors = command("check", "--data", folder, *SMALL.split(), "--json")
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (
        code == 2
        and [f"error: {row['path']}: {row['why']}" for row in json.loads(printed)["errors"]]
        == lines
    )
    assert len(lines) == 3 and json.loads(printed)["estimate"] == {
        "memory_gib": None,
        "disk_gib": None,
        "seconds": None,
    }
    assert f"error: {images / '0001.jpg'}: empty file" in lines
    assert any(
        line.startswith(f"error: {masks / '0002.png'}: is 3 x 4 (height x width), its image ")
        for line in lines
    )
    assert any(str(masks / "0003.png") in line and "77" in line for line in lines)
    # training looks at the names first and meets the rest on its way: one line either way
    code, _, errors = command(
        "train", "--data", folder, *SMALL.split(), "--output", tmp_path / "run", "--workers", 0
    )
    assert code == 2 and errors.count("error: ") == 1 and str(folder) in errors


def test_a_folder_without_masks_is_reported_in_one_line_by_every_command(
    command, best, data, tmp_path
):
    (tmp_path / "data").mkdir()
    shutil.copytree(data / "images", tmp_path / "data" / "images")
    shutil.copy(data / "classes.json", tmp_path / "data")
    runs = (
        ("check", *SMALL.split()),
        ("train", *SMALL.split(), "--output", tmp_path / "run"),
        ("evaluate", "--model", best),
    )
    for name, *arguments in runs:
        code, _, errors = command(name, "--data", tmp_path / "data", *arguments)
        splits = {"check": ["train", "val"], "train": ["train"], "evaluate": ["val"]}[name]
        assert code == 2 and len(errors.splitlines()) == len(splits)
        for split, line in zip(splits, errors.splitlines(), strict=True):
            folder = tmp_path / "data" / "masks" / split
            expected = f"error: {folder}: no such folder; expected a mask x.png"
            assert line.startswith(expected), name
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_segmenter_overfits_four_images(command, data):
    code, printed, errors = command(
        f"check {SMALL} --image-size 64 --threads 1 --overfit 4", data=data
    )
    assert code == 0 and "error" not in errors
    (line,) = [
        line for line in printed.splitlines() if line.startswith("4 images overfitted: mIoU ")
    ]
    assert float(line.split()[4]) >= 100 * SemanticTask.overfit_goal[1]


# export --------------------


@pytest.mark.parametrize("kind", ["best", "masked"])
def test_export_gives_transformers_the_same_masks(command, kind, tmp_path, request):
    source = request.getfixturevalue(kind)
    code, printed, _ = command("export", "--model", source, "--output", tmp_path / "out")
    assert code == 0 and "read back bit for bit" in printed
    model = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "out").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert model.attn_mask_probs.tolist() == ([0, 0] if kind == "best" else [1, 1])
    # width x height; one window and several, larger and smaller than them, both ways; where
    # rounding the longer side is flooring it
    sizes = [
        (32, 32),
        (40, 32),
        (32, 40),
        (160, 96),
        (96, 160),
        (300, 100),
        (24, 16),
        (64, 640),
        (133, 200),
    ]
    (tmp_path / "in").mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(draw_scene(np.random.default_rng(i))[0]).resize(size).save(
            tmp_path / "in" / f"{i}.png"
        )
    assert (
        command("predict", model=source, input=tmp_path / "in", output=tmp_path / "predictions")[0]
        == 0
    )
    predicted_ids = set()
    for i, (width, height) in enumerate(sizes):
        inputs = processor(
            Image.open(tmp_path / "in" / f"{i}.png").convert("RGB"), return_tensors="pt"
        )
        with torch.no_grad():
            outputs = model(inputs["pixel_values"], patch_offsets=inputs["patch_offsets"])
        theirs = processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(height, width)]
        )[0].numpy()
        ours = read_ids(tmp_path / "predictions" / "ids" / f"{i}.png")
        assert (ours != theirs).mean() <= 1e-3, (
            width,
            height,
        )  # scores of two classes may be equal to the last digit
        predicted_ids |= set(np.unique(ours).tolist())
    assert len(predicted_ids) > 1


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs the onnx extra",
)
@pytest.mark.parametrize("kind", ["best", "masked"])
def test_export_to_onnx_agrees_with_pytorch(command, kind, tmp_path, request):
    code, printed, _ = command(
        "export", "--model", request.getfixturevalue(kind), "--output", tmp_path / "out", "--onnx"
    )
    assert code == 0 and "a batch of any size; onnxruntime and PyTorch agree" in printed
    assert (tmp_path / "out" / "model.onnx").exists()
