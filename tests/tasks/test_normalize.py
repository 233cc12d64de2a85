"""Normalization of uint8 pixels."""

import torch

from visionloop.tasks.normalize import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_every_byte_becomes_its_share_minus_the_mean_over_the_deviation():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    result = Normalize(MEAN, STD)(pixels)
    assert result.dtype == torch.float32 and result.shape == (2, 3, 16, 16)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        expected = (torch.arange(256, dtype=torch.float64) / 255 - mean) / std
        torch.testing.assert_close(
            result[1, channel].flatten().double(), expected, atol=1e-6, rtol=1e-6
        )


def test_a_mean_and_a_deviation_of_a_half_give_minus_one_to_one():
    result = Normalize((0.5,) * 3, (0.5,) * 3)(
        torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    )
    torch.testing.assert_close(result, torch.tensor([-1.0, 1.0]).expand(1, 3, 1, 2))


def test_images_stay_as_they_are_and_do_not_depend_on_each_other():
    normalize, pixels = Normalize(MEAN, STD), torch.randint(0, 256, (3, 3, 5, 7), dtype=torch.uint8)
    before = pixels.clone()
    together = normalize(pixels)
    assert torch.equal(pixels, before)
    assert all(
        torch.equal(normalize(one[None])[0], result)
        for one, result in zip(pixels, together, strict=True)
    )


def test_the_constants_are_sent_to_a_device_once():
    normalize, pixels = (
        Normalize(MEAN, STD),
        torch.empty(1, 3, 4, 4, dtype=torch.uint8, device="meta"),
    )
    assert normalize(pixels).device.type == "meta"
    sent = normalize.constants[pixels.device]
    normalize(pixels)
    assert normalize.constants[pixels.device] is sent
