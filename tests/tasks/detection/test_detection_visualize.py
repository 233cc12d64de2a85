"""Drawings of detection: boxes and tags, ground truth beside predictions, curves and bars."""

import numpy as np
import pytest
import torch

from visionloop.metrics.detection_confusion import box_iou, count_confusion, match_boxes
from visionloop.tasks.detection.visualize import (
    PAIR_SIDE,
    draw_batch,
    draw_prediction,
    draw_samples,
)
from visionloop.tasks.drawing.boxes import COLORS, EDGE, class_color, class_colors, draw_boxes
from visionloop.tasks.drawing.canvas import PLAIN, RIGHT
from visionloop.tasks.drawing.charts import BAR, draw_ap_per_class, draw_precision_recall
from visionloop.tasks.drawing.legend import MOST_NAMES, with_legend

CLASSES = ["ant", "bee", "cat"]


def holds(image, color):
    return (image == np.array(color)).all(axis=-1).any()


def where(image, color):
    """(left, top, right, bottom) of the pixels of this color, the last ones included."""
    rows, columns = np.nonzero((image == np.array(color)).all(axis=-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def ground(height=200, width=300, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def evaluation_batch(boxes_of_images, size_hw=(60, 120), side=64):
    """A batch of gray images; boxes_of_images: a list of (label, x, y, w, h) per image."""
    rows = [np.array(boxes, dtype=np.float64).reshape(-1, 5) for boxes in boxes_of_images]
    ground_truth = [
        {
            "boxes": row[:, 1:],
            "labels": row[:, 0].astype(np.int64),
            "crowd": np.zeros(len(row), dtype=bool),
            "areas": row[:, 3] * row[:, 4],
        }
        for row in rows
    ]
    pixels = torch.full((len(boxes_of_images), 3, side, side), 128, dtype=torch.uint8)
    return {
        "pixel_values": pixels,
        "sizes": torch.tensor([size_hw] * len(boxes_of_images)),
        "ground_truth": ground_truth,
    }


def predictions_of(images):
    """images: per image as many (label, score, x1, y1, x2, y2)."""
    rows = torch.tensor(images, dtype=torch.float32)
    return {"boxes": rows[..., 2:], "scores": rows[..., 1], "labels": rows[..., 0].long()}


def test_a_class_keeps_its_color_and_neighbors_differ():
    colors = [class_color(i) for i in range(400)]
    assert colors == [class_color(i) for i in range(400)] and len(set(colors)) == 400
    assert all(0 <= part <= 255 for color in colors for part in color)
    assert all(max(color) > 150 for color in colors)  # beside the dark line
    first = np.array(colors[: len(COLORS)])
    assert np.abs(first[:, None] - first).sum(-1)[~np.eye(len(first), dtype=bool)].min() > 100


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_frame_stands_where_the_box_is_on_any_ground(value):
    drawn = draw_boxes(ground(value=value), [[50, 40, 150, 120]], [2], CLASSES, names=False)
    assert where(drawn, class_color(2)) == (50, 40, 149, 119)
    assert where(drawn, EDGE) == (49, 39, 150, 120)
    assert (drawn[45:115, 55:145] == value).all()  # the inside is free


def test_a_dashed_frame_has_gaps_on_every_side():
    solid = draw_boxes(ground(), [[50, 40, 150, 120]], [0], CLASSES, names=False)
    dashed = draw_boxes(ground(), [[50, 40, 150, 120]], [0], CLASSES, names=False, dashed=[True])
    for side in (np.s_[40, 50:150], np.s_[119, 50:150], np.s_[40:120, 50], np.s_[40:120, 149]):
        assert (solid[side] == COLORS[0]).all()
        assert 0.3 < (dashed[side] == COLORS[0]).all(axis=-1).mean() < 0.9


def test_tags_stay_inside_and_off_each_other():
    size_hw = (200, 300)
    corners = [
        [-20, -20, 80, 60],
        [250, 150, 320, 230],
        [0, 100, 60, 199],
        [150, 0, 290, 90],
        [152, 2, 292, 92],
    ]
    drawn = draw_boxes(
        ground(*size_hw), corners, [0, 1, 2, 0, 1], CLASSES, [0.9, 0.8, 0.7, 0.6, 0.5]
    )
    assert drawn.shape == (*size_hw, 3)
    for color in COLORS[:3]:  # a filled tag: many more pixels of the color than the frames have
        assert (drawn == np.array(color)).all(axis=-1).sum() > 500
    bare = draw_boxes(ground(*size_hw), corners, [0, 1, 2, 0, 1], CLASSES, names=False)
    assert (bare == np.array(COLORS[0])).all(axis=-1).sum() < (drawn == np.array(COLORS[0])).all(
        axis=-1
    ).sum()


def test_tags_of_small_boxes_are_shortened_then_dropped():
    def tag_pixels(side, name):
        boxes = [[100, 100, 100 + side, 100 + side]]
        drawn, bare = (
            draw_boxes(ground(), boxes, [0], [name], scores, names=scores is not None)
            for scores in ([0.9], None)
        )
        return int((drawn != bare).any(axis=-1).sum())

    assert tag_pixels(120, "grasshopper") > tag_pixels(40, "grasshopper") > 0
    assert tag_pixels(40, "grasshopper") == tag_pixels(
        40, "a name that is longer"
    )  # the score alone
    assert tag_pixels(12, "ant") == 0


def test_hundreds_of_boxes_leave_the_image_visible():
    generator = np.random.default_rng(0)
    starts = generator.uniform(0, [560, 400], (300, 2))
    boxes = np.concatenate([starts, starts + generator.uniform(30, 80, (300, 2))], axis=1)
    scores, labels = generator.random(300), generator.integers(0, 3, 300)
    image = ground(480, 640)
    tagged, bare = (
        draw_boxes(image, boxes, labels, CLASSES, scores),
        draw_boxes(image, boxes, labels, CLASSES, names=False),
    )
    assert (tagged != bare).any(axis=-1).mean() < 0.2
    assert (tagged == image).all(axis=-1).mean() > 0.25


@pytest.mark.parametrize(
    "box", [[-50, -50, -10, -10], [20, 20, 10, 10], [5, 5, 5, 90], [400, 10, 500, 50]]
)
def test_a_box_without_a_part_in_the_image_is_not_drawn(box):
    assert (draw_boxes(ground(), [box], [0], CLASSES, [0.9]) == ground()).all()


def test_an_image_without_boxes_stays_as_it_is():
    assert (draw_boxes(ground(), [], [], CLASSES, []) == ground()).all()


def test_a_training_batch_shows_its_targets_in_place():
    batch = {
        "pixel_values": torch.full((2, 3, 100, 100), 128, dtype=torch.uint8),
        "boxes": [torch.tensor([[0.5, 0.5, 0.5, 0.25]]), torch.zeros(0, 4)],
        "class_labels": [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)],
    }
    drawn = draw_batch(batch, CLASSES)
    assert drawn.dtype == np.uint8
    assert where(drawn[:406], class_color(1)) == (
        6 + 100,
        6 + 150,
        6 + 299,
        6 + 249,
    )  # 400 px wide, 6 px of margin
    assert not holds(drawn, class_color(0))


def test_predictions_are_scaled_from_the_pixels_of_the_file():
    batch = evaluation_batch(
        [[(0, 30, 15, 60, 30)]]
    )  # the middle of 120 x 60, seen by the model as 64 x 64
    (drawn,) = draw_samples(
        batch, predictions_of([[(0, 0.9, 30, 15, 90, 45), (1, 0.1, 0, 0, 20, 20)]]), ["ant", "bee"]
    )
    height, middle = PAIR_SIDE // 2, PAIR_SIDE + 6
    left, right = drawn[:height, :PAIR_SIDE], drawn[:height, middle : middle + PAIR_SIDE]
    box = np.array([30, 15, 90, 45]) * PAIR_SIDE / 120
    assert np.abs(np.array(where(left, class_color(0))) - box).max() <= 1
    top = round(box[1])
    assert (
        np.abs(np.array(where(right[top:], class_color(0))) - box + [0, top, 0, top]).max() <= 1
    )  # above it stands its score
    assert not holds(drawn, class_color(1))  # below the score from which on it is drawn
    assert holds(drawn, RIGHT)


def test_missed_and_extra_boxes_are_counted_and_dashed():
    boxes = [(0, 10, 10, 20, 20), (0, 60, 10, 40, 40)]
    right, wrong_class, elsewhere = (
        (0, 0.9, 10, 10, 30, 30),
        (1, 0.8, 60, 10, 100, 50),
        (0, 0.7, 0, 40, 10, 60),
    )
    batch = evaluation_batch([boxes])
    (drawn,) = draw_samples(batch, predictions_of([[right, wrong_class, elsewhere]]), CLASSES)
    (perfect,) = draw_samples(batch, predictions_of([[right, (0, 0.8, 60, 10, 100, 50)]]), CLASSES)
    assert holds(drawn, PLAIN) and not holds(drawn, RIGHT) and holds(perfect, RIGHT)

    def colored(image):  # of the frames on the left
        return (image[: PAIR_SIDE // 2, :PAIR_SIDE] == np.array(class_color(0))).all(axis=-1).sum()

    assert colored(drawn) < colored(perfect)


def test_predictions_are_matched_best_first_and_once():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 40, 40.0]])
    labels, crowd = np.array([0, 0, 1]), np.array([False, False, True])
    predictions = {
        "boxes": np.array([[0, 0, 10, 10]] * 3 + [[60, 60, 10, 10.0]] * 2),
        "scores": np.array([0.5, 0.9, 0.3, 0.8, 0.7]),
        "labels": np.array([0, 0, 0, 1, 0]),
    }
    matched, used = match_boxes(boxes, labels, crowd, predictions)
    assert matched.tolist() == [True, True, True]
    assert used.tolist() == [True, True, False, True, False]
    none = {key: values[:0] for key, values in predictions.items()}
    matched, used = match_boxes(boxes, labels, crowd, none)
    assert matched.tolist() == [False, False, True] and used.tolist() == []
    matched, used = match_boxes(boxes[:0], labels[:0], crowd[:0], predictions)
    assert matched.tolist() == [] and not used.any()


def test_confusions_count_right_wrong_missed_and_extra_boxes():
    boxes = np.array(
        [[0, 0, 10, 10], [50, 0, 10, 10], [0, 50, 10, 10], [50, 50, 40, 40], [200, 0, 9, 9.0]]
    )
    # in the first image: right; a worse one of another class at the same box; wrong class; in a
    # crowd; of low score; at no box. In the second: right
    detections = np.concatenate(
        [boxes[[0, 0, 1]], [[60, 60, 5, 5], [0, 50, 10, 10], [90, 90, 5, 5]], boxes[4:]]
    )
    state = {
        "sample_ids": np.array([3, 5]),
        "num_ground_truth": np.array([4, 1]),
        "num_detections": np.array([6, 1]),
        "ground_truth_boxes": boxes,
        "ground_truth_labels": np.array([0, 0, 1, 1, 0]),
        "ground_truth_crowd": np.array([False, False, False, True, False]),
        "boxes": detections,
        "scores": np.array([0.5, 0.9, 0.8, 0.7, 0.3, 0.6, 0.9]),
        "labels": np.array([0, 1, 1, 1, 1, 0, 0]),
    }
    assert count_confusion(state, 2).tolist() == [[2, 1, 0], [0, 0, 1], [1, 1, 0]]
    empty = {column: values[:0] for column, values in state.items()}
    assert count_confusion(empty, 2).tolist() == np.zeros((3, 3)).tolist()


def test_iou_is_that_of_the_formula_and_a_crowd_divides_by_the_prediction_alone():
    generator = np.random.default_rng(0)
    predicted, boxes = (
        np.concatenate([generator.uniform(0, 50, (9, 2)), generator.uniform(1, 50, (9, 2))], axis=1)
        for _ in "ab"
    )
    crowd = generator.random(9) < 0.5
    iou = box_iou(predicted, boxes, crowd)
    for i, (x, y, w, h) in enumerate(predicted):
        for k, (left, top, width, height) in enumerate(boxes):
            across = max(0, min(x + w, left + width) - max(x, left))
            down = max(0, min(y + h, top + height) - max(y, top))
            area = w * h if crowd[k] else w * h + width * height - across * down
            assert iou[i, k] == pytest.approx(across * down / area)
    assert box_iou(predicted[:0], boxes, crowd).shape == (0, 9)
    assert box_iou(predicted, boxes[:0], crowd[:0]).shape == (9, 0)


def test_images_without_ground_truth_or_predictions_are_drawn():
    batch = evaluation_batch([[], [(2, 5, 5, 50, 40)], []])
    predictions = predictions_of(
        [[(0, 0.1, 0, 0, 9, 9)], [(0, 0.1, 0, 0, 9, 9)], [(1, 0.9, 10, 10, 60, 50)]]
    )
    drawn = draw_samples(batch, predictions, CLASSES)
    held = [[holds(image, class_color(i)) for i in range(3)] for image in drawn]
    assert held == [[False] * 3, [False, False, True], [False, True, False]]


@pytest.mark.parametrize("size_hw", [(100, 100), (30, 400), (400, 30)])
def test_a_sample_is_at_most_as_wide_as_a_record_keeps_it_and_its_words_fit(size_hw):
    batch = evaluation_batch([[(0, 5, 5, 50, 40)]], size_hw=size_hw)
    (drawn,) = draw_samples(batch, predictions_of([[(0, 0.9, 5, 5, 55, 45)]]), CLASSES)
    assert 300 <= drawn.shape[1] <= 640 and drawn.dtype == np.uint8


def test_many_training_images_make_a_sheet_of_bounded_size():
    batch = evaluation_batch([[]] * 40, size_hw=(100, 100))
    batch["boxes"] = [torch.tensor([[0.5, 0.5, 0.5, 0.5]])] * 40
    batch["class_labels"] = [torch.tensor([i % 3]) for i in range(40)]
    assert max(draw_batch(batch, CLASSES).shape) < 2000


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (600, 10), (10, 600), (480, 640), (300, 4000)]
)
def test_a_prediction_is_drawn_on_images_of_any_shape(height, width):
    rows = [{"label": "bee", "id": 1, "score": 0.9, "box": [0, 0, width, height]}]
    drawn = draw_prediction(
        torch.zeros(3, height, width, dtype=torch.uint8), (height, width), {"detections": rows}
    )
    assert 640 <= max(drawn.shape) <= 1600 + 80 and min(drawn.shape[:2]) >= 20
    assert holds(drawn, class_color(1))
    assert (
        draw_prediction(
            torch.zeros(3, height, width, dtype=torch.uint8), (height, width), {"detections": []}
        ).dtype
        == np.uint8
    )


# of a photograph, in full and at a half
HALVED = (1600, 3200), (800, 1600)


def test_a_prediction_has_its_boxes_in_place():
    rows = [{"label": "ant", "id": 0, "score": 0.9, "box": [20, 10, 40, 30]}]
    drawn = draw_prediction(
        torch.full((3, 80, 160), 255, dtype=torch.uint8), (80, 160), {"detections": rows}
    )
    assert drawn.shape[1] == 640  # four times as large
    assert where(drawn[70:320], EDGE)[::2] == (79, 240)
    assert (drawn[159, 80:240] == COLORS[0]).all() and (drawn[60:159, 80] == COLORS[0]).all()


def test_boxes_are_drawn_in_place_on_an_image_read_at_a_reduced_size():
    rows = [{"label": "ant", "id": 0, "score": 0.9, "box": [400, 200, 800, 600]}]
    full, half = (torch.full((3, *size_hw), 255, dtype=torch.uint8) for size_hw in HALVED)
    expected = draw_prediction(full, HALVED[0], {"detections": rows})
    assert np.array_equal(draw_prediction(half, HALVED[0], {"detections": rows}), expected)


def test_a_legend_names_the_most_frequent_classes():
    names, colors = [f"class number {i}" for i in range(30)], class_colors(30)
    drawn = with_legend(ground(), np.arange(1, 31), names, colors, counted=True)
    assert drawn.shape[1] == 300 and (drawn[:200] == 128).all()
    strip = drawn[200:]
    assert all(holds(strip, class_color(i)) for i in range(30 - MOST_NAMES, 30)) and not any(
        holds(strip, class_color(i)) for i in range(30 - MOST_NAMES)
    )


def curves_of(num_classes, reached):
    recall = np.linspace(0, 1, 101)
    precision = np.where(recall <= np.array(reached)[:, None], 1.0, 0.0)
    return {"recall": recall, "precision": precision, "scores": np.zeros((num_classes, 101))}


def test_curves_have_the_colors_of_their_classes():
    curves = curves_of(3, [0.9, 0.5, 0.2])
    curves["precision"][2] = np.nan
    plot = draw_precision_recall(curves, CLASSES)[:, :470]
    assert (
        holds(plot, class_color(0))
        and holds(plot, class_color(1))
        and not holds(plot, class_color(2))
    )
    ends = [
        where(plot[200:400], class_color(i))[2] for i in (0, 1)
    ]  # recall 0.9 and 0.5 of 420 px, from 56 on
    assert ends == pytest.approx([56 + 0.905 * 420, 56 + 0.505 * 420], abs=5)


@pytest.mark.parametrize("num_classes", [1, 12, 13, 100])
def test_charts_keep_their_size_with_any_number_of_classes(num_classes):
    reached = np.linspace(0.1, 0.95, num_classes)
    names = [f"class number {i} with a long name" for i in range(num_classes)]
    curves = draw_precision_recall(curves_of(num_classes, reached), names)
    assert curves.shape == draw_precision_recall(curves_of(1, [0.5]), names).shape
    bars = draw_ap_per_class(
        {"AP": reached / 2, "AP50": reached, "boxes": np.arange(num_classes)}, names
    )
    assert bars.shape[0] <= 1000 and holds(bars, BAR)


@pytest.mark.filterwarnings("error")
def test_charts_of_nothing_are_legal():
    nothing = {
        "AP": np.full(3, np.nan),
        "AP50": np.full(3, np.nan),
        "boxes": np.zeros(3, dtype=np.int64),
    }
    assert not holds(draw_ap_per_class(nothing, CLASSES), BAR)
    curves = curves_of(3, [0.5] * 3)
    assert (
        draw_precision_recall(curves | {"precision": np.full((3, 101), np.nan)}, CLASSES).dtype
        == np.uint8
    )


def test_a_longer_bar_is_a_better_class():
    scores = np.array([0.25, 0.75])
    drawn = draw_ap_per_class(
        {"AP": scores, "AP50": scores, "boxes": np.array([3, 4])}, CLASSES[:2]
    )
    widths = [np.ptp(where(drawn[top : top + 22], BAR)[::2]) for top in (34, 56)]
    assert widths == [90, 270]
