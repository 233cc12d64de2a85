"""Splits, samples and compilation of the detection task."""

import json

import numpy as np
import pytest
import torch

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.errors import UserError
from visionloop.tasks.detection.checks import check_detection_data
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.data import rarest_classes, targets_of, training_splits
from visionloop.tasks.detection.task import DetectionTask


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_detection(folder, 0, images={"train": 20, "val": 4})
    return folder


def test_a_share_set_aside_holds_the_rare_classes_too_and_is_the_same_each_time(data):
    (data / "val.json").unlink()
    train, val = training_splits(str(data), 0.25)
    groups = np.concatenate([rarest_classes(train), rarest_classes(val)])
    assert len(train) + len(val) == 20
    assert not {train.name(i) for i in range(len(train))} & {val.name(i) for i in range(len(val))}
    for label in set(groups):  # of a group of two or more, one is on each side
        sides = [label in rarest_classes(index) for index in (train, val)]
        assert all(sides) == ((groups == label).sum() > 1)
    again = training_splits(str(data), 0.25)[1]
    assert [val.name(i) for i in range(len(val))] == [again.name(i) for i in range(len(again))]


def test_the_rarest_class_of_an_image_is_that_of_the_whole_split(data):
    train, _ = training_splits(str(data), 0.0)
    counts = np.bincount(train.labels, minlength=len(train.classes))
    for i, label in enumerate(rarest_classes(train)):
        labels = train.boxes_of(i)[1]
        assert label == (
            -1 if not len(labels) else min(set(labels.tolist()), key=lambda k: (counts[k], k))
        )


def test_a_share_beside_a_validation_split_and_neither_of_them_are_refused(data):
    with pytest.raises(UserError, match="--val-split"):
        training_splits(str(data), 0.2)
    (data / "val.json").unlink()
    with pytest.raises(UserError, match="no validation split"):
        training_splits(str(data), 0.0)


def test_corners_written_as_sizes_stop_training_before_it_begins(data):
    content = json.loads((data / "train.json").read_text())
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    (data / "train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"train\.json") as caught:
        training_splits(str(data), 0.0)
    assert "x2" in str(caught.value) or "corner" in str(caught.value)


def test_evaluation_has_images_without_augmentation_and_with_their_ground_truth(data):
    task = DetectionTask(
        DetectionConfig(data=str(data), model="tiny", from_scratch=True, image_size=96)
    )
    train, val = task.build_datasets()
    assert train.transform.strong and not hasattr(val.transform, "strong")
    batch = task.collate_eval([val[i] | {"sample_id": torch.tensor(i)} for i in range(4)])
    assert (
        batch["pixel_values"].shape == (4, 3, 96, 96) and batch["pixel_values"].dtype == torch.uint8
    )
    for target, ground_truth, (height, width) in zip(
        targets_of(batch), batch["ground_truth"], batch["sizes"].tolist(), strict=True
    ):
        single = ~ground_truth["crowd"]
        corners = target["boxes"][:, :2] - target["boxes"][:, 2:] / 2
        assert np.allclose(
            corners * torch.tensor([width, height]), ground_truth["boxes"][single][:, :2], atol=1e-3
        )
        assert target["class_labels"].tolist() == ground_truth["labels"][single].tolist()


def test_compiling_takes_the_backbone_alone_and_changes_no_name(tiny_module):
    module = tiny_module()
    names = list(module.state_dict())
    task = DetectionTask(DetectionConfig(model="tiny", from_scratch=True))
    assert task.compile(module) is module and list(module.state_dict()) == names
    compiled = [
        name for name, layer in module.named_modules() if layer._compiled_call_impl is not None
    ]
    assert compiled == ["model.backbone.model"]


def crowd(data, split, keep_every=10**9):
    """Make annotations of a split crowds, but for every `keep_every`th."""
    content = json.loads((data / f"{split}.json").read_text())
    for k, annotation in enumerate(content["annotations"], 1):
        annotation["iscrowd"] = int(k % keep_every != 0)
    (data / f"{split}.json").write_text(json.dumps(content))


def test_training_starts_with_the_number_of_boxes_that_it_leaves_out(data):
    crowd(data, "train", 2)
    task = DetectionTask(DetectionConfig(data=str(data), model="tiny"))
    (line,) = task.notes()
    number = len(task.splits[0].boxes)
    assert line.startswith(f"warning: {data}/train.json: train: {(number + 1) // 2} of {number} ")
    assert "CVAT" in line
    crowd(data, "val", 2)
    task = DetectionTask(DetectionConfig(data=str(data), model="tiny"))
    assert [line.split(": ")[2] for line in task.notes()] == ["train", "val"]


def test_training_on_nothing_but_crowds_is_refused(data):
    crowd(data, "train")
    with pytest.raises(UserError, match=r"train\.json: all \d+ boxes are crowds .* set iscrowd"):
        training_splits(str(data), 0.0)


@pytest.mark.parametrize("box", [[10, 10, 0, 20], [-50, 10, 40, 20], [5000, 10, 40, 20]])
def test_boxes_without_an_area_inside_are_nothing_to_train_on_or_to_score(data, box):
    for split, why in (("val", "nothing to score"), ("train", "nothing to detect")):
        content = json.loads((data / f"{split}.json").read_text())
        for annotation in content["annotations"]:
            annotation["bbox"] = box
        (data / f"{split}.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=rf"{split}\.json: no.* {why}"):
            training_splits(str(data), 0.0)
        report = check_detection_data(str(data), 0.0, 96)
        errors = [row["why"] for row in report["errors"] if row["path"].endswith(f"{split}.json")]
        assert len(errors) == 1 and why in errors[0]


@pytest.mark.parametrize("keep_every", [0, 10**9])
def test_validation_images_without_a_box_to_score_are_refused(data, keep_every):
    if keep_every:
        crowd(data, "val", keep_every)
    else:
        content = json.loads((data / "val.json").read_text())
        (data / "val.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(UserError, match=r"val\.json: no boxes .*nothing to score; add images"):
        training_splits(str(data), 0.0)
