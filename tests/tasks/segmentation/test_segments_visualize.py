"""Drawings of instance and panoptic segmentation: masks, colors, mistakes, legends, charts."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from visionloop.engine.batch import RaggedTensor
from visionloop.tasks.drawing.charts import BAR
from visionloop.tasks.segmentation.drawing import PART_SIDE, SIDE, class_colors
from visionloop.tasks.segmentation.segments.mistakes import EXTRA, MISSED, match_image
from visionloop.tasks.segmentation.segments.names import deepest_pixel, write_names
from visionloop.tasks.segmentation.segments.overlay import (
    object_colors,
    outline,
    overlay_segments,
)
from visionloop.tasks.segmentation.segments.regions import (
    Region,
    Segments,
    fit_segments,
    regions_of_layers,
    regions_of_map,
)
from visionloop.tasks.segmentation.segments.visualize import (
    class_texts,
    count_classes,
    draw_batch,
    draw_instance_scores,
    draw_panoptic_scores,
    draw_prediction,
    draw_samples,
    split_predictions,
    without_padding,
)

CLASSES, IS_THING = ("ant", "bee", "sky"), (True, True, False)
PAINT = class_colors(CLASSES)
KINDS = ("instance", "panoptic")
PEAK = Path("/proc/self/clear_refs")


def holds(image, color):
    return (image == np.array(color)).all(axis=-1).any()


def ground(height=120, width=160, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def box(top, left, height, width, size_hw=(120, 160)):
    mask = np.zeros(size_hw, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def map_of(masks, size_hw):
    numbers = torch.zeros(size_hw, dtype=torch.int32)
    for i, mask in enumerate(masks):
        numbers[torch.from_numpy(mask)] = i + 1
    return numbers


def annotations(kind, masks, labels, *, scores=None, crowd=None, size_hw=(120, 160)):
    """Ground truth of one image, with scores its predictions."""
    content = (
        {"rles": [encode(mask) for mask in masks]}
        if kind == "instance"
        else {"segment_map": map_of(masks, size_hw)}
    )
    labels = np.array(labels, dtype=np.int64)
    if scores is not None:
        return content | {"labels": labels, "scores": np.array(scores, dtype=np.float32)}
    crowd = np.zeros(len(labels), dtype=bool) if crowd is None else np.array(crowd)
    areas = np.array([mask.sum() for mask in masks], dtype=np.int64)
    return content | {"labels": labels, "crowd": crowd, "areas": areas}


def predictions_of(*images):
    """Predictions as a task makes them, from `annotations` with scores."""
    masks = "rles" if "rles" in images[0] else "segment_map"
    return {
        "rles" if masks == "rles" else "segment_maps": [one[masks] for one in images],
        "labels": [torch.from_numpy(one["labels"]) for one in images],
        "scores": [torch.from_numpy(one["scores"]) for one in images],
    }


def eval_batch(*truths, size_hw=(120, 160), side=64):
    gray = torch.full((len(truths), 3, side, side), 128, dtype=torch.uint8)
    sizes = torch.tensor([size_hw] * len(truths))
    return {"pixel_values": gray, "sizes": sizes, "ground_truth": list(truths)}


def sample_of(truth, predicted, **more):
    (drawn,) = draw_samples(eval_batch(truth, **more), predictions_of(predicted), CLASSES, PAINT)
    return drawn


def mistakes_of(drawn, height):
    return drawn[:height, PART_SIDE + 6 : 2 * PART_SIDE + 6]


def blocks(count, size_hw, side):
    """Disjoint squares in rows."""
    columns = size_hw[1] // (side + 1)
    assert count <= columns * (size_hw[0] // (side + 1))
    corners = [divmod(i, columns) for i in range(count)]
    step = side + 1
    return [box(row * step, column * step, side, side, size_hw) for row, column in corners]


def segments_of(masks, labels, scores=None):
    regions = regions_of_map(map_of(masks, masks[0].shape), len(masks), masks[0].shape)
    crowd = np.zeros(len(labels), dtype=bool)
    return Segments(regions, np.array(labels), crowd, scores)


@pytest.mark.parametrize("drawn_hw", [(120, 160), (640, 853), (37, 49)])
def test_run_lengths_and_a_map_of_the_same_segments_are_drawn_alike(drawn_hw):
    masks = [*blocks(9, (120, 160), 25), box(100, 3, 20, 150), box(99, 159, 1, 1)]
    labels = [0, 1, 0, 0, 1, 1, 0, 0, 1, 2, 0]
    one, other = (
        fit_segments(annotations(kind, masks, labels), (120, 160), drawn_hw) for kind in KINDS
    )
    for a, b in zip(one.regions, other.regions, strict=True):
        assert a[:2] == b[:2] and np.array_equal(a.mask, b.mask)
    drawings = [overlay_segments(ground(*drawn_hw), part, CLASSES, PAINT) for part in (one, other)]
    assert np.array_equal(*drawings)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_between_the_pixels_of_a_drawing_keeps_one_of_its_own(kind):
    masks = [box(601, 401, 1, 1, (1200, 1600)), box(1199, 1599, 1, 1, (1200, 1600))]
    truth = annotations(kind, masks, [0, 1], size_hw=(1200, 1600))
    segments = fit_segments(truth, (1200, 1600), (12, 16))
    assert segments.areas.tolist() == [1, 1]
    assert [(part.top, part.left) for part in segments.regions] == [(6, 4), (11, 15)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_without_a_pixel_is_no_error(kind):
    truth = annotations(kind, [box(0, 0, 0, 0), box(5, 5, 20, 20)], [0, 1])
    segments = fit_segments(truth, (120, 160), (60, 80))
    assert segments.areas[0] == 0 and segments.areas[1] == 100
    assert overlay_segments(ground(60, 80), segments, CLASSES, PAINT).shape == (60, 80, 3)


def test_layers_give_the_masks_of_their_segments():
    layers = torch.full((2, 120, 160), 255, dtype=torch.uint8)
    layers[0, :50, :60], layers[0, 60:80, 10:30], layers[1, 40:70, 40:70] = 0, 254, 0
    segments = torch.tensor([[1, 0], [0, 254], [0, 0]])
    regions = regions_of_layers(layers, segments, (120, 160))
    expected = [box(40, 40, 30, 30), box(60, 10, 20, 20), box(0, 0, 50, 60)]
    for region, mask in zip(regions, expected, strict=True):
        drawn = np.zeros_like(mask)
        drawn[region.window] = region.mask
        assert np.array_equal(drawn, mask)


@pytest.mark.parametrize("count", [1, 30, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_every_object_has_pixels_of_its_color(kind, count):
    size_hw = 360, 480
    masks = blocks(count, size_hw, 17)
    labels, scores = np.arange(count) % 2, np.linspace(1, 0.5, count)
    predicted = annotations(kind, masks, labels, scores=scores, size_hw=size_hw)
    segments = fit_segments(predicted, size_hw, size_hw)
    drawn = overlay_segments(ground(*size_hw), segments, CLASSES, PAINT)
    colors = object_colors(segments, PAINT, max(size_hw))
    for region, color in zip(segments.regions, colors, strict=True):
        assert (drawn[region.window] == color).all(axis=-1).sum() >= 17


def test_overlapping_masks_are_both_seen_by_their_outlines():
    masks = [box(20, 20, 60, 90), box(40, 60, 70, 80), box(45, 65, 20, 20)]
    truth = annotations("instance", masks, [0, 1, 0])
    segments = fit_segments(truth, (120, 160), (120, 160))
    bare = Segments(segments.regions, segments.labels, segments.crowd)
    drawn = overlay_segments(ground(), bare, CLASSES, PAINT)
    colors = object_colors(segments, PAINT, 160)
    for region, color in zip(segments.regions, colors, strict=True):
        line = outline(region, (120, 160), 1)
        is_seen = (drawn[region.window] == color).all(axis=-1)[line]
        assert is_seen.mean() > 0.8


def test_a_crowd_is_drawn_in_stripes():
    truth = annotations("instance", [box(10, 10, 100, 140)], [0], crowd=[True])
    crowd = fit_segments(truth, (120, 160), (120, 160))
    drawn = overlay_segments(ground(), crowd, CLASSES, PAINT)[12:40, 12:148]
    bare = (drawn == 128).all(axis=-1).mean()
    assert 0.4 < bare < 0.6


def test_neighbors_of_a_class_differ_and_a_lone_object_has_the_color_of_its_class():
    row = [box(10, 10 + 20 * i, 20, 20) for i in range(6)]
    colors = object_colors(segments_of([*row, box(90, 140, 10, 10)], [0] * 7), PAINT, 160)
    assert all((a != b).any() for a, b in pairwise(colors[:6]))
    assert np.array_equal(colors[6], PAINT[0])
    mixed = object_colors(segments_of(row, [0, 1, 2, 0, 1, 2]), PAINT, 160)
    assert np.array_equal(mixed, PAINT[[0, 1, 2, 0, 1, 2]])


def test_an_outline_is_inside_its_mask_and_not_along_the_border_of_the_image():
    inner = outline(Region(10, 10, np.ones((9, 11), dtype=bool)), (120, 160), 2)
    assert inner.sum() == 9 * 11 - 5 * 7 and not inner[2:-2, 2:-2].any()
    assert not outline(Region(0, 0, np.ones((120, 160), dtype=bool)), (120, 160), 2).any()
    corner = outline(Region(0, 150, np.ones((20, 10), dtype=bool)), (120, 160), 1)
    assert np.argwhere(~corner).tolist() == [[i, j] for i in range(19) for j in range(1, 10)]


@settings(max_examples=60)
@given(st.integers(1, 260), st.integers(1, 260), st.floats(0.001, 1), st.integers(0, 2**32 - 1))
def test_the_deepest_pixel_is_in_the_mask(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    mask[seed % height, seed % width] = True
    assert mask[deepest_pixel(Region(3, 5, mask))]


def test_the_name_of_a_ring_is_on_the_ring():
    rows, columns = np.indices((200, 300))
    radius = np.hypot(rows - 100, columns - 150)
    mask = (radius < 95) & (radius > 30)
    row, column = deepest_pixel(Region(0, 0, mask))
    assert 50 < np.hypot(row - 100, column - 150) < 75


@pytest.mark.parametrize("side", [8, 30, 60, 110])
def test_a_tag_hides_at_most_half_of_its_mask_and_no_other_one(side):
    masks = [box(0, 0, side, side), box(120 - side // 2, 159 - side // 2, side // 2, side // 2)]
    segments = segments_of(masks, [0, 1], np.array([0.9, 0.8]))
    drawn = write_names(ground(), segments, CLASSES, PAINT[[0, 1]])
    hidden = (drawn != 128).any(axis=-1)
    assert hidden.any()
    for mask in masks:
        assert hidden[mask].mean() <= 0.5


def test_names_at_one_place_do_not_cover_each_other():
    masks = [box(0, 0, 120, 160), box(0, 0, 119, 160), box(0, 0, 118, 160)]
    truth = annotations("instance", masks, [0, 1, 2])
    segments = fit_segments(truth, (120, 160), (120, 160))
    drawn = write_names(ground(), segments, CLASSES, PAINT)
    areas = []
    for color in PAINT:
        rows, columns = np.nonzero((drawn == color).all(axis=-1))
        areas.append((rows.min(), rows.max(), columns.min(), columns.max()))
    for top, bottom, left, right in areas:
        crossing = [
            other
            for other in areas
            if other[0] <= bottom and other[1] >= top and other[2] <= right and other[3] >= left
        ]
        assert len(crossing) == 1


def test_many_objects_of_a_class_are_named_by_the_legend_alone():
    masks = blocks(20, (400, 500), 70)
    few, many = (segments_of(masks[:count], [0] * count) for count in (12, 13))
    drawn = [write_names(ground(400, 500), one, CLASSES, PAINT[one.labels]) for one in (few, many)]
    assert (drawn[0] != 128).any() and (drawn[1] == 128).all()


CASES = {
    "right": ([0, 1, 2], [0, 1, 2], False, False),
    "missed": ([0, 1, 2], [0, 2], True, False),
    "extra": ([0, 2], [0, 1, 2], False, True),
    "relabelled": ([0, 1, 2], [0, 3, 2], True, True),
    "shifted": ([0, 1, 2], [0, 4, 2], True, True),
    "a little shifted": ([0, 1, 2], [0, 5, 2], False, False),
    "no prediction": ([0, 1, 2], [], True, False),
    "no ground truth": ([], [0, 1, 2], False, True),
    "nothing": ([], [], False, False),
}
SHAPES = (
    (box(5, 5, 40, 40), 0),
    (box(60, 60, 30, 50), 1),
    (box(100, 0, 20, 160), 2),
    (box(60, 60, 30, 50), 0),
    (box(60, 100, 30, 50), 1),
    (box(60, 65, 30, 50), 1),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_colors_of_mistakes_are_there_if_and_only_if_there_are_mistakes(kind, case):
    chosen, predicted, is_missed, is_extra = CASES[case]
    truth = [SHAPES[i] for i in chosen]
    if kind == "panoptic":  # a void pixel of the ground truth does not count: fill it
        truth.append((~np.any([mask for mask, _ in truth] or [box(0, 0, 0, 0)], axis=0), 1))
        predicted = [*predicted, "rest"]
    rest = truth[-1:] if kind == "panoptic" else []
    found = [*rest, *(SHAPES[i] for i in predicted if i != "rest")]
    drawn = sample_of(
        annotations(kind, [mask for mask, _ in truth], [label for _, label in truth]),
        annotations(
            kind,
            [mask for mask, _ in found],
            [label for _, label in found],
            scores=[0.9] * len(found),
        ),
    )
    panel = mistakes_of(drawn, 238)
    assert (holds(panel, MISSED), holds(panel, EXTRA)) == (is_missed, is_extra)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crowd_is_never_missed_and_a_prediction_in_it_no_mistake(kind):
    masks = [box(10, 10, 100, 60), box(10, 90, 60, 60)]
    truth = annotations(kind, masks, [0, 1], crowd=[True, False])
    inside = annotations(kind, [box(20, 20, 30, 30), masks[1]], [0, 1], scores=[0.5, 0.9])
    for predicted, extra in ((inside, [False, False]), (inside | {"labels": [1, 0]}, [True, True])):
        is_missed, is_extra = match_image(truth, predicted, (120, 160), 3)
        assert is_missed.tolist() == [False, extra[1]] and is_extra.tolist() == extra


def test_a_prediction_in_void_is_no_mistake():
    truth = annotations("panoptic", [box(0, 0, 120, 80)], [0])
    masks = [box(0, 0, 120, 80), box(30, 90, 60, 60)]
    is_missed, is_extra = match_image(
        truth, annotations("panoptic", masks, [0, 1], scores=[0.9, 0.9]), (120, 160), 3
    )
    assert not is_missed.any() and not is_extra.any()
    drawn = sample_of(truth, annotations("panoptic", masks, [0, 1], scores=[0.9, 0.9]))
    assert (mistakes_of(drawn, 238)[:, 170:] == 0).all()  # void is black


def test_of_two_predictions_of_an_instance_one_is_extra():
    masks = [box(10, 10, 50, 50)]
    predicted = annotations("instance", masks * 2, [0, 0], scores=[0.5, 0.9])
    is_missed, is_extra = match_image(annotations("instance", masks, [0]), predicted, (120, 160), 3)
    assert is_missed.tolist() == [False] and is_extra.tolist() == [True, False]


def test_instances_of_a_low_score_are_not_in_a_sample():
    masks = [box(10, 10, 50, 50), box(60, 90, 50, 50)]
    truth = annotations("instance", masks[:1], [0])
    low = sample_of(truth, annotations("instance", masks, [0, 1], scores=[0.9, 0.3]))
    high = sample_of(truth, annotations("instance", masks, [0, 1], scores=[0.9, 0.4]))
    assert not holds(low, PAINT[1]) and holds(high, PAINT[1])


def test_ground_truth_and_prediction_are_below_the_image():
    truth = annotations("instance", [box(10, 10, 50, 50)], [0])
    drawn = sample_of(truth, annotations("instance", [box(10, 10, 50, 50)], [1], scores=[0.9]))
    below, far = slice(244, 482), slice(PART_SIDE + 6, None)
    assert (drawn[:238, :PART_SIDE] == 128).all()
    assert holds(drawn[below, :PART_SIDE], PAINT[0]) and holds(drawn[below, far], PAINT[1])
    assert not holds(drawn[below, :PART_SIDE], PAINT[1])
    assert not holds(drawn[below, far], PAINT[0])


@pytest.mark.parametrize(
    ("size_hw", "resized_hw"), [((100, 50), (64, 32)), ((30, 600), (3, 64)), ((1, 999), (1, 64))]
)
def test_padding_is_cut_off(size_hw, resized_hw):
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[: resized_hw[0], : resized_hw[1]] = 200
    cut = without_padding(image, size_hw)
    assert cut.shape[:2] == resized_hw and (cut == 200).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", [(1, 1), (30, 600), (600, 30), (64, 64)])
def test_a_sample_is_at_most_as_wide_as_a_record_keeps_it(kind, size_hw):
    full = np.ones(size_hw, dtype=bool)
    truth = annotations(kind, [full], [0], size_hw=size_hw)
    predicted = annotations(kind, [full], [0], scores=[0.9], size_hw=size_hw)
    drawn = sample_of(truth, predicted, size_hw=size_hw)
    assert 200 <= drawn.shape[1] <= 640 and drawn.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", [(1, 1), (600, 10), (10, 600), (480, 640), (300, 4000)])
def test_predictions_are_drawn_on_images_of_any_shape(kind, size_hw):
    masks = [np.arange(size_hw[1]) % 2 * np.ones((size_hw[0], 1)) == side for side in (0, 1)]
    masks = [mask for mask in masks if mask.any()]
    predicted = annotations(
        kind, masks, [0, 2][: len(masks)], scores=[0.9] * len(masks), size_hw=size_hw
    )
    image = ground(max(1, size_hw[0] // 2), max(1, size_hw[1] // 2))
    drawn = draw_prediction(image, size_hw, predicted, CLASSES, PAINT, IS_THING)
    assert 640 <= max(drawn.shape) <= 1600 + 120 and holds(drawn[-60:], PAINT[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_segments_is_drawn_as_it_is(kind):
    nothing = annotations(kind, [], [], scores=[])
    drawn = draw_prediction(ground(480, 640), (480, 640), nothing, CLASSES, PAINT, IS_THING)
    assert (drawn[:480] == 128).all() and (drawn[480:] < 100).any()  # the words "no segment"
    sample = sample_of(annotations(kind, [], []), nothing)
    assert not holds(mistakes_of(sample, 238), MISSED)


def test_a_legend_counts_things_and_gives_the_share_of_stuff():
    masks = [box(0, 0, 10, 10), box(20, 0, 10, 10), box(40, 0, 10, 20), box(60, 0, 60, 160)]
    counts = count_classes(segments_of(masks, [1, 1, 0, 2]), 3)
    assert counts.tolist() == [[1, 2, 1], [200, 200, 9600]]
    texts = class_texts(counts, 120 * 160, IS_THING)
    assert list(texts.items()) == [(1, ("2",)), (0, ("1",)), (2, ("50.0 %",))]


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of memory can be reset on Linux alone")
def test_masks_of_a_large_image_are_in_memory_one_at_a_time():
    def status(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

    size_hw = 4000, 3000
    rle = encode(box(1000, 500, 800, 800, size_hw))
    predicted = {"rles": [rle] * 40, "labels": np.zeros(40), "scores": np.ones(40)}
    PEAK.write_text("5")
    before = status("VmRSS")
    draw_prediction(ground(1000, 750), size_hw, predicted, CLASSES, PAINT, IS_THING)
    assert status("VmHWM") - before < 150  # MiB; the masks have 11 MiB each


def training_batch(side=64):
    layers = torch.full((2, side, side), 255, dtype=torch.uint8)
    layers[0, :20, :20], layers[1, 10:40, 10:40] = 0, 0
    empty = torch.full((1, side, side), 255, dtype=torch.uint8)
    ignored = torch.zeros(2, side, side, dtype=torch.bool)
    ignored[0, 50:] = True
    return {
        "pixel_values": torch.full((2, 3, side, side), 128, dtype=torch.uint8),
        "layers": RaggedTensor.cat([layers, empty]),
        "segments": RaggedTensor.cat([torch.tensor([[0, 0], [1, 0]]), torch.zeros(0, 2).long()]),
        "labels": RaggedTensor.cat([torch.tensor([0, 2]), torch.zeros(0).long()]),
        "ignored": ignored,
    }


def test_a_training_batch_shows_its_segments_in_place_and_ignored_pixels_dark():
    drawn = draw_batch(training_batch(), CLASSES, PAINT, IS_THING)
    # one above the other
    first, second = (
        drawn[6 : 6 + SIDE, 6 : 6 + SIDE],
        drawn[12 + SIDE : 12 + 2 * SIDE, 6 : 6 + SIDE],
    )
    scale = SIDE / 64
    assert holds(first[: round(20 * scale)], PAINT[0]) and holds(
        first[round(30 * scale) :], PAINT[2]
    )
    assert (first[round(50 * scale) + 1 :] == 128 // 3).all()
    assert (second == 128).all()
    strip = drawn[-40:]
    assert holds(strip, PAINT[0]) and holds(strip, PAINT[2]) and not holds(strip, PAINT[1])
    assert holds(strip, (0, 0, 0))


def test_predictions_are_split_by_image():
    masks = [box(0, 0, 10, 10), box(20, 0, 10, 10)]
    images = [annotations("instance", masks, [0, 1], scores=[0.9, 0.2])] * 2
    first, second = split_predictions(predictions_of(*images), 0.5)
    assert first["rles"] == [encode(masks[0])] and second["labels"].tolist() == [0]
    (whole,) = split_predictions(
        predictions_of(annotations("panoptic", masks, [0, 1], scores=[0.9, 0.2])), 0.5
    )
    assert whole["labels"].tolist() == [0, 1] and whole["segment_map"].max() == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [1, 3, 150])
def test_charts_keep_their_size_and_leave_out_classes_without_a_score(num_classes):
    names = [f"class number {i} with a long name" for i in range(num_classes)]
    scores = np.linspace(0.1, 1, num_classes)
    counts = np.full(num_classes, 123456)
    confusion = np.ones((num_classes + 1, num_classes + 1), dtype=np.int64)
    panoptic = {"PQ": scores, "SQ": scores, "RQ": scores, "segments": counts}
    instance = {"AP": scores, "AP50": scores, "segments": counts}
    recall = np.linspace(0, 1, 101)
    curves = {"recall": recall, "precision": np.tile(recall[::-1], (num_classes, 1))}
    drawings = [
        draw_panoptic_scores(confusion, panoptic, names),
        draw_instance_scores(curves, confusion, instance, names),
    ]
    for images in drawings:
        assert all(max(image.shape) < 12 * num_classes + 1000 for image in images.values())
    nothing = dict.fromkeys(("PQ", "SQ", "RQ"), scores * np.nan) | {"segments": counts * 0}
    bare = draw_panoptic_scores(confusion, nothing, names)["panoptic_quality"]
    assert holds(drawings[0]["panoptic_quality"], BAR) and not holds(bare, BAR)


def test_the_numbers_behind_a_bar_are_not_cut_off():
    per_class = dict.fromkeys(("PQ", "SQ", "RQ"), np.ones(1)) | {"segments": np.array([9999999])}
    confusion = np.zeros((2, 2), dtype=np.int64)
    drawn = draw_panoptic_scores(confusion, per_class, ["ant"])["panoptic_quality"]
    assert (drawn[:, -4:] == 255).all()
