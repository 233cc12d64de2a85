"""Augmentation of images with layers of segments."""

import random

import pytest
import torch

from visionloop.datasets.segmentation.transforms import scaled_sides
from visionloop.datasets.segments.layers import NO_SEGMENT
from visionloop.datasets.segments.transforms import SegmentsEvalPreset, SegmentsTrainPreset


def sample(height=40, width=60, layers=2):
    """(image, layers, segments, ignored): each layer's column stripes; the image shows layer 0."""
    columns = torch.arange(width) // 10
    stripes = columns.expand(height, width).to(torch.uint8)
    stack = torch.stack([(stripes + 10 * k) for k in range(layers)])
    segments = torch.tensor([[k, n + 10 * k, n % 3] for k in range(layers) for n in range(6)])
    image = (20 * stripes).expand(3, -1, -1).contiguous()
    ignored = (stripes == 5).to(torch.uint8)
    return image, stack, segments, ignored


@pytest.mark.parametrize("seed", range(6))
def test_image_layers_and_ignored_pixels_go_through_one_geometry(seed):
    random.seed(seed)
    size = 32
    result = SegmentsTrainPreset(size=size, scale=(1.2, 2.5))(*sample())
    layers, ignored = result["layers"], result["ignored"]
    assert layers.shape == (2, size, size) and ignored.shape == (size, size)
    is_padding = layers[0] == NO_SEGMENT
    assert torch.equal(is_padding, layers[1] == NO_SEGMENT)
    assert torch.equal(layers[0][~is_padding] + 10, layers[1][~is_padding])
    assert torch.equal(ignored == 1, is_padding | (layers[0] == 5))
    assert (result["pixel_values"][:, is_padding] == 0).all()
    # away from the borders of stripes the pixels have the value of their stripe
    inner = ~is_padding
    for step in (-2, -1, 1, 2):
        inner &= layers[0].roll(step, dims=1) == layers[0]
    shown = result["pixel_values"][0].int()
    assert (shown[inner] - 20 * layers[0][inner].int()).abs().max() <= 1


def test_a_crop_keeps_the_list_of_segments_that_it_loses():
    random.seed(3)
    image, layers, segments, ignored = sample(height=400, width=600, layers=1)
    layers = torch.where(layers < 6, layers, NO_SEGMENT)
    result = SegmentsTrainPreset(size=16, scale=(8.0, 8.0), flip=0)(
        image, layers, segments[:6], ignored
    )
    left = set(result["layers"].unique().tolist()) - {NO_SEGMENT}
    assert len(left) < 6 and torch.equal(result["segments"], segments[:6])


def test_a_crop_without_segments_is_drawn_again():
    image, _, _, ignored = sample(height=100, width=100)
    layers = torch.full((1, 100, 100), NO_SEGMENT, dtype=torch.uint8)
    layers[0, :20, :20] = 0
    segments = torch.tensor([[0, 0, 1]])
    counts = {}
    for tries in (0, 30):
        preset = SegmentsTrainPreset(size=16, scale=(4.0, 4.0), tries=tries)
        random.seed(0)
        hits = [
            (preset(image[:, :, :100], layers, segments, ignored)["layers"] == 0).any().item()
            for _ in range(40)
        ]
        counts[tries] = sum(hits)
    assert counts[0] < 10 and counts[30] > 30


def test_an_image_without_segments_is_cropped_once():
    image, layers, segments, ignored = sample()
    layers = torch.full_like(layers[:1], NO_SEGMENT)
    states = []
    for tries in (0, 10):
        random.seed(1)
        result = SegmentsTrainPreset(size=16, tries=tries)(image, layers, segments[:0], ignored)
        states.append(random.getstate())
    assert states[0] == states[1] and result["segments"].shape == (0, 3)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (33, 33), (1, 50), (427, 640)])
def test_evaluation_fits_the_whole_image_and_pads_right_or_below(height, width):
    image, layers, segments, ignored = sample(height, width)
    result = SegmentsEvalPreset(size=32)(image, layers, segments, ignored)
    new_height, new_width = scaled_sides(height, width, 32 / max(height, width))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[:new_height, :new_width] = True
    assert torch.equal(result["layers"][0] != NO_SEGMENT, inside)
    assert (result["pixel_values"][:, ~inside] == 0).all() and result["ignored"][~inside].all()
    assert result["size"].tolist() == [height, width]
    alone = SegmentsEvalPreset(size=32)(image)
    assert set(alone) == {"pixel_values", "size"}
    assert torch.equal(alone["pixel_values"], result["pixel_values"])
