"""The benchmark of `predict`: it is the command's own way that is measured, and all of it is accounted for."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image
from segmentation_files import write_segmentation_data
from super_resolution_files import write_super_resolution_data
from torchrun_runs import write_classification

from visionloop.bin.benchmarks.predict import predict
from visionloop.bin.benchmarks.predict_cases import (
    Case,
    gather_images,
    measure_cases,
    run_once,
    watch,
    write_random,
)
from visionloop.bin.commands.predict import run_predict
from visionloop.engine.errors import UserError

OPTIONS = {"threads": 1, "device": "cpu"}
DATA = {
    "classification": write_classification,
    "segmentation": lambda folder: write_segmentation_data(folder, images=4),
    "super_resolution": lambda folder: write_super_resolution_data(
        folder, images=4, size_hw=(80, 80)
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(task) -> (data folder, folder with a model of random weights), made once."""
    made = {}

    def make(task_name):
        if task_name not in made:
            root = tmp_path_factory.mktemp(task_name)
            (root / "data").mkdir()
            write_random(task_name, "tiny", str(DATA[task_name](root / "data")), root / "model")
            made[task_name] = root / "data", root / "model"
        return made[task_name]

    return make


def test_images_are_spread_over_the_folder_and_come_again_where_it_has_too_few(tmp_path):
    (tmp_path / "some").mkdir()
    for shade in range(4):
        Image.new("RGB", (8, 6), (shade, 0, 0)).save(tmp_path / "some" / f"{shade}.png")

    def shades(number, size_wh=None):
        gather_images(tmp_path / "some", tmp_path / f"{number}", number, size_wh)
        images = [Image.open(path) for path in sorted((tmp_path / f"{number}").iterdir())]
        return [image.getpixel((0, 0))[0] for image in images], {image.size for image in images}

    assert shades(2) == ([0, 2], {(8, 6)})
    assert shades(8, (5, 7)) == ([0, 0, 1, 1, 2, 2, 3, 3], {(5, 7)})


def test_a_watched_run_answers_as_predict_does_and_batches_follow_each_other(trained, tmp_path):
    data, folder = trained("classification")
    gather_images(data / "val", tmp_path / "images", 5, None)
    watched = watch("classification", folder, None, OPTIONS)
    batches, seconds, inputs = run_once(watched, tmp_path, Case("fp32", None, 2))
    assert len(batches) == 3 and inputs == 5
    for batch in batches:
        assert batch.began < batch.read < batch.answered < batch.written
    assert [batch.written for batch in batches[:-1]] == [batch.began for batch in batches[1:]]
    assert batches[-1].written - batches[0].began < seconds
    run_predict(
        type(watched.task), model=folder, input_path=tmp_path / "images", output=tmp_path / "own", batch_size=2, device="cpu",
        as_json=False, explanations=(), settings={},
    )  # fmt: skip
    assert (tmp_path / "own" / "predictions.jsonl").read_bytes() == (
        tmp_path / "answers" / "predictions.jsonl"
    ).read_bytes()


def test_windows_of_segmentation_are_counted_in_both_precisions(trained, tmp_path):
    data, folder = trained("segmentation")
    gather_images(data / "images" / "val", tmp_path / "images", 2, (250, 100))
    cases = [Case(precision, None, 2) for precision in ("fp32", "bf16")]
    device, rows = measure_cases("segmentation", folder, tmp_path, cases, 1, OPTIONS)
    assert device == "cpu"
    for row in rows:
        assert row["inputs_per_image"] == 3  # of 96 px along 240
        assert row["reading_ms"] + row["network_ms"] + row["answers_ms"] == pytest.approx(
            row["batch_ms"], abs=0.1
        )
        assert row["batch_ms"] <= row["batch_p95_ms"] and row["images_per_second"] > 0


def test_tiles_that_see_far_enough_give_the_whole_image(trained, tmp_path):
    data, folder = trained("super_resolution")
    gather_images(data / "val" / "HR", tmp_path / "images", 1, (72, 72))
    cases = [Case("fp32", tile, 1) for tile in (0, 16)]
    _, (whole, tiled) = measure_cases("super_resolution", folder, tmp_path, cases, 1, OPTIONS)
    assert whole["inputs_per_image"] == 1 and whole["largest_difference"] == 0
    assert tiled["inputs_per_image"] == 4 and tiled["largest_difference"] <= 1 and tiled["exact"]


def test_a_image_that_cannot_be_read_ends_the_measurement(trained, tmp_path):
    _, folder = trained("classification")
    (tmp_path / "bad.png").write_bytes(b"no image")
    gather_images(tmp_path / "bad.png", tmp_path / "images", 1, None)
    with pytest.raises(UserError, match="not all images can be read"):
        run_once(watch("classification", folder, None, OPTIONS), tmp_path, Case("fp32", None, 1))
    with pytest.raises(UserError, match=r"bad\.png"):
        gather_images(tmp_path / "bad.png", tmp_path / "resized", 1, (8, 8))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--tile", "64"], "super_resolution alone has tiles"),
        (["--batch-size", "8", "--images", "4"], "no batch is full"),
        (["--image-size", "12"], "expected WIDTHxHEIGHT"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(arguments, why):
    result = CliRunner().invoke(predict, arguments)
    assert result.exit_code == 2 and why in result.output


@pytest.mark.slow
def test_the_command_has_a_row_for_each_case(trained, tmp_path):
    data, folder = trained("classification")
    few = [
        "--model",
        str(folder),
        "--input",
        str(data),
        "--repeats",
        "1",
        "--images",
        "4",
        "--device",
        "cpu",
    ]
    sizes = ["--batch-size", "1", "--batch-size", "4"]
    result = CliRunner().invoke(predict, [*few, *sizes, "--json", str(tmp_path / "rows")])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["precision"], row["batch_size"]) for row in rows] == [
        ("fp32", 1),
        ("fp32", 4),
        ("bf16", 1),
        ("bf16", 4),
    ]
    assert all(row["resident_mib"] >= 0 and "tile" not in row for row in rows)
