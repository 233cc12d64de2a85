"""Samples before and after a function of the user."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from visionloop.datasets.augmentation.function import AugmentError, UserFunction
from visionloop.datasets.augmentation.samples import (
    augment_boxes,
    augment_labeled,
    augment_mask,
    augment_masks,
    augment_pair,
)
from visionloop.datasets.segments.layers import NO_SEGMENT, layers_of_masks, segment_masks

IMAGE = torch.arange(3 * 6 * 8, dtype=torch.uint8).reshape(3, 6, 8)
BOXES = torch.tensor([[0.0, 1.0, 4.0, 6.0], [2.0, 2.0, 8.0, 3.5]], dtype=torch.float64)
LABELS = torch.tensor([1, 0])
IDS = (torch.arange(48, dtype=torch.uint8) % 3).reshape(6, 8)
IDS[0] = 255
MASKS = torch.stack([IDS == 0, IDS == 1])
IGNORED = (IDS == 255).to(torch.uint8)

# each task: its function, the arguments after the image, the keys of the sample
CALLS = {
    "label": (augment_labeled, (1, 3, "a.jpg")),
    "boxes": (augment_boxes, (BOXES, LABELS, 3, "a.jpg")),
    "mask": (augment_mask, (IDS, 3, "a.jpg")),
    "masks": (augment_masks, (MASKS, LABELS, IGNORED, 3, "a.jpg")),
    "pair": (augment_pair, (IMAGE[:, :3, :4], "a.jpg")),
}


@pytest.fixture
def call(tmp_path):
    """Return call(task, body), the result of a function with this body."""

    def call(task, body):
        (tmp_path / "own.py").write_text(
            "import numpy as np\nimport torch\nfrom torchvision.transforms import v2\n"
            f"def augment(sample, generator):\n    {body}\n    return sample\n"
        )
        function, arguments = CALLS[task]
        return function(UserFunction(f"{tmp_path / 'own.py'}:augment"), IMAGE, *arguments)

    return call


def before(task):
    arguments = (IMAGE, *CALLS[task][1][:-1])
    return arguments if task == "pair" else arguments[:-1]


@pytest.mark.parametrize("task", CALLS)
def test_a_function_that_changes_nothing_gives_the_sample(call, task):
    for one, other in zip(call(task, "pass"), before(task), strict=True):
        assert (
            torch.equal(torch.as_tensor(one), torch.as_tensor(other).to(one.dtype))
            if isinstance(one, torch.Tensor)
            else one == other
        )
        assert type(one) in (int, torch.Tensor)


@pytest.mark.parametrize("task", CALLS)
def test_a_function_that_writes_in_place_changes_a_copy(call, task):
    kept = [torch.as_tensor(value).clone() for value in before(task)]
    call(task, "[value.zero_() for value in sample.values()]")
    assert all(
        torch.equal(torch.as_tensor(value), copy)
        for value, copy in zip(before(task), kept, strict=True)
    )


def test_transforms_of_torchvision_move_boxes_and_masks_with_the_image(call):
    flip = "sample = v2.RandomHorizontalFlip(1.0)(sample)"
    image, boxes, labels = call("boxes", flip)
    assert torch.equal(image, IMAGE.flip(-1)) and torch.equal(labels, LABELS)
    expected = torch.stack([8 - BOXES[:, 2], BOXES[:, 1], 8 - BOXES[:, 0], BOXES[:, 3]], 1)
    assert torch.equal(boxes, expected)
    assert torch.equal(call("mask", flip)[1], IDS.flip(-1))
    _, masks, _, ignored = call("masks", flip)
    assert torch.equal(masks, MASKS.flip(-1)) and torch.equal(ignored, IGNORED.flip(-1))
    hr, lr = call("pair", flip)
    assert torch.equal(hr, IMAGE.flip(-1)) and torch.equal(lr, IMAGE[:, :3, :4].flip(-1))


def test_arrays_and_lists_are_taken_as_tensors_are(call):
    image, boxes, labels = call(
        "boxes",
        "sample = {'image': sample['image'].permute(1, 2, 0).numpy().copy(),"
        " 'boxes': [[0, 0, 3, 3]], 'labels': np.array([2.0])}",
    )
    assert torch.equal(image, IMAGE) and image.is_contiguous()
    assert boxes.tolist() == [[0, 0, 3, 3]] and labels.tolist() == [2]
    empty = "sample = sample | {'boxes': np.zeros(0), 'labels': []}"
    assert [len(part) for part in call("boxes", empty)[1:]] == [0, 0]
    masks = "sample = sample | {'masks': [np.ones((6, 8), bool)], 'labels': [0]}"
    assert call("masks", masks)[1].shape == (1, 6, 8)


def test_boxes_in_another_format_are_converted(call):
    body = (
        "sample['boxes'] = v2.functional.convert_bounding_box_format(sample['boxes'],"
        " new_format='CXCYWH')"
    )
    assert torch.equal(call("boxes", body)[1], BOXES)


@pytest.mark.parametrize(
    ("task", "body", "why"),
    [
        ("label", "sample['image'] = sample['image'] / 255", "image: expected uint8 [3, H, W]"),
        ("label", "sample['image'] = sample['image'][:1]", "got uint8 [1, 6, 8]"),
        ("label", "sample['label'] = 3", "label: expected 0 to 2, got 3"),
        ("label", "sample['label'] = 'cat'", "label: expected a tensor, got str"),
        ("boxes", "sample['labels'] = sample['labels'][:1]", "labels: [1], but there are 2 boxes"),
        ("boxes", "sample['labels'] = sample['labels'] + 0.5", "labels: expected whole numbers"),
        ("boxes", "sample['boxes'][1, 2] = 12", "[2.0, 2.0, 12.0, 3.5] is not inside, the image"),
        ("boxes", "sample['boxes'] = sample['boxes'][:, :2]", "[N, 4], xyxy in pixels, got"),
        ("boxes", "sample['boxes'][0, 0] = float('nan')", "boxes: expected finite numbers"),
        ("mask", "sample['mask'] = sample['mask'][1:]", "mask: expected the size of the image"),
        ("mask", "sample['mask'][2, 2] = 7", "class ids from 0 to 2, or 255, got 7"),
        ("masks", "sample['masks'] = sample['masks'][0]", "masks: expected [N, 6, 8]"),
        ("masks", "del sample['ignored']", "the keys image, labels, masks, expected ignored"),
        ("pair", "sample['image'] = sample['image'][:, 1:]", "the size that it was given, [3, 6"),
    ],
)
def test_a_result_that_the_task_cannot_use_is_refused_in_one_line(call, task, body, why):
    with pytest.raises(AugmentError) as caught:
        call(task, body)
    assert str(caught.value).startswith("a.jpg: --augment ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layers_of_masks_that_overlap_give_the_masks_back():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand((300, 5, 7), generator=generator) < 0.05
    labels = torch.arange(300)
    layers, segments = layers_of_masks(masks, labels)
    present = masks.flatten(1).any(1)
    assert torch.equal(segment_masks(layers, segments), masks[present])
    assert torch.equal(segments[:, 2], labels[present])
    layers, segments = layers_of_masks(masks[:0], labels[:0])
    assert layers.shape == (1, 5, 7) and (layers == NO_SEGMENT).all() and segments.shape == (0, 3)


def test_what_the_function_gets_are_tv_tensors(call):
    types = {"image": tv_tensors.Image, "boxes": tv_tensors.BoundingBoxes}
    for key, kind in types.items():
        with pytest.raises(AugmentError, match=f"ValueError: .*{kind.__name__}"):
            call("boxes", f"raise ValueError(type(sample['{key}']))")
    assert np.array_equal(call("mask", "assert sample['mask'].dtype == torch.uint8")[1], IDS)
