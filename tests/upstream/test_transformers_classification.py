"""Facts about the image classifiers of transformers 5.23 that visionloop relies on."""

import warnings
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2.functional import center_crop
from transformers import CLIPImageProcessor, ViTConfig, ViTForImageClassification

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "patch_size": 8,
    "image_size": 32,
    "num_labels": 4,
}


def small_vit(**fields):
    """Return a ViT with random weights in evaluation mode. fields: of its config."""
    return ViTForImageClassification(ViTConfig(**SIZES | fields)).eval()


def test_soft_targets_are_silently_trained_with_multi_label_bce():
    """The classification loss computes cross-entropy itself: mixup and cutmix give soft targets."""
    pixel_values, targets = torch.rand(6, 3, 32, 32), torch.rand(6, 4).softmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = small_vit()(pixel_values=pixel_values, labels=targets)
    bce = F.binary_cross_entropy_with_logits(output.logits, targets)
    cross_entropy = F.cross_entropy(output.logits, targets)
    torch.testing.assert_close(output.loss, bce)
    assert abs(output.loss - cross_entropy) > 1e-3


def test_position_embeddings_of_another_size_are_drawn_at_random(tmp_path):
    """The classification positions resize the stored table before the weights are loaded."""
    network, tables = small_vit(), []
    network.save_pretrained(tmp_path)
    load = partial(
        ViTForImageClassification.from_pretrained, tmp_path, image_size=48, use_safetensors=True
    )
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load()
    for seed in (0, 1):
        torch.manual_seed(seed)
        vit = load(ignore_mismatched_sizes=True).vit
        tables.append(vit.embeddings.position_embeddings[0, 1:].detach())
    assert not torch.equal(*tables)
    grid = network.vit.embeddings.position_embeddings.detach()[:, 1:].mT.reshape(1, -1, 4, 4)
    resized = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)[0].flatten(1).mT
    correlation = torch.corrcoef(torch.stack([tables[0].flatten(), resized.flatten()]))[0, 1]
    assert abs(correlation) < 0.3


def test_position_embeddings_are_interpolated_without_antialiasing():
    """The classification positions resize with antialiasing, which changes them by about 20 %."""
    field = F.interpolate(torch.randn(1, 32, 9, 9), size=(14, 14), mode="bicubic")
    embeddings = small_vit(image_size=112).vit.embeddings
    table = torch.cat([torch.zeros(1, 1, 32), field.flatten(2).mT], dim=1)
    embeddings.position_embeddings = torch.nn.Parameter(table)
    tokens = torch.zeros(1, 1 + 10 * 10, 32)
    interpolated = embeddings.interpolate_pos_encoding(tokens, 80, 80)[0, 1:]
    plain, smooth = (
        F.interpolate(field, size=(10, 10), mode="bicubic", antialias=antialias)[0].flatten(1).mT
        for antialias in (False, True)
    )
    torch.testing.assert_close(interpolated, plain, atol=1e-4, rtol=0)
    assert 0.1 < (interpolated - smooth).std() / field.std() < 0.3


def test_pixels_beyond_the_last_whole_patch_are_dropped_silently():
    """The classification positions refuse an image size that the patch size does not divide."""
    network, pixel_values = small_vit(image_size=48), torch.rand(1, 3, 50, 50)
    blackened = pixel_values.clone()
    blackened[..., 48:] = blackened[..., 48:, :] = 0
    logits = [
        network(pixel_values=pixels, interpolate_pos_encoding=True).logits
        for pixels in (pixel_values, blackened)
    ]
    assert torch.equal(*logits)


def test_every_layer_of_a_vit_is_drawn_with_a_deviation_of_002_at_any_width():
    """The mimetic initialization exists because this start is too narrow for small datasets."""
    network = small_vit(hidden_size=96, intermediate_size=192)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            assert 0.017 < layer.weight.std() < 0.023


def test_a_center_crop_is_rounded_down_where_torchvision_rounds_half_to_even():
    """The evaluation transform of classification rounds down, as released scores were measured."""
    rows = torch.arange(5, dtype=torch.uint8)[:, None].expand(3, 5, 5)
    processor = CLIPImageProcessor(
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
        crop_size={"height": 2, "width": 2},
    )
    cropped = processor(rows, return_tensors="pt").pixel_values[0]
    assert cropped.min() == 1
    assert center_crop(rows, [2, 2]).min() == 2
