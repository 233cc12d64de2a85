"""The benchmark of scores on a few made-up images, and of a whole evaluation."""

import json
import math

import pytest
import torch
from click.testing import CliRunner

from visionloop.bin.benchmarks.evaluation import PARTS, evaluation
from visionloop.bin.benchmarks.scores.sides import installed, sides_of, take, worst_difference
from visionloop.bin.benchmarks.scores.whole_evaluation import (
    compare_precisions,
    evaluation_parts,
    network_in,
    trained_task,
)
from visionloop.datasets.synthetic.writers import write_classification
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.precision import build_precision

CPU = torch.device("cpu")
TASKS = ("classification", "detection", "segmentation", "super_resolution")
SCORES = {
    "classification": "accuracy",
    "detection": "mAP",
    "segmentation": "miou",
    "super_resolution": "ssim",
}


@pytest.mark.parametrize("task_name", TASKS)
def test_all_sides_give_our_scores_and_are_timed(task_name, tmp_path):
    small = [
        "--images",
        "10",
        "--image-side",
        "40",
        "--classes",
        "5",
        "--batch-size",
        "4",
        "--repeats",
        "1",
        "--steps",
        "0",
    ]
    result = CliRunner().invoke(
        evaluation,
        ["--task", task_name, *small, "--device", "cpu", "--json", str(tmp_path / "rows.json")],
    )
    assert result.exit_code == 0, result.output
    ours, *others = (json.loads(line) for line in (tmp_path / "rows.json").read_text().splitlines())
    assert ours["side"] == "ours" and ours["against"] is None and ours["images_per_second"] > 0
    assert len(others) >= 1 + ("torchmetrics" in installed())
    for row in others:
        assert (
            row["largest_difference"] <= row["tolerance"]
            and row["times_as_long"] > 0
            and row["update_ms"] >= 0
        )


@pytest.mark.parametrize("task_name", TASKS)
def test_made_up_answers_are_neither_all_right_nor_all_wrong(task_name):
    batches, sides = sides_of(task_name, CPU, images=12, side=48, classes=4, batch_size=8)
    scores = take(sides["ours"], batches, CPU).scores
    assert 0.1 < scores[SCORES[task_name]] < 0.99
    assert scores == take(sides["ours"], batches, CPU).scores
    ids = [sample for answers in batches for sample in answers.make()[1]["sample_ids"].tolist()]
    assert ids == list(range(12))


def test_a_score_that_differs_is_named():
    with pytest.raises(AssertionError, match=r"miou: 0\.6 by theirs, expected 0\.5"):
        worst_difference("theirs", {"miou": 0.6, "other": 1.0}, {"miou": 0.5}, 1e-3)
    with pytest.raises(AssertionError, match="miou: nan by theirs"):
        worst_difference("theirs", {"miou": math.nan}, {"miou": 0.5}, 1e-3)
    with pytest.raises(AssertionError, match="theirs has none of the scores miou"):
        worst_difference("theirs", {}, {"miou": 0.5}, 1e-3)
    assert (
        worst_difference(
            "theirs", {"a": math.nan, "b": 1.0}, {"a": math.nan, "b": 1.25, "c": 0.0}, 0.5
        )
        == 0.25
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(task, module, validation set) of a few images after one step."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "images").mkdir()
    write_classification(folder / "images", 0, images={"train": 8, "val": 8})
    flags = {
        "data": str(folder / "images"),
        "model": "tiny",
        "image_size": 32,
        "batch_size": 4,
        "threads": 1,
        "steps": 1,
    }
    return trained_task("classification", flags, CPU, folder)


def test_the_parts_of_an_evaluation_add_up_and_its_scores_are_the_engines(trained):
    task, module, dataset = trained
    seconds, scores = evaluation_parts(task, module, dataset, CPU, 4, build_precision("fp32", CPU))
    assert set(seconds) == set(PARTS) and min(seconds.values()) > 0
    assert scores == evaluate_dataset(task, module, dataset, batch_size=4).compute()
    assert "predict" not in vars(task) and "forward" not in vars(module)


def test_a_network_in_bf16_answers_in_float32_and_otherwise(trained):
    _, module, _ = trained
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = module(pixel_values=pixels).logits
        with network_in(build_precision("bf16", CPU), module):
            rounded = module(pixel_values=pixels).logits
        assert torch.equal(plain, module(pixel_values=pixels).logits)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - plain).abs().max() < 0.1


def test_both_precisions_are_compared_on_the_same_images(trained):
    task, module, dataset = trained
    (full, half), agreement = compare_precisions(
        task, module, dataset, CPU, batch_size=4, repeats=1
    )
    assert (full["precision"], half["precision"], full["images"]) == ("fp32", "bf16", 8)
    for row in (full, half):
        assert sum(row[f"{part}_percent"] for part in PARTS) == pytest.approx(100, abs=0.3)
    assert agreement["bf16_agrees"] == ("yes" if agreement["largest_difference"] <= 1e-4 else "no")
    assert agreement["bf16_forward_times_faster"] > 0
