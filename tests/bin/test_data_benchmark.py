"""The benchmark of batches on a few images, and what an index keeps in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from visionloop.bin.benchmarks.data import data
from visionloop.bin.benchmarks.pipelines.index_memory import (
    INDEXES,
    columns_mib,
    made_up_paths,
    measure_index_memory,
)
from visionloop.bin.benchmarks.pipelines.proportional_memory import descendants, proportional_mib
from visionloop.bin.benchmarks.pipelines.settings import build_training, cache_beside, write_sample
from visionloop.bin.benchmarks.pipelines.sides import pipelines_of
from visionloop.bin.benchmarks.pipelines.stages import StageTurns, Watched, mean_side
from visionloop.engine.errors import UserError

TASKS = ("classification", "detection", "segmentation", "super_resolution")
INDICES = [0, 3, 5, 1]
on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="no /proc/PID/smaps_rollup"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{task: (task, training set)} of eight images, 80 px a side."""
    found = {}
    for name in TASKS:
        folder = write_sample(name, tmp_path_factory.mktemp(name), 8, 80)
        flags = {"data": folder, "model": "tiny", "image_size": None, "batch_size": 4}
        found[name] = build_training(name, flags, [])[:2]
    return found


@pytest.mark.parametrize("task_name", TASKS)
def test_every_pipeline_ends_with_floats_of_our_shape(built, task_name):
    task, dataset = built[task_name]
    ours = StageTurns(task, dataset).take(INDICES, 0)
    others, does = pipelines_of(task_name, task, dataset)
    assert list(others) == list(does) and len(others) >= 3
    for name, other in others.items():
        pixels = other.take(INDICES, 0)["pixel_values"]
        assert pixels.shape == ours.shape and pixels.dtype == ours.dtype == torch.float32, name
        # scaled and normalised alike; what is cut out differs, so do means
        assert (
            abs(pixels.mean() - ours.mean()) < 0.5 and pixels.max() <= 2.7 and pixels.min() >= -2.7
        ), name
        assert len(other.seconds) == 1


def test_a_processor_and_our_evaluation_give_the_same_pixels(built):
    task, dataset = built["classification"]
    others, _ = pipelines_of("classification", task, dataset)
    ours = torch.stack([task.read_sample(dataset.name(i))["pixel_values"] for i in INDICES])
    theirs = others["ViTImageProcessor"].take(INDICES, 0)
    assert torch.allclose(task.to_input({"pixel_values": ours}), theirs["pixel_values"], atol=0.02)
    assert theirs["labels"].tolist() == dataset.labels[INDICES].tolist()


def test_boxes_of_others_stay_inside_the_image(built):
    others, _ = pipelines_of("detection", *built["detection"])
    for other in others.values():
        for target in other.take(INDICES, 0)["labels"]:
            assert len(target["boxes"]) == len(target["class_labels"])
            assert ((target["boxes"] >= 0) & (target["boxes"] <= 1)).all()


def test_small_and_large_crops_of_others_show_the_same_part(built):
    task, dataset = built["super_resolution"]
    for other in pipelines_of("super_resolution", task, dataset)[0].values():
        batch = other.take(INDICES, 0)
        shrunk = torch.nn.functional.avg_pool2d(batch["hr"], task.scale)
        assert (shrunk - batch["pixel_values"]).abs().mean() < 0.03
        assert (shrunk.flip(-1) - batch["pixel_values"]).abs().mean() > 0.03


def test_stages_add_up_and_the_transform_is_left_as_it_was(built):
    task, dataset = built["segmentation"]
    stages = StageTurns(task, dataset)
    for turn in range(2):
        stages.take(INDICES, turn)
    assert not isinstance(dataset.transform, Watched)
    assert all(len(seconds) == 2 and min(seconds) >= 0 for seconds in stages.seconds.values())
    assert stages.whole == [sum(row) for row in zip(*stages.seconds.values(), strict=True)]
    assert stages.seconds["transform"][1] > 0


def test_the_command_tells_of_stages_loaders_and_pipelines(tmp_path):
    small = [
        "--task",
        "classification",
        "--image-side",
        "40",
        "--batch-size",
        "4",
        "--batches",
        "1",
        "--repeats",
        "1",
    ]
    result = CliRunner().invoke(
        data, [*small, "--workers", "0", "--workers", "1", "--json", str(tmp_path / "data.json")]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "data.json").read_text().splitlines()]
    assert [row["part"] for row in rows] == [
        "stages",
        "loader",
        "loader",
        "pipeline",
        "pipeline",
        "pipeline",
    ]
    assert all(row["image_mean_side"] == 40 and row["cache"] == "none" for row in rows)
    stages, (alone, one), others = rows[0], rows[1:3], rows[3:]
    assert stages["samples_per_second"] < min(
        stages[f"{stage}_per_second"] for stage in ("read", "transform", "collate", "to_input")
    )
    assert (alone["workers"], one["workers"]) == (0, 1) and alone[
        "samples_per_second_and_core"
    ] == alone["samples_per_second"] > 0
    for row in others:
        assert row["ours_per_second"] == stages["samples_per_second"]
        assert row["times_faster"] == pytest.approx(
            row["ours_per_second"] / row["samples_per_second"], rel=0.05
        )
        assert row["does"].startswith(("equal work", "less than ours"))


def test_settings_given_by_name_reach_the_data_set(tmp_path):
    folder = write_sample("segmentation", tmp_path, 8, 40)
    flags = {"data": folder, "model": "tiny", "image_size": 32, "batch_size": 4}
    task, dataset, config = build_training(
        "segmentation", flags, ["cache=ram", "hflip=false", "color=0", "batch-size=2"]
    )
    assert (
        task.config.cache == "ram" and dataset.transform.flip == 0 and dataset.transform.color == 0
    )
    assert (config.batch_size, config.micro_batch, task.image_size) == (2, 2, 32)


def test_what_is_no_setting_is_refused():
    for wrong in ("cache", "colour=1"):
        result = CliRunner().invoke(data, ["--set", wrong])
        assert result.exit_code == 2 and wrong in result.output
    result = CliRunner().invoke(data, ["--data", "images", "--image-side", "40"])
    assert result.exit_code == 2 and "one of the two" in result.output


def test_a_cache_of_sample_data_is_not_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    with cache_beside(tmp_path, own=True):
        folder = write_sample("super_resolution", tmp_path, 4, 60)
        flags = {"data": folder, "model": "tiny", "image_size": None, "batch_size": 2}
        build_training("super_resolution", flags, ["cache=disk"])
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "user")
    assert not (tmp_path / "user").exists() and any((tmp_path / "cache").iterdir())
    with cache_beside(tmp_path, own=False):
        assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "user")


@pytest.mark.parametrize("task_name", TASKS)
def test_sample_images_have_the_side_that_was_asked_for(tmp_path, task_name):
    folder = Path(write_sample(task_name, tmp_path, 8, 48))
    images = [
        path
        for path in folder.rglob("*")
        if path.suffix in (".jpg", ".png") and path.parent.name != "LR_x2"
    ]
    assert len(images) >= 16
    for path in images:
        with Image.open(path) as image:
            assert image.size == (48, 48)


def test_a_image_that_cannot_be_read_is_named(tmp_path):
    folder = Path(write_sample("classification", tmp_path, 8, 40))
    broken = sorted((folder / "train").rglob("*.jpg"))[0]
    broken.write_bytes(b"")
    task, dataset, _ = build_training(
        "classification",
        {"data": str(folder), "model": "tiny", "image_size": None, "batch_size": 4},
        [],
    )
    with pytest.raises(UserError, match=f"{broken.name}: empty file"):
        StageTurns(task, dataset).take([0], 0)


def test_the_mean_side_is_the_root_of_the_mean_area(built):
    assert mean_side(built["detection"][1], INDICES) == 80


def test_made_up_paths_differ():
    paths, starts, stops = made_up_paths(1234)
    found = {paths[start:stop] for start, stop in zip(starts, stops, strict=True)}
    assert len(found) == 1234 and b"class_0000/image_00001233.jpg" in found


@pytest.mark.parametrize("task_name", TASKS)
def test_a_made_up_index_can_be_read_to_its_end(task_name):
    index = INDEXES[task_name](50)
    assert len(index) == 50 and index.path(49).endswith("00000049.jpg")
    assert columns_mib(INDEXES[task_name](5000)) == pytest.approx(
        100 * columns_mib(index), rel=0.01
    )


@on_linux
def test_each_loader_process_adds_a_copy_of_the_index():
    none, two = measure_index_memory("detection", 300_000, [2, 0])
    assert (none["workers"], two["workers"]) == (0, 2) and none["worker_mib"] is None
    assert none["columns_mib"] > 100
    assert 0.8 < two["index_mib_per_worker"] / two["columns_mib"] < 1.5
    assert two["total_mib"] > two["index_mib"] > 2 * two["columns_mib"]
    assert two["worker_mib"] > two["columns_mib"]


@on_linux
def test_processes_below_this_one_are_found_with_their_memory():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        below = descendants(os.getpid())
        grandchild = next(pid for pid, parent in below.items() if parent == process.pid)
        assert below[process.pid] == os.getpid()
        assert 1 < proportional_mib(grandchild) < proportional_mib()
        process.stdin.write(b"\n")
