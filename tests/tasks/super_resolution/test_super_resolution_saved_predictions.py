"""Images in a folder: the same scores as in memory, their scale, and errors of a folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from super_resolution_files import some_image, write_image, write_super_resolution_data

from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.errors import UserError
from visionloop.metrics.super_resolution import SuperResolutionMetric
from visionloop.tasks.super_resolution.task import SuperResolutionTask

SET5 = Path(__file__).parents[3].parent / "shared" / "data" / "t91-set5"


@pytest.fixture
def data(tmp_path):
    """Four images in val/HR with val/LR_x2, sides not always even."""
    return write_super_resolution_data(tmp_path / "data", given=(2,))


def scored(path, data, split="val"):
    """(task, metric) of a folder."""
    return SuperResolutionTask.score_saved_predictions(path, data=data, split=split)


def ground_truth(data, scale=2):
    """{name of the image: uint8 [H, W, 3] of `scale` times the small one's size}."""
    images = {}
    for path in sorted((data / "val" / "HR").iterdir()):
        image = read_image(path).permute(1, 2, 0).numpy()
        images[path.name] = image[: len(image) // scale * scale, : image.shape[1] // scale * scale]
    return images


def write_predictions(folder, data, *, lines=True, scale=2, ending=""):
    """(folder as `predict` leaves it, the results in it)."""
    results = {
        name: np.clip(image.astype(int) + 5, 0, 255).astype(np.uint8)
        for name, image in ground_truth(data, scale).items()
    }
    for name, image in results.items():
        write_image(folder / "results" / name.replace(".png", f"{ending}.png"), image)
    if lines:
        rows = [{"file": name, "scale": scale} for name in results] + [
            {"file": "broken.png", "error": "truncated"}
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, results


def tensors(images):
    return [torch.from_numpy(image).permute(2, 0, 1) for image in images]


@pytest.mark.parametrize("part", ["", "results"])
@pytest.mark.parametrize("ending", ["", "x2"])
def test_files_score_as_the_images_in_memory(data, tmp_path, part, ending):
    path, results = write_predictions(
        tmp_path / "out", data, ending=ending
    )  # named like the large images, or like the small ones
    task, metric = scored(path / part, data)
    expected, large = SuperResolutionMetric(2), ground_truth(data)
    small = [
        read_image(data / "val" / "LR_x2" / name.replace(".png", "x2.png")).permute(1, 2, 0).numpy()
        for name in results
    ]
    bicubic = [matlab_resize(image, 2) for image in small]
    batch = {
        "hr": tensors(large.values()),
        "bicubic": tensors(bicubic),
        "sample_ids": torch.arange(4),
    }
    expected.update({"images": tensors(results.values())}, batch)
    assert (
        metric.compute() == expected.compute()
        and "val_loss" not in metric.compute()
        and len(metric) == 4
    )
    assert (
        metric.bicubic_scores() == expected.bicubic_scores()
        and 10 < metric.bicubic_scores()["bicubic PSNR"] < 40
    )
    assert (task.config.data, task.config.scale) == (str(data), 2)


@pytest.mark.skipif(not SET5.is_dir(), reason="Set5 is not here")
def test_bicubic_set5_scores_what_is_published(tmp_path):
    for path in (SET5 / "val" / "LR_x3").iterdir():
        write_image(
            tmp_path / path.name, matlab_resize(read_image(path).permute(1, 2, 0).numpy(), 3)
        )
    (tmp_path / "predictions.jsonl").write_text('{"file": "baby.png", "scale": 3}\n')
    _, metric = scored(tmp_path, SET5)
    assert metric.compute()["psnr"] == pytest.approx(30.4033, abs=5e-4) and metric.compute()[
        "ssim"
    ] == pytest.approx(0.8689, abs=5e-5)
    assert metric.bicubic_scores()["bicubic PSNR"] == metric.compute()["psnr"]


def test_the_scale_is_that_of_the_only_folder_of_small_images(data, tmp_path):
    path, _ = write_predictions(tmp_path / "out", data, lines=False)
    assert scored(path, data)[0].config.scale == 2
    shutil.copytree(data / "val" / "LR_x2", data / "val" / "LR_x4")
    assert "unknown scale: expected predictions.jsonl" in refusal(
        path, data
    ) and "LR_x2, LR_x4" in refusal(path, data)
    shutil.rmtree(data / "val" / "LR_x4"), shutil.rmtree(data / "val" / "LR_x2")
    assert "the data has no LR_x folder" in refusal(path, data)


def test_at_x1_there_is_no_baseline_and_no_border(data, tmp_path):
    path, results = write_predictions(tmp_path / "out", data, scale=1)
    _, metric = scored(path, data)
    assert metric.border == 0 and np.isnan(list(metric.bicubic_scores().values())).all()
    expected = np.mean(
        [
            10 * np.log10(255**2 / ((results[name] - one.astype(float)) ** 2).mean())
            for name, one in ground_truth(data, 1).items()
        ]
    )
    assert metric.compute()["psnr_rgb"] == pytest.approx(expected)


def refusal(path, data):
    with pytest.raises(UserError) as caught:
        scored(path, data)
    assert "\n" not in str(caught.value) and caught.value.field == "predictions"
    return str(caught.value)


def lines(*rows):
    return lambda out: (out / "predictions.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda out: (out / "results/v02.png").unlink(),
            "1 of 4 images have no result, the first is v02.png",
        ),
        (
            lambda out: write_image(out / "results/w.png", some_image("w", 9, 9)),
            "w.png: no image of the data has this name",
        ),
        (
            lambda out: write_image(out / "results/val/v00.png", some_image("w", 9, 9)),
            "val/v00.png: is for v00.png, and so is",
        ),
        (
            lambda out: write_image(out / "results/v00.png", some_image("w", 9, 8)),
            "is 9 x 8 (height x width), expected 50 x 62",
        ),
        (
            lambda out: (out / "results/v00.png").write_bytes(b"no image"),
            "v00.png: not an image",
        ),
        (lines({"file": "v00.png"}), "line 1: scale is missing, expected 1 to 8"),
        (
            lines({"file": "a", "scale": 2}, {"file": "b", "scale": 4}),
            "line 2: scale is 4, in an earlier line 2",
        ),
        (lines({"file": "a", "error": "truncated"}), "no line with a scale"),
    ],
)
def test_a_wrong_folder_is_reported_in_one_line(data, tmp_path, change, message):
    out, _ = write_predictions(tmp_path / "out", data)
    change(out)
    assert message in refusal(out, data)


def test_a_file_and_an_empty_folder_are_reported(data, tmp_path):
    assert "expected a folder of images" in refusal(data / "val/HR/v00.png", data)
    (tmp_path / "empty").mkdir()
    assert "4 of 4 images have no result" in refusal(tmp_path / "empty", data)


def test_unreadable_ground_truth_names_its_file(data, tmp_path):
    out, _ = write_predictions(tmp_path / "out", data)
    (data / "val/HR/v01.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"val/HR/v01\.png") as caught:
        scored(out, data)
    assert caught.value.field == "data"


def test_jpeg_results_are_read_too(data, tmp_path):
    for name, image in ground_truth(data).items():
        target = tmp_path / "out" / name.replace(".png", ".jpg")
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(target, quality=95)
    assert 25 < scored(tmp_path / "out", data)[1].compute()["psnr"] < 60
