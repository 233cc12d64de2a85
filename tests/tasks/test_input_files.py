"""Files and folders beside the images, the same in every task and command."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from segmentation_files import write_segmentation_data
from super_resolution_files import some_image, write_super_resolution_data

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.data import training_splits
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.task import DetectionTask
from visionloop.tasks.input_images import find_images
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.segmentation.semantic.task import SemanticTask
from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.task import SuperResolutionTask

JUNK = ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found")
COMMON = {"model": "tiny", "from_scratch": True, "preset": "scratch"}


def write_classes(folder, images=3):
    """Write train and val with two classes."""
    for split in ("train", "val"):
        for name in ("ants", "bees"):
            for number in range(images):
                path = folder / split / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = some_image(f"{split}{name}{number}", 40, 40)
                Image.fromarray(image).save(path)
    return folder


def write_yolo(folder):
    """Write train and val of one class."""
    for split in ("train", "val"):
        for number in range(3):
            path = folder / "images" / split / f"{number}.jpg"
            label = folder / "labels" / split / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(some_image(f"{split}{number}", 40, 40)).save(path)
            label.write_text("0 0.5 0.5 0.4 0.4\n")
    text = "names: [cat]\ntrain: images/train\nval: images/val\n"
    (folder / "data.yaml").write_text(text)
    return folder


TASKS = {
    "classification": (ClassificationTask, ClassificationConfig, write_classes, "train/ants"),
    "detection": (DetectionTask, DetectionConfig, write_yolo, "images/train"),
    "segmentation": (
        SemanticTask,
        SemanticConfig,
        write_segmentation_data,
        "images/train",
    ),
    "super_resolution": (
        SuperResolutionTask,
        SuperResolutionConfig,
        write_super_resolution_data,
        "train/HR",
    ),
}


@pytest.fixture(params=TASKS)
def make(request, tmp_path):
    """Return (function that makes a task, folder with training images)."""
    task_class, config_class, write, images = TASKS[request.param]
    data = write(tmp_path / "data")
    options = (
        {"image_size": 32}
        if request.param != "super_resolution"
        else {"patch_size": 16, "scale": 2}
    )
    config = config_class(data=str(data), **COMMON, **options)
    return (lambda: task_class(config)), data / images


def test_files_that_are_no_images_are_counted_at_the_start_and_by_check(make):
    make_task, folder = make
    assert not any("passed over" in line for line in make_task().notes())
    for name in ("a.HEIC", "b.heic", "c.avif"):
        (folder / name).write_bytes(b"none")
    (folder / "notes.txt").write_text("no image, and no reason for a warning")
    (line,) = [line for line in make_task().notes() if "passed over" in line]
    assert "2 .heic, 1 .avif; supported are .jpg" in line and "magick mogrify" in line
    report = make_task().check_data()
    assert [row["why"] for row in report["warnings"] if "passed over" in row["why"]] == [
        line.removeprefix("warning: ").split(": ", 1)[1]
    ]


def test_folders_that_systems_add_change_no_dataset(make):
    make_task, folder = make
    before = make_task().splits[0].fingerprint()
    for name in JUNK:
        for level in {folder, folder.parent}:
            (level / name).mkdir(exist_ok=True)
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(level / name / "thumb.jpg")
    (folder / "Thumbs.db").write_bytes(b"")
    (folder / "._0.jpg").write_bytes(b"")
    task = make_task()
    assert task.splits[0].fingerprint() == before
    assert not any("passed over" in line for line in task.notes())


def test_predict_finds_images_in_linked_folders_and_counts_other_files(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "holiday").mkdir()
    for path in ("real/1.jpg", "holiday/top.jpg", "holiday/a.heic"):
        (tmp_path / path).touch()
    (tmp_path / "holiday" / "linked").symlink_to("../real")
    (tmp_path / "holiday" / "loop").symlink_to("../holiday")
    warnings = []
    _, names = find_images(tmp_path / "holiday", warn=warnings.append)
    assert names == ["linked/1.jpg", "top.jpg"] and "1 .heic" in warnings[0]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.heic").touch()
    with pytest.raises(UserError, match=r"no images in it, it holds 1 \.heic; .* mogrify"):
        find_images(tmp_path / "only")


@pytest.mark.parametrize(("share", "kind"), [(0.2, "validation"), (0.9, "training")])
def test_a_share_that_leaves_one_side_empty_is_one_line(tmp_path, share, kind):
    data = write_classes(tmp_path, images=1)
    for path in (data / "val").rglob("*.jpg"):
        path.unlink()
    for name in ("val/ants", "val/bees", "val"):
        (data / name).rmdir()
    with pytest.raises(UserError, match=f"--val-split {share}: leaves no {kind} images of the 2"):
        training_splits(str(data), share)


def test_class_folders_whose_names_are_not_utf8_are_one_line_before_the_first_step(tmp_path):
    data = write_classes(tmp_path)
    os.rename(os.fsencode(data / "train" / "ants"), os.fsencode(data / "train") + b"/caf\xe9")
    with pytest.raises(UserError, match=r"1 of 2 class folders .* not UTF-8, first b'caf.xe9'"):
        training_splits(str(data), 0)


def test_names_of_images_may_be_any_bytes(tmp_path):
    data = write_classes(tmp_path)
    os.rename(
        os.fsencode(data / "val/ants/0.jpg"), os.fsencode(data / "val/ants") + b"/caf\xe9.jpg"
    )
    index = training_splits(str(data), 0)[1]
    assert any(os.fsencode(index.path(i)).endswith(b"/caf\xe9.jpg") for i in range(len(index)))
    code = "import click; from visionloop.bin.commands.cli import run_commands as run;"
    code += "run(click.command('x')(lambda: print('caf\\udce9')), [])"
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    ended = subprocess.run([sys.executable, "-P", "-c", code], env=strict, capture_output=True)
    assert (ended.returncode, ended.stdout) == (0, b"caf\\udce9\n"), ended.stderr
