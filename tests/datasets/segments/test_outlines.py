"""Outlines of a COCO json: packed without loss, and checked without decoding."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from segments_files import encode, run_lengths

from visionloop.datasets.segments.outlines import OutlineParser
from visionloop.datasets.segments.run_lengths import encode_numbers, run_totals


def parse(*outlines):
    """(Outlines, parser) of annotations with these outlines."""
    parser = OutlineParser()
    json.loads(json.dumps([{"segmentation": outline} for outline in outlines]), object_hook=parser)
    return parser.outlines(), parser


COORDINATES = st.one_of(
    st.integers(-60, 120),
    st.integers(-600, 1200).map(lambda tenths: tenths / 10),
    st.floats(-60, 120, width=64),
)
POLYGONS = st.lists(
    st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=9), min_size=1, max_size=3
)


@settings(max_examples=80, deadline=None)
@given(objects=st.lists(POLYGONS, min_size=1, max_size=4))
def test_packed_polygons_give_the_masks_of_pycocotools(objects):
    flat = [[np.ravel(points).tolist() for points in polygons] for polygons in objects]
    outlines, parser = parse(*flat)
    assert parser.problems == {} and len(outlines) == len(flat)
    for k, polygons in enumerate(flat):
        theirs = coco_mask.merge(coco_mask.frPyObjects(polygons, 50, 60))
        assert outlines.rle(k, 50, 60) == theirs


MASKS = st.integers(0, 10**6).map(
    lambda seed: np.random.default_rng(seed).random((13, 17)) < (seed % 11) / 10
)


@settings(max_examples=30, deadline=None)
@given(masks=st.lists(MASKS, min_size=1, max_size=5))
def test_encodings_of_both_kinds_keep_every_pixel(masks):
    outlines, _ = parse(*map(encode, masks), *map(run_lengths, masks))
    decoded = [coco_mask.decode(outlines.rle(k, 13, 17)) for k in range(len(outlines))]
    assert np.array_equal(np.array(decoded) == 1, np.array(masks + masks))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 6), large=st.booleans())
def test_run_totals_are_those_of_the_decoded_masks(seed, count, large):
    generator = np.random.default_rng(seed)
    height, width = (900, 700) if large else (7, 9)
    masks = [
        generator.random((height, width)) < generator.choice([0, 0.01, 0.5, 1]) ** 2
        for _ in range(count)
    ]
    texts = [encode(mask)["counts"].encode() for mask in masks]
    stops = np.cumsum([len(text) for text in texts], dtype=np.int64)
    counts = np.frombuffer(b"".join(texts), dtype=np.uint8)
    totals = run_totals(counts, stops - np.diff(stops, prepend=0), stops)
    assert totals.pixels.tolist() == [height * width] * count
    assert totals.areas.tolist() == [mask.sum() for mask in masks]
    assert totals.is_valid.all()


@pytest.mark.parametrize(
    "text", ["", "!", "abc\x7f", "P", "ooooooooo0", "q", "0N", "00N"], ids=lambda text: repr(text)
)
def test_text_that_is_no_encoding_is_recognized_beside_valid_ones(text):
    good = encode(np.eye(5, dtype=bool))["counts"]
    texts = [good.encode(), text.encode(), good.encode()]
    stops = np.cumsum([len(part) for part in texts])
    counts = np.frombuffer(b"".join(texts), dtype=np.uint8)
    totals = run_totals(counts, stops - np.diff(stops, prepend=0), stops)
    assert totals.is_valid[[0, 2]].all() and totals.areas[[0, 2]].tolist() == [5, 5]
    assert not totals.is_valid[1] or totals.pixels[1] != 25


def test_a_selection_shares_the_polygons_and_keeps_the_masks():
    outlines, _ = parse([[0, 0, 9, 0, 9, 9]], encode(np.eye(12, dtype=bool)), [[1, 1, 8, 1, 8, 8]])
    some = outlines.select(np.array([2, 1]))
    assert some.polygons is outlines.polygons
    assert [some.rle(k, 12, 12) for k in (0, 1)] == [outlines.rle(k, 12, 12) for k in (2, 1)]


def test_run_lengths_of_numbers_are_those_of_pycocotools():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 12, 2).tolist()
        numbers = rng.integers(0, rng.integers(1, 6), (height, width)) * 70_000
        encoded = encode_numbers(numbers)
        assert list(encoded) == np.unique(numbers).tolist()
        for number, runs in encoded.items():
            expected = coco_mask.encode(np.asfortranarray(numbers == number).astype(np.uint8))
            assert runs == expected
