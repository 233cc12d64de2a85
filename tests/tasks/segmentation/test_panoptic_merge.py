"""Panoptic maps: the authors' rules, query by query, and those of transformers."""

from types import SimpleNamespace

import pytest
import torch
from host_syncs import CountReads
from torch.nn import functional as F
from transformers import EomtImageProcessor

from visionloop.tasks.segmentation.panoptic.merge import number_segments, panoptic_maps
from visionloop.tasks.segmentation.segments import upsample

CLASSES, QUERIES, SIDE = 5, 30, 64
IS_THING = [True, True, False, False, True]
STUFF = [2, 3]
THRESHOLDS = {"score": 0.8, "overlap": 0.8}
# images whose resized size transformers rounds to the same
SIZES = [(64, 64), (48, 64), (64, 40), (96, 128), (200, 100), (30, 40), (120, 80), (32, 8)]


def random_outputs(seed, queries=QUERIES, likely=12, side=SIDE // 4):
    """Return (mask logits [Q, h, w] of blobs that overlap, class logits [Q, K + 1])."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.arange(side) + 0.5
    centers = side * torch.rand(queries, 2, 1, 1, generator=generator)
    radii = side * (0.06 + 0.2 * torch.rand(queries, 1, 1, generator=generator))
    distance = ((positions[:, None] - centers[:, 0]) ** 2 + (positions - centers[:, 1]) ** 2).sqrt()
    noise = torch.randn(queries, side, side, generator=generator)
    class_logits = torch.randn(queries, CLASSES + 1, generator=generator)
    strength = 3 + 4 * torch.rand(queries, generator=generator)
    labels = torch.randint(0, CLASSES, (queries,), generator=generator)
    labels[likely:] = CLASSES
    class_logits[torch.arange(queries), labels] += strength
    return (radii - distance) * 2 + 0.5 * noise, class_logits


def resized(mask_logits, size_hw, side=SIDE):
    factor = min(side / size_hw[0], side / size_hw[1])
    height, width = (round(length * factor) for length in size_hw)
    square = F.interpolate(mask_logits[None].float(), size=(side, side), mode="bilinear")
    return F.interpolate(square[..., :height, :width], size=size_hw, mode="bilinear")[0]


def by_the_rules(mask_logits, class_logits, size_hw, *, score, overlap, side=SIDE):
    """Merge query by query on whole images.

    Source: `to_per_pixel_preds_panoptic` in training/lightning_module.py of `tue-mps/eomt`.
    """
    scores, labels = class_logits.float().softmax(-1).max(-1)
    keep = (labels != CLASSES) & (scores > score)
    masks = resized(mask_logits, size_hw, side).sigmoid()[keep]
    scores, labels = scores[keep], labels[keep]
    result = torch.zeros(size_hw, dtype=torch.int32)
    segments, stuff = [], {}
    if not keep.any():
        return result, segments
    owner = (scores[:, None, None] * masks).argmax(0)
    for k, label in enumerate(labels.tolist()):
        original, new = masks[k] >= 0.5, owner == k
        final = original & new
        area, new_area = original.sum().item(), new.sum().item()
        if not area or not new_area or not final.any() or new_area / area < overlap:
            continue
        if label in stuff:
            result[final] = stuff[label]
            continue
        segments.append((label, scores[k].item()))
        if label in STUFF:
            stuff[label] = len(segments)
        result[final] = len(segments)
    return result, segments


def merged(mask_logits, class_logits, size_hw, side=SIDE, **thresholds):
    """Return (map, [(class, score), ...])."""
    segment_map, labels, scores = panoptic_maps(
        mask_logits, class_logits, size_hw, side, IS_THING, **(THRESHOLDS | thresholds)
    )
    assert segment_map.dtype == torch.int32 and tuple(segment_map.shape) == tuple(size_hw)
    assert (labels.dtype, scores.dtype) == (torch.int64, torch.float32)
    return segment_map, list(zip(labels.tolist(), scores.tolist(), strict=True))


def assert_same_segments(result, expected):
    (segment_map, segments), (expected_map, expected_segments) = result, expected
    assert segments == expected_segments
    # pixels at the border of two masks may round otherwise
    assert (segment_map == expected_map).float().mean() > 0.999


@pytest.mark.parametrize("strip", [1, 10_000, 2**20])
@pytest.mark.parametrize("size_hw", [*SIZES, (37, 90), (61, 47), (7, 64), (300, 211)])
def test_segments_are_those_of_the_authors_rules_in_strips_of_any_height(
    size_hw, strip, monkeypatch
):
    monkeypatch.setattr(upsample, "STRIP", strip)
    number = 0
    for seed, thresholds in enumerate(({}, {"score": 0.5}, {"overlap": 0.3}, {"overlap": 0.0})):
        outputs = random_outputs(seed)
        expected = by_the_rules(*outputs, size_hw, **(THRESHOLDS | thresholds))
        assert_same_segments(merged(*outputs, size_hw, **thresholds), expected)
        number += len(expected[1])
    assert number >= 5


def test_fifty_images_are_merged_as_transformers_merges_them():
    processor = EomtImageProcessor(size={"shortest_edge": SIDE, "longest_edge": SIDE})
    number = 0
    for seed in range(50):
        masks, classes = random_outputs(seed)
        size_hw = SIZES[seed % len(SIZES)]
        outputs = SimpleNamespace(
            masks_queries_logits=masks[None], class_queries_logits=classes[None]
        )
        (expected,) = processor.post_process_panoptic_segmentation(
            outputs, target_sizes=[size_hw], stuff_classes=STUFF
        )
        segment_map, segments = merged(masks, classes, size_hw)
        infos = expected["segments_info"]
        assert [label for label, _ in segments] == [info["label_id"] for info in infos]
        assert [score for _, score in segments] == pytest.approx(
            [info["score"] for info in infos], abs=1e-6
        )
        assert [info["id"] for info in infos] == list(range(len(infos)))
        assert (segment_map == expected["segmentation"] + 1).float().mean() > 0.999
        number += len(segments)
    assert number > 100


def outputs_of(masks, labels, strength=8.0):
    """Return logits of masks (bool [n, h, w]) with certain classes."""
    class_logits = strength * F.one_hot(torch.tensor(labels), CLASSES + 1).float()
    return torch.where(masks, 9.0, -9.0), class_logits


def halves(side=SIDE, at=None):
    """Return the masks left of a column and right of it, bool [2, side, side]."""
    left = (torch.arange(side) < (at or side // 2)).expand(side, side)
    return torch.stack([left, ~left])


def test_an_image_without_a_certain_query_is_void():
    masks, classes = random_outputs(0)
    for changed in (classes * 0, F.pad(classes[:, :-1], (0, 1), value=30.0)):
        segment_map, segments = merged(masks, changed, (48, 64))
        assert segments == [] and not segment_map.any()


def test_the_pixels_of_a_dropped_owner_are_void():
    side = SIDE
    whole = torch.ones(1, side, side, dtype=torch.bool)
    part = halves(at=48)[:1]  # three quarters of the whole mask
    masks, classes = outputs_of(torch.cat([whole, part]), [0, 1])
    classes[1] += 4 * F.one_hot(torch.tensor(1), CLASSES + 1)  # the part is likelier: it owns
    segment_map, segments = merged(masks, classes, (side, side))
    assert [label for label, _ in segments] == [1]
    # the whole mask owns a quarter of its pixels, less than 0.8: dropped, and nobody inherits
    assert torch.equal(segment_map, part[0].int())
    # with a lower threshold it stays; the numbers follow the order of queries
    segment_map, segments = merged(masks, classes, (side, side), overlap=0.25)
    assert [label for label, _ in segments] == [0, 1]
    assert torch.equal(segment_map, 1 + part[0].int())


def test_a_mask_without_a_pixel_is_no_segment():
    masks, classes = outputs_of(halves(), [0, 5])
    segment_map, segments = merged(masks - 10, classes, (SIDE, SIDE))
    assert segments == [] and not segment_map.any()


@pytest.mark.parametrize(("label", "number"), [(2, 1), (0, 2)])
def test_masks_of_a_stuff_class_are_one_segment_and_of_a_thing_class_two(label, number):
    masks, classes = outputs_of(halves(), [label, label])
    classes[1] += 0.5 * F.one_hot(torch.tensor(label), CLASSES + 1)
    segment_map, segments = merged(masks, classes, (SIDE, SIDE))
    assert [segment[0] for segment in segments] == [label] * number
    assert segment_map.unique().tolist() == list(range(1, number + 1))
    first = classes[0].softmax(0)[label].item()
    assert segments[0][1] == pytest.approx(first)  # of merged ones the first query's


@pytest.mark.parametrize(
    ("owned", "area", "overlap"), [(7, 10, 0.7), (44, 80, 0.55), (29, 50, 0.58), (4, 5, 0.8)]
)
def test_a_query_that_owns_exactly_the_threshold_stays(owned, area, overlap):
    # a row of pixels: the second query takes what is over
    masks = torch.zeros(2, 80, 80, dtype=torch.bool)
    masks[0, :, :area], masks[1, :, owned:] = True, True
    masks, classes = outputs_of(masks, [0, 1])
    classes[1] += 4 * F.one_hot(torch.tensor(1), CLASSES + 1)
    _, segments = merged(masks, classes, (80, 80), side=80, overlap=overlap)
    assert [label for label, _ in segments] == [0, 1]
    _, segments = merged(masks, classes, (80, 80), side=80, overlap=overlap + 1e-9)
    assert [label for label, _ in segments] == [1]


def test_the_class_probability_must_be_above_the_score():
    masks, classes = outputs_of(halves(), [0, 1], strength=0.0)
    classes[0, 0], classes[1, 1] = 2.0, 3.0
    likely, likelier = (classes[i].softmax(0)[i].item() for i in range(2))
    for score, expected in [(likely - 1e-6, [0, 1]), (likely, [1]), (likelier, [])]:
        _, segments = merged(masks, classes, (SIDE, SIDE), score=score)
        assert [label for label, _ in segments] == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_of_half_precision_are_merged_in_fp32(dtype):
    masks, classes = (logits.to(dtype) for logits in random_outputs(3))
    segment_map, segments = merged(masks, classes, (48, 64))
    expected_map, expected = merged(masks.float(), classes.float(), (48, 64))
    assert segments == expected and torch.equal(segment_map, expected_map) and expected


def test_segments_are_numbered_in_the_order_of_queries():
    kept, labels = [True, False, True, True, True], [2, 0, 0, 2, 0]
    assert number_segments(kept, labels, IS_THING) == ([1, 0, 2, 1, 3], [0, 2, 4])
    # a dropped query of a stuff class does not begin its segment
    assert number_segments([False, True, True], [3, 2, 3], IS_THING) == ([0, 1, 2], [1, 2])


def test_a_list_of_things_of_another_length_is_refused():
    with pytest.raises(ValueError, match="is_thing has 3 entries, expected 5 classes"):
        panoptic_maps(*random_outputs(0), (48, 64), SIDE, [True] * 3, **THRESHOLDS)


def test_the_host_reads_as_little_of_many_strips_as_of_one(monkeypatch):
    outputs, reads = random_outputs(3), []
    for strip in (2**20, 1):
        monkeypatch.setattr(upsample, "STRIP", strip)
        with CountReads() as counter:
            _, segments = merged(*outputs, (48, 64))
        reads.append(dict(counter.reads))
    assert segments and reads == [{"nonzero": 1, "bincount": 1}] * 2
