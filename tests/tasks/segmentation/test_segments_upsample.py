"""Mask logits resized to the size of the file, and the forward of whole padded images."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from visionloop.engine.batch import Batch
from visionloop.engine.seeding import hashed
from visionloop.tasks.normalize import Normalize
from visionloop.tasks.segmentation.segments import upsample
from visionloop.tasks.segmentation.segments.predict import forward_padded
from visionloop.tasks.segmentation.segments.upsample import logit_strips

SIDES = st.integers(1, 40)


def random_logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(hashed(seed, *shape) >> 1)
    return 3 * torch.randn(*shape, generator=generator)


def resized_at_once(logits, size_hw, side):
    """Resize the whole image at once as the authors do."""
    factor = min(side / size_hw[0], side / size_hw[1])
    height, width = (max(1, round(length * factor)) for length in size_hw)
    square = F.interpolate(logits[None], size=(side, side), mode="bilinear")
    return F.interpolate(square[..., :height, :width], size=tuple(size_hw), mode="bilinear")[0]


@contextmanager
def strips_of(values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "STRIP", values)
        yield


def resized_in_strips(logits, size_hw, side):
    """Join the strips: [n, H, W]; every row must come once, from top to bottom."""
    rows, strips = zip(*logit_strips(logits, size_hw, side), strict=True)
    assert [span.start for span in rows] == [0, *(span.stop for span in rows[:-1])]
    assert rows[-1].stop == size_hw[0]
    return torch.cat(strips, dim=1)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), SIDES, SIDES),
    size_hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    side=SIDES,
    strip=st.sampled_from([1, 300, 2**20]),
)
def test_strips_of_any_height_are_the_whole_image_resized_twice(shape, size_hw, side, strip):
    logits = random_logits(*shape)
    with strips_of(strip):
        result = resized_in_strips(logits, size_hw, side)
    torch.testing.assert_close(result, resized_at_once(logits, size_hw, side), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 48), (61, 64), (37, 90), (300, 200), (5, 9)])
def test_the_height_of_a_strip_changes_no_bit(size_hw):
    logits = random_logits(3, 16, 16)
    whole = resized_in_strips(logits, size_hw, 64)
    for strip in (1, 1000, 5000):
        with strips_of(strip):
            assert torch.equal(resized_in_strips(logits, size_hw, 64), whole)


def test_transposed_logits_are_the_transposed_image():
    logits = random_logits(3, 16, 16)
    result = resized_in_strips(logits.mT, (50, 31), 64).mT
    torch.testing.assert_close(result, resized_in_strips(logits, (31, 50), 64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size_hw", [(1, 700), (700, 1), (3, 3), (640, 480), (900, 1200)])
def test_a_strip_has_no_more_logits_than_its_limit_or_one_row(size_hw):
    num_masks, side, limit = 7, 64, 20_000
    with strips_of(limit):
        for _, strip in logit_strips(random_logits(num_masks, 16, 16), size_hw, side):
            assert strip.numel() <= max(limit, num_masks * size_hw[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_are_resized_in_fp32(dtype):
    logits = random_logits(2, 8, 8).to(dtype)
    result = resized_in_strips(logits, (20, 30), 32)
    assert result.dtype == torch.float32
    assert torch.equal(result, resized_in_strips(logits.float(), (20, 30), 32))


# the network on padded images --------------------

NORMALIZE = Normalize((0.5,) * 3, (0.5,) * 3)


def batch_of(sample_ids):
    images = [
        torch.randint(
            0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(i), dtype=torch.uint8
        )
        for i in sample_ids
    ]
    return Batch({"pixel_values": torch.stack(images), "sample_ids": torch.tensor(sample_ids)})


@pytest.mark.parametrize("mask_probs", [[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
def test_the_sample_id_alone_decides_what_is_predicted(tiny_module, mask_probs):
    module = tiny_module().eval()
    module.mask_probs = mask_probs
    with torch.no_grad():
        together = forward_padded(module, NORMALIZE, batch_of([4, 9, 2]))[:2]
        torch.rand(5)  # wherever the default generator is
        alone = forward_padded(module, NORMALIZE, batch_of([9]))[:2]
    assert [tuple(logits.shape) for logits in together] == [(3, 8, 8, 8), (3, 8, 4)]
    for logits, expected in zip(alone, together, strict=True):
        torch.testing.assert_close(logits[0], expected[1], atol=1e-4, rtol=1e-4)


def test_losses_are_those_of_the_last_level_of_the_same_forward(tiny_module):
    module = tiny_module().eval()
    module.mask_probs = [0.5, 0.0]
    batch = batch_of([1, 2])

    def losses(factor, mask_logits, class_logits):
        assert mask_logits.shape[1] == class_logits.shape[1] == 1
        return factor * mask_logits.flatten(1).sum(1) + class_logits.flatten(1).sum(1)

    with torch.no_grad():
        masks, classes, result = forward_padded(
            module, NORMALIZE, batch, losses=partial(losses, 2.0)
        )
        assert forward_padded(module, NORMALIZE, batch)[2] is None
    torch.testing.assert_close(result, 2 * masks.flatten(1).sum(1) + classes.flatten(1).sum(1))
