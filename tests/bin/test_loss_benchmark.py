"""The benchmark of losses on small shapes."""

import json

import torch
from click.testing import CliRunner

from visionloop.bin.benchmarks.loss import loss
from visionloop.bin.benchmarks.loss_segmentation import random_answers


def test_both_losses_are_timed_and_their_host_reads_counted(tmp_path):
    small = [
        "--batch-size",
        "2",
        "--batch-size",
        "3",
        "--layers",
        "2",
        "--queries",
        "20",
        "--classes",
        "5",
        "--repeats",
        "1",
    ]
    result = CliRunner().invoke(loss, [*small, "--json", str(tmp_path / "loss.json")])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "loss.json").read_text().splitlines()]
    assert [row["batch_size"] for row in rows] == [2, 3]
    for row in rows:
        assert row["criterion_ms"] > 0 and row["library_ms"] > 0
        assert row["criterion_reads"] == {"cpu": 1}
        assert sum(row["library_reads"].values()) > 4
        assert "nonzero" in row["network_reads"]


def test_the_loss_of_masks_is_timed_in_all_its_ways(tmp_path):
    small = [
        "--task",
        "segmentation",
        "--shape",
        "2,2,5,8,3,32",
        "--shape",
        "1,3,4,6,2,100",
        "--classes",
        "5",
        "--repeats",
        "1",
    ]
    result = CliRunner().invoke(loss, [*small, "--json", str(tmp_path / "loss.json")])
    assert result.exit_code == 0, result.output
    first, second = (json.loads(line) for line in (tmp_path / "loss.json").read_text().splitlines())
    assert (first["batch_size"], first["levels"], second["points"], second["masks"]) == (
        2,
        2,
        100,
        2,
    )
    for row in (first, second):
        for way in ("criterion", "own_points", "dense"):
            assert row[f"{way}_ms"] > 0 and row[f"{way}_times_faster"] > 0
            assert row[f"{way}_reads"] == {"cpu": 1}
        assert row["library_reads"] == {"cpu": row["batch_size"] * row["levels"]}


def test_a_shape_that_is_none_is_refused():
    for shape in ("2,2,5", "1,1,1,1,1,0", "1,1,x,1,1,1"):
        result = CliRunner().invoke(loss, ["--task", "segmentation", "--shape", shape])
        assert result.exit_code == 2 and repr(shape) in result.output


def test_more_masks_than_classes_are_refused():
    result = CliRunner().invoke(
        loss, ["--task", "segmentation", "--shape", "1,1,1,4,6,1", "--classes", "5"]
    )
    assert (
        result.exit_code == 2
        and "6 masks of an image" in result.output
        and "5 classes" in result.output
    )


def test_random_masks_divide_their_image():
    shape = {"batch_size": 3, "levels": 2, "queries": 5, "grid": 8, "masks": 4, "points": 1}
    answers, masks, labels = random_answers(11, torch.device("cpu"), **shape)
    assert [values.shape[:3] for values in answers] == [(3, 2, 5)] * 2
    for maps, ids in zip(masks, labels, strict=True):
        assert (
            maps.shape[1:] == (32, 32)
            and (maps.sum(0) == 1).all()
            and len(maps) == len(ids.unique())
        )
