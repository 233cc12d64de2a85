"""Drawings of segmentation: colors, overlays, legends, samples, predictions, charts."""

import json

import numpy as np
import pytest
import torch

from visionloop.tasks.drawing.canvas import WRONG
from visionloop.tasks.drawing.charts import BAR, draw_iou_per_class, draw_pixel_confusion
from visionloop.tasks.drawing.legend import MOST_NAMES, NARROWEST, with_legend
from visionloop.tasks.segmentation.drawing import COLORS, PART_SIDE, SIDE, class_colors
from visionloop.tasks.segmentation.semantic.saved_predictions import describe, prediction_files
from visionloop.tasks.segmentation.semantic.visualize import (
    borders,
    color_image,
    draw_batch,
    draw_prediction,
    draw_samples,
    overlay,
)

CLASSES = ("ant", "bee", "cat")
PAINT = class_colors(CLASSES)


def holds(image, color):
    return (image == np.array(color)).all(axis=-1).any()


def ground(height=120, width=160, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def halves(height=120, width=160, left=0, right=1):
    ids = np.full((height, width), left, dtype=np.uint8)
    ids[:, width // 2 :] = right
    return ids


def batch_of(ids, side=64):
    """Gray images of another size than their ids."""
    gray = torch.full((3, side, side), 128, dtype=torch.uint8)
    return {"pixel_values": [gray] * len(ids), "ids": [torch.from_numpy(one) for one in ids]}


def test_a_class_keeps_its_color_and_no_two_are_alike():
    colors = class_colors(range(255))
    assert colors.shape == (255, 3) and colors.dtype == np.uint8
    assert np.array_equal(colors[:40], class_colors(range(40))) and np.array_equal(
        colors[: len(COLORS)], COLORS
    )
    apart = (
        np.abs(colors[:, None].astype(int) - colors)
        .sum(-1)[~np.eye(255, dtype=bool)]
        .reshape(255, 254)
    )
    assert apart.min() >= 20 and apart[:12, :11].min() > 90
    assert colors.max(axis=1).min() > 60  # none looks like the black of ignored pixels


def test_colors_of_the_data_are_kept():
    own = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.uint8)
    assert np.array_equal(class_colors(CLASSES, own), own)


def test_ids_become_their_colors_and_ignored_pixels_black():
    image = color_image(np.array([[0, 2, 255]], dtype=np.uint8), PAINT)
    assert image.dtype == np.uint8 and image.tolist() == [
        [PAINT[0].tolist(), PAINT[2].tolist(), [0, 0, 0]]
    ]


def test_an_overlay_mixes_inside_and_draws_both_sides_of_a_border():
    ids = halves()
    drawn = overlay(ground(), ids, PAINT)
    assert (drawn[:, 79] == PAINT[0]).all() and (drawn[:, 80] == PAINT[1]).all()
    inside = 128 * 0.45 + PAINT[0].astype(float) * 0.55
    assert np.abs(drawn[10, 10] - inside).max() <= 2 and (drawn[:, :79] == drawn[10, 10]).all()
    assert (overlay(ground(), ids * 0, PAINT, strength=0) == 128).all()
    assert (overlay(ground(), ids, PAINT, strength=1) == color_image(ids, PAINT)).all()
    assert (overlay(ground(), np.full_like(ids, 255), PAINT) < 70).all()  # ignored: dark


def test_borders_have_their_thickness():
    assert np.flatnonzero(borders(halves(4, 20)).all(axis=0)).tolist() == [9, 10]
    assert np.flatnonzero(borders(halves(4, 20), thickness=2).all(axis=0)).tolist() == [
        8,
        9,
        10,
        11,
    ]
    assert np.array_equal(borders(halves(4, 20).T).T, borders(halves(4, 20)))
    assert not borders(np.zeros((1, 1), dtype=np.uint8)).any()
    assert overlay(ground(4, 2000), halves(4, 2000), PAINT)[0, 998].tolist() == PAINT[0].tolist()


@pytest.mark.parametrize("stacked", [False, True])
def test_a_training_batch_shows_its_classes_in_place(stacked):
    batch = batch_of([halves(64, 64), halves(64, 64, 2, 255)])
    batch = {key: torch.stack(values) for key, values in batch.items()} if stacked else batch
    drawn = draw_batch(batch, CLASSES, PAINT)
    assert drawn.dtype == np.uint8
    first = drawn[6 : 6 + SIDE, 6 : 6 + SIDE]
    assert np.array_equal(first, overlay(ground(SIDE, SIDE), halves(SIDE, SIDE), PAINT))
    assert all(holds(drawn[-40:], color) for color in PAINT)  # the legend


def test_predictions_are_beside_the_ground_truth_and_below_the_wrong_pixels():
    ground_truth, predicted = halves(60, 60), halves(60, 60, 0, 2)
    (drawn,) = draw_samples(
        batch_of([ground_truth]), {"ids": [torch.from_numpy(predicted)]}, CLASSES, PAINT
    )
    side, far = slice(PART_SIDE), slice(PART_SIDE + 6, 2 * PART_SIDE + 6)
    image, mistakes, target, prediction = (
        drawn[side, side],
        drawn[side, far],
        drawn[far, side],
        drawn[far, far],
    )
    assert (image == 128).all()
    wrong = (mistakes == np.array(WRONG)).all(axis=-1)
    assert not wrong[:, :150].any() and wrong[:, -150:].all()  # the right half is of another class
    assert holds(target, PAINT[1]) and not holds(target, PAINT[2])
    assert holds(prediction, PAINT[2]) and not holds(prediction, PAINT[1])
    (right,) = draw_samples(
        batch_of([ground_truth]), {"ids": [torch.from_numpy(ground_truth)]}, CLASSES, PAINT
    )
    assert not holds(right[side, far], WRONG)
    below = slice(far.stop, far.stop + 18)
    assert (drawn[below] != right[below]).any()  # 50.0 % and 100.0 % of the pixels right


def test_an_image_of_ignored_pixels_alone_is_drawn():
    ids = np.full((30, 60), 255, dtype=np.uint8)
    (drawn,) = draw_samples(
        batch_of([ids]), {"ids": [torch.zeros(30, 60, dtype=torch.uint8)]}, CLASSES, PAINT
    )
    assert drawn.dtype == np.uint8 and not holds(drawn, WRONG)
    assert draw_batch(batch_of([ids]), CLASSES, PAINT).dtype == np.uint8


def test_many_training_images_make_a_sheet_of_bounded_size():
    assert max(draw_batch(batch_of([halves()] * 40), CLASSES, PAINT).shape) < 2000


@pytest.mark.parametrize(("height", "width"), [(1, 1), (30, 600), (600, 30), (64, 64)])
def test_a_sample_is_at_most_as_wide_as_a_record_keeps_it(height, width):
    batch = batch_of([halves(height, width)])
    (drawn,) = draw_samples(batch, {"ids": batch["ids"]}, CLASSES, PAINT)
    assert 200 <= drawn.shape[1] <= 640


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (600, 10), (10, 600), (96, 72), (480, 640), (300, 4000)]
)
def test_predictions_are_drawn_on_images_of_any_shape(height, width):
    drawn = draw_prediction(ground(height, width), halves(height, width), CLASSES, PAINT)
    assert 640 <= max(drawn.shape) <= 1600 + 120 and drawn.shape[1] >= NARROWEST
    assert holds(drawn[-60:], PAINT[1])
    assert not holds(drawn, PAINT[2])


def test_a_drawn_prediction_has_its_classes_in_place():
    drawn = draw_prediction(ground(80, 160), halves(80, 160), CLASSES, PAINT)
    assert drawn.shape[1] == 640  # four times as large
    assert (drawn[:320, 319] == PAINT[0]).all() and (drawn[:320, 320] == PAINT[1]).all()


def legend_of(pixels, names, width=640, **more):
    drawn = with_legend(ground(10, width), np.array(pixels), names, class_colors(names), **more)
    assert drawn.shape[1] == max(width, NARROWEST) and (drawn[:10, :width] == 128).all()
    return drawn[10:]


def pixels_of(count, ignored=0):
    return [*range(1, count + 1), *[0] * (255 - count), ignored]


def test_a_legend_names_the_largest_classes():
    names = [f"class number {i}" for i in range(40)]
    strip, colors = legend_of(pixels_of(40), names), class_colors(names)
    assert [holds(strip, colors[i]) for i in range(40)] == [i >= 40 - MOST_NAMES for i in range(40)]
    assert not holds(strip, (0, 0, 0)) and holds(
        legend_of(pixels_of(3, ignored=1), names), (0, 0, 0)
    )


@pytest.mark.parametrize("width", [1, 96, 300, 2000])
def test_a_legend_fits_any_width(width):
    strip = legend_of(
        pixels_of(11, ignored=5),
        [f"a class with a long name {i}" for i in range(11)],
        width,
        words=["words:"],
        shares=True,
    )
    assert strip.shape[0] < 400 and all(holds(strip, color) for color in class_colors(range(11)))


def test_names_that_no_font_can_write_are_numbered():
    unwritable = "\U000e0001\U0010fffd"
    assert np.array_equal(
        legend_of(pixels_of(2), ["ant", unwritable]), legend_of(pixels_of(2), ["ant", "#1"])
    )


def test_an_image_is_described_by_its_classes():
    ids = [
        torch.tensor([[1, 1, 1, 0], [2, 2, 1, 0]], dtype=torch.uint8),
        torch.zeros(3, 1, dtype=torch.uint8),
    ]
    rows = json.loads(json.dumps(describe({"ids": ids}, ["a.jpg", "b.jpg"], CLASSES)))
    shares = [
        {"label": "bee", "id": 1, "share": 0.5},
        {"label": "ant", "id": 0, "share": 0.25},
        {"label": "cat", "id": 2, "share": 0.25},
    ]
    assert rows[0] == {"file": "a.jpg", "width": 4, "height": 2, "classes": shares}
    assert rows[1] == {
        "file": "b.jpg",
        "width": 1,
        "height": 3,
        "classes": [{"label": "ant", "id": 0, "share": 1.0}],
    }


def test_files_of_a_prediction_hold_its_ids_and_their_colors():
    ids = torch.from_numpy(halves(4, 6))
    files = prediction_files({"ids": [ids]}, PAINT)
    assert np.array_equal(files["ids"][0], ids.numpy()) and files["ids"][0].dtype == np.uint8
    assert np.array_equal(next(iter(files["colors"])), color_image(ids.numpy(), PAINT))


@pytest.mark.parametrize("num_classes", [1, 11, 150])
def test_a_confusion_matrix_of_millions_of_pixels_fits_a_screen(num_classes):
    confusion = np.full((num_classes, num_classes), 12345) + np.diag(np.full(num_classes, 10**7))
    image = draw_pixel_confusion(confusion, [f"class number {i}" for i in range(num_classes)])
    assert max(image.shape) <= 12 * num_classes + 300 or max(image.shape) < 1500
    confusion[0] = 0  # a class without pixels
    assert draw_pixel_confusion(confusion, [str(i) for i in range(num_classes)]).dtype == np.uint8


def per_class_of(scores, pixels=None):
    scores = np.array(scores)
    return {
        "IoU": scores / 2,
        "accuracy": scores,
        "pixels": np.full(len(scores), 1 / len(scores)) if pixels is None else pixels,
    }


def test_a_longer_bar_is_a_better_class_and_an_absent_one_has_none():
    drawn = draw_iou_per_class(per_class_of([0.5, np.nan, 1.0]), CLASSES)
    rows = [
        (drawn[top : top + 22] == np.array(BAR)).all(axis=-1).any(axis=0).sum()
        for top in (34, 56, 78)
    ]
    assert rows == [91, 0, 181]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [1, 40, 41, 255])
def test_bars_keep_their_size_with_any_number_of_classes(num_classes):
    names = [f"class number {i} with a long name" for i in range(num_classes)]
    drawn = draw_iou_per_class(per_class_of(np.linspace(0.1, 1, num_classes)), names)
    assert drawn.shape[0] < 1000 and holds(drawn, BAR)
    assert not holds(draw_iou_per_class(per_class_of([np.nan] * num_classes), names), BAR)
