"""Facts about the Swin2SR of transformers 5.23 that visionloop relies on."""

import inspect
from functools import partial

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import (
    Swin2SRConfig,
    Swin2SRForImageSuperResolution,
    Swin2SRImageProcessor,
)

SIDE = 16
SIZES = {
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 4,
    "mlp_ratio": 2.0,
    "image_size": SIDE,
}


def small_swin2sr(upsampler="pixelshuffledirect", upscale=2, **fields):
    """Return a Swin2SR with random weights in evaluation mode. fields: of its config."""
    config = Swin2SRConfig(**SIZES | {"upsampler": upsampler, "upscale": upscale} | fields)
    return Swin2SRForImageSuperResolution(config).eval()


def random_image(height=SIDE, width=SIDE):
    """Return one image, [1, 3, H, W] in 0..1."""
    return torch.rand(1, 3, height, width)


def reconstruct(network, pixel_values):
    """Return the image of the forward in transformers, [1, 3, scale H, scale W]."""
    with torch.no_grad():
        return network(pixel_values).reconstruction


# The forward: the super-resolution network replaces it -------------------------------------------


def test_a_forward_with_labels_is_refused():
    """The super-resolution loss is ours alone."""
    with pytest.raises(NotImplementedError):
        small_swin2sr()(random_image(), labels=random_image(2 * SIDE, 2 * SIDE))


@pytest.mark.parametrize("img_range", [1.0, 255.0])
def test_the_head_without_upsampler_divides_the_input_and_adds_the_mean_twice(img_range):
    """The heads compute x + residual, as the authors do; the correction adapts saved weights."""
    pixel_values = random_image()
    network = small_swin2sr("", 1, img_range=img_range)
    nn.init.zeros_(network.final_convolution.weight)  # a residual of zero
    nn.init.zeros_(network.final_convolution.bias)
    expected = pixel_values / img_range + network.swin2sr.mean
    torch.testing.assert_close(reconstruct(network, pixel_values), expected, atol=1e-5, rtol=0)


def test_the_auxiliary_head_resizes_raw_pixels_and_drops_the_auxiliary_image():
    """The heads resize the normalized input, as the authors do, and return the auxiliary image."""
    network, pixel_values, resized = (
        small_swin2sr("pixelshuffle_aux", 4, img_range=2.0),
        random_image(),
        [],
    )
    network.upsample.conv_bicubic.register_forward_pre_hook(
        lambda _, inputs: resized.append(inputs[0])
    )
    with torch.no_grad():
        output = network(pixel_values)
    enlarge = partial(F.interpolate, size=(4 * SIDE,) * 2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(resized[0], enlarge(pixel_values), atol=1e-6, rtol=0)
    official = enlarge((pixel_values - network.swin2sr.mean) * 2.0)
    assert (resized[0] - official).abs().max() > 0.1
    assert list(output.keys()) == ["reconstruction"]


def test_sizes_that_the_window_does_not_divide_fail():
    """The super-resolution network pads to whole windows and crops the result."""
    network = small_swin2sr()
    for height, width in ((17, 16), (18, 18)):
        with pytest.raises(RuntimeError):
            reconstruct(network, random_image(height, width))
    reconstruct(network, random_image(16, 20))


def test_drop_path_rate_is_ignored():
    """The architectures of super-resolution have no drop path."""
    network, pixel_values = small_swin2sr(drop_path_rate=0.9).train(), random_image()
    assert torch.equal(reconstruct(network, pixel_values), reconstruct(network, pixel_values))


# Configs, weights and files ----------------------------------------------------------------------


def test_the_image_processor_pads_a_whole_window_where_nothing_is_missing():
    """The super-resolution model card warns of the processor, which mirrors the edge pixel too."""
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    processor = Swin2SRImageProcessor(size_divisor=8)
    padded = processor(pixels, return_tensors="pt").pixel_values[0]
    assert padded.shape[-2:] == (72, 72)
    assert torch.equal(padded[:, 64, :64], padded[:, 63, :64])


@pytest.mark.parametrize("embed_dim", [24, 60, 180])
def test_every_convolution_is_drawn_with_a_deviation_of_002_at_any_width(embed_dim):
    """The super-resolution initialization draws convolutions as torch does."""
    network = small_swin2sr(embed_dim=embed_dim)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 500:
            assert 0.017 < layer.weight.std() < 0.023


def test_absolute_position_embeddings_fail():
    """The super-resolution model refuses configs with use_absolute_embeddings."""
    with pytest.raises(RuntimeError):
        reconstruct(small_swin2sr(use_absolute_embeddings=True), random_image())


def test_three_convolutions_are_built_for_the_stages_and_not_after_the_body():
    """The super-resolution model refuses configs with resi_connection=3conv."""
    network = small_swin2sr(resi_connection="3conv")
    stage, last = network.swin2sr.encoder.stages[0].conv, network.swin2sr.conv_after_body
    counts = [
        sum(isinstance(part, nn.Conv2d) for part in module.modules()) for module in (stage, last)
    ]
    assert counts == [3, 1]


def test_the_documentation_names_a_model_id_that_never_existed():
    """The architectures of super-resolution accept that id as an alias."""
    source = inspect.getsource(inspect.getmodule(transformers.Swin2SRConfig))
    assert "caidas/swin2sr-classicalsr-x2-64" in source
