"""Augmentation of images with boxes: one geometry for both, deterministic under a seed."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from visionloop.datasets.detection.photometric import Distortion, turn_hue
from visionloop.datasets.detection.transforms import (
    DetectionEvalPreset,
    DetectionTrainPreset,
    iou_crop,
    pixel_span,
    random_crops,
    resize,
    zoom_out_window,
)

OFF = {"photometric": 0, "zoom_out": 0, "iou_crop": 0, "flip": 0}
COLORS = torch.tensor(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]],
    dtype=torch.uint8,
)
BOXES = torch.tensor(
    [
        [20, 30, 80, 90],
        [100, 10, 180, 60],
        [190, 80, 240, 150],
        [30, 110, 70, 160],
        [90, 90, 170, 140],
        [200, 15, 235, 50],
    ],
    dtype=torch.float32,
)


def seed(number):
    torch.manual_seed(number)
    random.seed(number)


@pytest.fixture
def painted():
    """Gray with one filled box of each of COLORS at BOXES: uint8 [3, 180, 260]."""
    image = torch.full((3, 180, 260), 128, dtype=torch.uint8)
    for color, (left, top, right, bottom) in zip(COLORS, BOXES.int().tolist(), strict=True):
        image[:, top:bottom, left:right] = color[:, None, None]
    return image


@pytest.fixture
def photograph():
    """Smooth with some grain: uint8 [3, 60, 80]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, 6, 8), generator=generator)
    grain = 0.05 * torch.randn((3, 60, 80), generator=generator)
    return (
        (torch.nn.functional.interpolate(coarse, size=(60, 80), mode="bicubic")[0] + grain).clamp(
            0, 1
        )
        * 255
    ).to(torch.uint8)


def to_corners(boxes_cxcywh, size):
    return (
        torch.cat(
            [
                boxes_cxcywh[:, :2] - boxes_cxcywh[:, 2:] / 2,
                boxes_cxcywh[:, :2] + boxes_cxcywh[:, 2:] / 2,
            ],
            1,
        )
        * size
    )


def painted_corners(pixels, color):
    """Return the box of the pixels of a color, at half its strength: float [4] xyxy."""
    ys, xs = ((pixels.int() - color.int()[:, None, None]).abs().amax(0) < 64).nonzero(as_tuple=True)
    return torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize(
    "forced",
    [
        ("zoom_out",),
        ("iou_crop",),
        ("flip",),
        ("zoom_out", "iou_crop"),
        ("zoom_out", "iou_crop", "flip"),
    ],
)
@pytest.mark.parametrize("size", [96, 256])
def test_every_box_surrounds_what_was_painted_in_it(painted, forced, size):
    preset = DetectionTrainPreset(size, **OFF | dict.fromkeys(forced, 1))
    checked, changed = 0, 0
    for number in range(60):
        seed(number)
        pixels, boxes, keep = preset(painted, BOXES)
        changed += boxes.shape != BOXES.shape or not torch.equal(
            boxes, DetectionEvalPreset(size)(painted, BOXES)[1]
        )
        for row, corners in zip(keep.tolist(), to_corners(boxes, size), strict=True):
            if (corners[2:] - corners[:2]).min() < 4:
                continue  # too few pixels for a clear color
            assert (painted_corners(pixels, COLORS[row]) - corners).abs().max() <= 1.5
            checked += 1
    assert checked > 60 and changed > 40


def test_a_box_whose_center_is_cut_off_is_dropped_and_no_other(painted):
    for number in range(100):
        seed(number)
        window, rows = iou_crop((0, 0, 260, 180), BOXES.double().numpy())
        centers = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        left, top, right, bottom = window
        inside = (
            (centers[:, 0] > left)
            & (centers[:, 0] < right)
            & (centers[:, 1] > top)
            & (centers[:, 1] < bottom)
        )
        assert rows.tolist() == inside.nonzero()[:, 0].tolist() and len(rows)
        assert 0 <= left < right <= 260 and 0 <= top < bottom <= 180


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    corners=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5),
    number=st.integers(0, 10_000),
    share=st.sampled_from([0, 0.5, 1]),
)
def test_what_comes_out_is_valid_whatever_goes_in(size, height, width, corners, number, share):
    x1, y1, x2, y2 = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4).T
    boxes = torch.stack(
        [
            x1.minimum(x2) * width,
            y1.minimum(y2) * height,
            x1.maximum(x2) * width,
            y1.maximum(y2) * height,
        ],
        1,
    )
    image = torch.full((3, height, width), 200, dtype=torch.uint8)
    seed(number)
    pixels, boxes, keep = DetectionTrainPreset(
        size, photometric=share, zoom_out=share, iou_crop=share, flip=share
    )(image, boxes)
    assert (
        pixels.shape == (3, size, size) and pixels.dtype == torch.uint8 and pixels.is_contiguous()
    )
    assert (
        boxes.dtype == torch.float32
        and keep.dtype == torch.int64
        and len(boxes) == len(keep) <= len(corners)
    )
    assert keep.tolist() == sorted(set(keep.tolist()))
    assert (to_corners(boxes, 1) > -1e-6).all() and (to_corners(boxes, 1) < 1 + 1e-6).all()
    assert (boxes[:, 2:] * size > 1 - 1e-4).all()


def test_without_any_chance_training_is_the_plain_resize(photograph):
    boxes = torch.tensor(
        [[3, 4, 30.5, 40], [0, 0, 80, 60], [70, 10, 75, 59.25]], dtype=torch.float64
    )
    expected = F.resize_image(photograph, [32, 32], antialias=True)
    strong, weak = DetectionTrainPreset(32, **OFF), DetectionTrainPreset(32, flip=0)
    weak.strong = False
    for preset in (DetectionEvalPreset(32), strong, weak):
        pixels, cxcywh, keep = preset(photograph, boxes)
        assert torch.equal(pixels, expected) and keep.tolist() == [0, 1, 2]
        assert torch.equal(cxcywh, DetectionEvalPreset(32)(photograph, boxes)[1])
        assert torch.allclose(
            to_corners(cxcywh, torch.tensor([80, 60, 80, 60])), boxes.float(), atol=1e-5
        )


def test_the_last_epochs_flip_and_resize_alone(photograph):
    preset = DetectionTrainPreset(32, photometric=1, zoom_out=1, iou_crop=1)
    preset.strong = False
    boxes = torch.tensor([[3, 4, 30, 40.0]])
    plain, upright, _ = DetectionEvalPreset(32)(photograph, boxes)
    mirrored = 0
    for number in range(200):
        seed(number)
        pixels, cxcywh, _ = preset(photograph, boxes)
        flipped = not torch.equal(pixels, plain)
        mirrored += flipped
        assert torch.equal(pixels, plain.flip(-1) if flipped else plain)
        assert torch.allclose(cxcywh[0, 0], 1 - upright[0, 0] if flipped else upright[0, 0])
    assert 70 < mirrored < 130


@pytest.mark.parametrize("forced", ["photometric", "zoom_out", "iou_crop", "flip"])
def test_the_same_seed_gives_the_same_sample_and_the_image_given_is_not_changed(photograph, forced):
    before, boxes = photograph.clone(), torch.tensor([[3, 4, 30, 40.0], [40, 20, 70, 50]])
    preset = DetectionTrainPreset(60, **OFF | {forced: 0.9})
    results = []
    for number in (*range(8), *range(8)):
        seed(number)
        results.append(preset(photograph, boxes))
    for first, second in zip(results[:8], results[8:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({result[0].numpy().tobytes() for result in results}) > 1
    assert torch.equal(photograph, before)


def test_boxes_below_a_pixel_are_dropped_in_training_alone(photograph):
    boxes = torch.tensor([[10, 10, 10.9, 40], [10, 10, 12, 40], [10, 10, 30, 40.0]])
    assert DetectionTrainPreset(32, **OFF)(photograph, boxes)[2].tolist() == [2]  # 2 px become 0.8
    assert DetectionTrainPreset(80, **OFF)(photograph, boxes)[2].tolist() == [1, 2]
    assert DetectionTrainPreset(32, **OFF, min_size=0)(photograph, boxes)[2].tolist() == [0, 1, 2]
    assert DetectionEvalPreset(32)(photograph, boxes)[2].tolist() == [0, 1, 2]


def test_an_image_without_boxes_is_augmented_too(photograph):
    for number in range(20):
        seed(number)
        pixels, boxes, keep = DetectionTrainPreset(32)(photograph, torch.zeros((0, 4)))
        assert pixels.shape == (3, 32, 32) and boxes.shape == (0, 4) and keep.shape == (0,)


def test_zooming_out_shows_the_whole_image_on_black():
    image, boxes = (
        torch.full((3, 60, 80), 255, dtype=torch.uint8),
        torch.tensor([[0, 0, 80, 60.0]]),
    )
    shares = []
    for number in range(300):
        seed(number)
        pixels, cxcywh, _ = DetectionTrainPreset(64, **OFF | {"zoom_out": 1})(image, boxes)
        left, top, right, bottom = to_corners(cxcywh, 64)[0].round().int().tolist()
        assert (pixels[:, top:bottom, left:right] == 255).all() and (pixels == 255).sum() == 3 * (
            bottom - top
        ) * (right - left)
        shares.append(1 / cxcywh[0, 2].item())
    assert 1 <= min(shares) < 1.2 and 3.8 < max(shares) < 4.2 and 2.3 < np.mean(shares) < 2.7


def summary(draw, count=300):
    """Mean and spread of (left, top, right, bottom, boxes shown) over many draws."""
    table = []
    for number in range(count):
        seed(number)
        window, rows = draw()
        table.append([*window, len(rows)])
    table = np.array(table, dtype=np.float64)
    return np.concatenate([table.mean(0), table.std(0)])


def test_crops_are_distributed_as_torchvisions():
    boxes = BOXES.double().numpy()
    theirs = v2.RandomIoUCrop()
    flat = [
        tv_tensors.Image(torch.zeros(3, 180, 260)),
        tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(180, 260)),
    ]

    def draw_theirs():
        drawn = theirs.make_params(flat)
        if not drawn:
            return (0, 0, 260, 180), BOXES
        window = (
            drawn["left"],
            drawn["top"],
            drawn["left"] + drawn["width"],
            drawn["top"] + drawn["height"],
        )
        return window, drawn["is_within_crop_area"].nonzero()

    difference = summary(lambda: iou_crop((0, 0, 260, 180), boxes)) - summary(draw_theirs)
    assert np.abs(difference).max() < 12  # pixels; a standard error of the difference is 4


def test_canvases_are_distributed_as_torchvisions():
    theirs = v2.RandomZoomOut(fill=0)

    def draw_theirs():
        left, top, right, bottom = theirs.make_params([torch.zeros(3, 60, 80)])["padding"]
        return (-left, -top, 80 + right, 60 + bottom), ()

    difference = summary(lambda: (zoom_out_window((0, 0, 80, 60)), ())) - summary(draw_theirs)
    assert np.abs(difference).max() < 12


def test_crops_lie_in_the_window_with_valid_sides():
    for number in range(20):
        seed(number)
        crops = random_crops((-40, -10, 200, 110))
        sides = crops[:, 2:] - crops[:, :2]
        assert (
            (crops[:, :2] >= [-40, -10]).all()
            and (crops[:, 2:] <= [200, 110]).all()
            and (crops == np.floor(crops)).all()
        )
        assert (sides >= np.floor([72, 36])).all() and (
            (sides[:, 0] / sides[:, 1] >= 0.5) & (sides[:, 0] / sides[:, 1] <= 2)
        ).all()


@pytest.mark.parametrize("strides", ["planes", "pixels"])
def test_a_result_one_pixel_wide_is_the_mean_of_the_row(strides):
    rows = torch.randint(
        0, 256, (9, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).permute(2, 0, 1)
    image = rows.contiguous() if strides == "planes" else rows
    expected = F.resize_image(image.double(), [2, 1], antialias=True)
    assert (resize(image, 2, 1) - expected).abs().max() <= 1


@given(
    start=st.integers(0, 500),
    length=st.integers(1, 500),
    before=st.integers(0, 900),
    after=st.integers(0, 900),
    size=st.integers(1, 700),
)
def test_what_is_seen_fills_whole_pixels_close_to_its_place(start, length, before, after, size):
    window = start - before, start + length + after
    first, last = pixel_span(start, start + length, *window, size)
    factor = size / (window[1] - window[0])
    assert 0 <= first < last <= size
    assert (
        abs(first - before * factor) <= 1 and abs(last - (before + length) * factor) <= 1.5
    )  # less than a pixel becomes one


STEPS = [
    {"brightness": 1.1},
    {"contrast": 0.6},
    {"contrast": 1.4},
    {"saturation": 0.5},
    {"saturation": 1.5},
    {"hue": -0.05},
    {"hue": 0.04},
]
THEIRS = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@pytest.mark.parametrize("step", STEPS)
def test_each_change_of_color_is_torchvisions(photograph, step):
    ((name, factor),) = step.items()
    difference = Distortion(**step)(photograph).int() - THEIRS[name](photograph, factor).int()
    assert difference.abs().max() <= 2


@pytest.mark.parametrize("contrast_first", [True, False])
def test_all_changes_of_color_together_are_torchvisions(photograph, contrast_first):
    ours = Distortion(
        brightness=0.9,
        contrast=1.3,
        saturation=0.7,
        hue=0.03,
        contrast_first=contrast_first,
        channels=(2, 0, 1),
    )
    theirs = {
        "brightness_factor": 0.9,
        "contrast_factor": 1.3,
        "saturation_factor": 0.7,
        "hue_factor": 0.03,
    }
    theirs |= {"contrast_before": contrast_first, "channel_permutation": [2, 0, 1]}
    expected = v2.RandomPhotometricDistort().transform(photograph, theirs)
    assert (ours(photograph).int() - expected.int()).abs().max() <= 5


@given(turn=st.floats(-1 / 6, 1 / 6), number=st.integers(0, 1000))
def test_a_turn_of_the_hue_agrees_with_the_way_through_hsv(turn, number):
    generator = torch.Generator().manual_seed(number)
    pixels = (
        torch.randint(0, 5, (3, 8, 8), generator=generator).float() * 63
    )  # few levels: ties and grays too
    assert torch.allclose(
        turn_hue(pixels.clone(), turn), F.adjust_hue(pixels / 255, turn) * 255, atol=0.01
    )


def test_changes_of_color_happen_as_often_as_asked():
    random.seed(0)
    draws = [Distortion.draw(0.3) for _ in range(2000)]
    for name in ("brightness", "contrast", "saturation", "hue", "channels"):
        assert 500 < sum(getattr(draw, name) is not None for draw in draws) < 700
    assert 900 < sum(draw.contrast_first for draw in draws) < 1100
    assert Distortion.draw(0.0).brightness is None and Distortion.draw(1.0).hue is not None
