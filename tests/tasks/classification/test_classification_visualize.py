"""Drawings: grids, predictions, the confusion matrix and the attention rollout."""

import numpy as np
import pytest
import torch

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.attention_rollout import (
    attention_maps,
    attention_rollout,
    draw_attention,
)
from visionloop.tasks.classification.model import load_model, new_model
from visionloop.tasks.classification.visualize import draw_batch, draw_prediction, draw_samples
from visionloop.tasks.drawing.canvas import RIGHT, WRONG, class_label, font_for, grid
from visionloop.tasks.drawing.confusion_matrix import draw_confusion
from visionloop.tasks.huggingface.hub import ModelSource


def holds(image, color):
    return (image == np.array(color)).all(axis=-1).any()


def test_predictions_are_colored_by_right_and_wrong():
    batch = {
        "pixel_values": torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
    }
    first, second = draw_samples(batch, {"logits": torch.eye(2)[[0, 0]]}, ["ant", "bee"])
    assert first.dtype == second.dtype == np.uint8 and first.shape == second.shape
    assert holds(first, RIGHT) and not holds(first, WRONG)
    assert holds(second, WRONG) and not holds(second, RIGHT)
    assert draw_batch(batch, ["ant", "bee"]).dtype == np.uint8


@pytest.mark.parametrize("num_classes", [2, 10, 100, 300])
def test_a_confusion_matrix_fits_a_screen_and_shows_the_diagonal(num_classes):
    confusion = np.diag(np.arange(1, num_classes + 1))
    image = draw_confusion(confusion, [f"class number {i}" for i in range(num_classes)])
    assert max(image.shape) <= 12 * num_classes + 300 or max(image.shape) < 1500
    assert holds(image, (8, 48, 107))


def test_a_name_that_no_font_can_write_becomes_its_number():
    assert class_label(3, {3: "ant"}) == "ant"
    unwritable = "\U000e0001\U0010fffd"
    assert font_for(unwritable, 12) is None
    assert class_label(3, {3: unwritable}) == "#3"
    assert class_label(0, ["a very long name indeed"], room=60).endswith("…")


def test_a_prediction_is_drawn_on_images_of_any_shape():
    row = {
        "top5": [{"id": 0, "label": "ant", "score": 0.9}, {"id": 1, "label": "bee", "score": 0.1}]
    }
    for height, width in ((1, 1), (300, 10), (10, 300), (900, 900)):
        drawn = draw_prediction(torch.zeros(3, height, width, dtype=torch.uint8), row)
        assert drawn.shape[0] <= 400 and 160 <= drawn.shape[1] <= 320


def test_a_grid_holds_every_image():
    images = [np.full((10 + i, 20, 3), i + 1, dtype=np.uint8) for i in range(7)]
    sheet = grid(images)
    assert set(np.unique(sheet)) == {1, 2, 3, 4, 5, 6, 7, 255}


def test_rollout_is_the_product_of_half_identity_layers():
    torch.manual_seed(0)
    layers = [torch.rand(2, 3, 5, 5).softmax(-1) for _ in range(3)]
    flow = attention_rollout(layers)
    halves = [0.5 * layer.mean(1) + 0.5 * torch.eye(5) for layer in layers]
    assert torch.allclose(flow, halves[2] @ halves[1] @ halves[0], atol=1e-6)
    assert torch.allclose(flow.sum(-1), torch.ones(2, 5))


def test_rollout_finds_the_patch_that_the_class_token_reads(save_model, tiny_config):
    module = load_model(save_model(tiny_config)).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = module(pixel_values=pixels).logits
        maps = attention_maps(module, pixels)
        assert torch.equal(module(pixel_values=pixels).logits, before)  # the model is unchanged
    assert maps.shape == (2, 4, 4) and maps.min() == 0 and maps.max() == 1
    drawn = draw_attention(module, pixels, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert [image.shape for image in drawn] == [(320, 640, 3)] * 2


def test_rollout_of_another_kind_is_one_clear_line(save_model):
    from transformers import ResNetConfig

    module = load_model(
        save_model(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        )
    )
    with pytest.raises(UserError, match="this model is a resnet"):
        attention_maps(module, torch.zeros(1, 3, 32, 32))


def test_the_tiny_architecture_has_attention_maps():
    module = new_model(ModelSource("tiny", None, weights=False), ["a", "b"]).eval()
    assert attention_maps(module, torch.randn(1, 3, 64, 64)).shape == (1, 8, 8)
