"""Samples for a detector: upright pixels, normalized boxes, and the ground truth of the file."""

import numpy as np
import pytest
import torch
from detection_files import small_coco, write_coco
from PIL import Image

from visionloop.datasets.detection.dataset import DetectionDataset, clip_boxes, size_mismatch
from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.layout import require_detection_split
from visionloop.datasets.detection.transforms import DetectionEvalPreset, DetectionTrainPreset
from visionloop.datasets.io.images import UnreadableImage, read_image, read_size


@pytest.fixture
def dataset(tmp_path):
    def build(change=lambda content: None, with_ground_truth=False, transform=None):
        content = small_coco()
        change(content)
        index = read_coco(write_coco(tmp_path, content), tmp_path / "train")
        return DetectionDataset(index, transform or DetectionEvalPreset(8), with_ground_truth)

    return build


def test_a_sample_is_the_image_and_its_boxes_without_crowds(dataset):
    sample = dataset()[0]
    assert set(sample) == {"pixel_values", "boxes", "class_labels", "size"}
    assert sample["pixel_values"].shape == (3, 8, 8) and sample["pixel_values"].dtype == torch.uint8
    assert (
        sample["boxes"].dtype == torch.float32
        and sample["class_labels"].dtype == sample["size"].dtype == torch.int64
    )
    assert torch.allclose(sample["boxes"], torch.tensor([[10 / 40, 10 / 30, 10 / 40, 10 / 30]]))
    assert sample["class_labels"].tolist() == [0] and sample["size"].tolist() == [30, 40]


def test_the_ground_truth_is_as_in_the_file_with_crowds(dataset):
    ground_truth = dataset(with_ground_truth=True)[0]["ground_truth"]
    assert {name: (type(column), column.dtype.name) for name, column in ground_truth.items()} == {
        "boxes": (np.ndarray, "float64"),
        "labels": (np.ndarray, "int64"),
        "crowd": (np.ndarray, "bool"),
        "areas": (np.ndarray, "float64"),
    }
    assert ground_truth["boxes"].tolist() == [[5, 5, 10, 10], [0, 0, 40, 30]]
    assert (
        ground_truth["labels"].tolist() == [0, 1]
        and ground_truth["crowd"].tolist() == [False, True]
        and ground_truth["areas"].tolist() == [100, 1000]
    )


def test_an_image_without_boxes_is_valid(dataset):
    sample = dataset(with_ground_truth=True)[2]
    assert (
        sample["boxes"].shape == (0, 4)
        and sample["class_labels"].shape == (0,)
        and sample["ground_truth"]["boxes"].shape == (0, 4)
    )
    assert dataset(transform=DetectionTrainPreset(8))[2]["boxes"].shape == (0, 4)


def test_boxes_are_clipped_and_what_is_empty_then_is_dropped(dataset):
    def change(content):
        boxes = ([30, 20, 20, 20], [-5, -5, 10, 10], [50, 5, 4, 4], [5, 5, 0, 4], [5, 5, 4, -2])
        content["annotations"] = [
            {"id": n, "image_id": 7, "category_id": 2 if n else 9, "bbox": box}
            for n, box in enumerate(boxes)
        ]

    data = dataset(change, with_ground_truth=True)
    sample = data[0]
    assert torch.allclose(
        sample["boxes"],
        torch.tensor([[35 / 40, 25 / 30, 10 / 40, 10 / 30], [2.5 / 40, 2.5 / 30, 5 / 40, 5 / 30]]),
    )
    assert sample["class_labels"].tolist() == [1, 0] and len(sample["ground_truth"]["boxes"]) == 5


def test_labels_follow_the_boxes_that_a_transform_keeps(dataset):
    def last_one(image, boxes):
        return image, boxes[-1:].float(), torch.tensor([len(boxes) - 1])

    sample = dataset(transform=last_one)[1]
    assert sample["class_labels"].tolist() == [0] and sample["boxes"].tolist() == [[15, 20, 20, 24]]


def test_an_image_of_another_size_than_annotated_is_refused(dataset):
    data = dataset()
    Image.new("RGB", (41, 30)).save(data.name(0))
    with pytest.raises(
        UnreadableImage,
        match=r"a\.png: is 30 x 41 \(height x width\), the annotations say 30 x 40$",
    ):
        data[0]
    Image.new("RGB", (30, 40)).save(data.name(0))
    with pytest.raises(UnreadableImage, match=r"say 30 x 40: width and height are exchanged$"):
        data[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(data.name(0), exif=exif)
    with pytest.raises(
        UnreadableImage,
        match=r"is 40 x 30 .* the annotations say 30 x 40: the boxes were drawn before its EXIF",
    ):
        data[0]
    assert "is 40 x 30" in size_mismatch(data.index, 0, read_size(data.name(0)))
    assert size_mismatch(data.index, 1, read_size(data.name(1))) is None


def test_an_image_rotated_by_exif_is_upright_and_its_size_too(dataset, tmp_path):
    def change(content):
        content["images"][0] |= {"file_name": "a.jpg", "width": 30, "height": 40}

    data = dataset(change)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(data.name(0), exif=exif)
    assert data[0]["size"].tolist() == [40, 30]


def test_a_size_that_the_annotations_do_not_give_is_not_compared(dataset):
    data = dataset()
    data.index.sizes_hw[0] = 0
    Image.new("RGB", (50, 60)).save(data.name(0))
    assert data[0]["size"].tolist() == [60, 50]


def test_an_unreadable_image_is_named(dataset, tmp_path):
    data = dataset()
    (tmp_path / "train" / "a.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"a\.png: empty file"):
        data[0]


def test_a_subset_is_the_images_asked_for(dataset):
    data = dataset(with_ground_truth=True)
    part = data.subset([1, 0])
    assert (
        len(part) == 2
        and part.name(0) == data.name(1)
        and part.classes == data.classes == ("cat", "dog")
    )
    assert torch.equal(part[1]["boxes"], data[0]["boxes"]) and "ground_truth" in part[1]
    assert part.fingerprint() != data.fingerprint() == dataset().fingerprint()


def test_clipped_boxes_lie_in_the_image():
    generator = np.random.default_rng(0)
    boxes = generator.uniform(-30, 60, (500, 4))
    clipped, inside = clip_boxes(boxes, 20, 40)
    assert (clipped >= 0).all() and (clipped <= [40, 20, 40, 20]).all()
    left, top, right, bottom = (
        boxes[:, 0],
        boxes[:, 1],
        boxes[:, 0] + boxes[:, 2],
        boxes[:, 1] + boxes[:, 3],
    )
    overlap = (np.minimum(right, 40) > np.maximum(left, 0)) & (
        np.minimum(bottom, 20) > np.maximum(top, 0)
    )
    assert (inside == overlap).all() and 50 < inside.sum() < 450


def test_real_boxes_return_to_their_pixels(real_data):
    index = require_detection_split(real_data("bccd"), "val")
    data = DetectionDataset(index, DetectionEvalPreset(64), with_ground_truth=True)
    for i in range(0, len(data), 10):
        sample = data[i]
        assert sample["size"].tolist() == list(read_image(data.name(i)).shape[-2:]) == [480, 640]
        centers, sides = (
            sample["boxes"][:, :2] * torch.tensor([640, 480]),
            sample["boxes"][:, 2:] * torch.tensor([640, 480]),
        )
        expected = torch.from_numpy(sample["ground_truth"]["boxes"]).float()
        assert torch.allclose(torch.cat([centers - sides / 2, sides], 1), expected, atol=1e-3)
