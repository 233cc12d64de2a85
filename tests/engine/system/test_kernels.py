"""Forms of a computation that are chosen by device and dtype."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from visionloop.engine.system.kernels import (
    is_half_on_cpu,
    layout_for_convolutions,
    multiplies_for_transposed_conv,
)


@pytest.mark.parametrize(("device", "everywhere", "expected"), [
    ("cpu", False, False), ("cpu", True, True), ("cuda", False, True),
])  # fmt: skip
def test_convolutions_get_channels_last_on_cuda_and_elsewhere_on_request(
    device, everywhere, expected
):
    with FakeTensorMode():
        pixels = torch.empty(2, 3, 8, 8, dtype=torch.uint8, device=device)
        laid_out = layout_for_convolutions(pixels, everywhere=everywhere)
        assert laid_out.shape == pixels.shape
        assert laid_out.is_contiguous(memory_format=torch.channels_last) == expected


def test_forms_for_half_precision_are_taken_under_autocast_alone():
    query, weight = torch.ones(2, 3), torch.ones(3, 3)
    assert not is_half_on_cpu(query @ weight)
    assert not multiplies_for_transposed_conv(query.device)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_half_on_cpu(query @ weight)
        assert multiplies_for_transposed_conv(query.device)
