"""Building EoMT, and fitting a trained one to other classes and sizes."""

import pytest
import torch

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.loading import name_classes
from visionloop.tasks.segmentation.architectures import ARCHITECTURES
from visionloop.tasks.segmentation.model import build_model, load_model, new_config, source_config
from visionloop.tasks.segmentation.network import EomtForUniversalSegmentation
from visionloop.tasks.segmentation.positions import set_image_size
from visionloop.tasks.segmentation.recipes import SEMANTIC

# released configs: side, queries, classes and millions of parameters, counted on the classes of
# transformers
RELEASED = {
    "eomt-small": (640, 200, 133, 24.0),
    "eomt-base": (640, 200, 133, 93.7),
    "eomt-large": (512, 100, 150, 316.0),
    "eomt-giant": (640, 200, 133, 1163.6),
    "eomt-7b": (640, 200, 133, 6642.4),
    "tiny": (96, 24, 11, 0.77),
}
SIZE_OF = {
    "tue-mps/eomt-vit-large": "eomt-large",
    "eomt-large": "eomt-large",
    "eomt-large-cityscapes": "eomt-large",
    "tue-mps/coco_panoptic_eomt_small_640_2x": "eomt-small",
    "coco_panoptic_eomt_base_640_2x": "eomt-base",
    "eomt-giant-panoptic": "eomt-giant",
    "eomt-7b-panoptic": "eomt-7b",
    "tiny": "tiny",
}


def build(source, classes, **settings):
    return build_model(source, classes, source_config(source, **settings))


def from_folder(folder):
    return ModelSource("x", folder, weights=True)


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_size_has_its_number_of_parameters(name):
    config = new_config(name)
    config.image_size, config.num_queries, num_classes, millions = RELEASED[name]
    name_classes(config, [str(i) for i in range(num_classes)])
    with torch.device("meta"):
        module = EomtForUniversalSegmentation(config)
    count = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.002 if millions > 1 else 0.02)


def test_names_of_released_weights_lead_to_their_architecture():
    for name, size in SIZE_OF.items():
        assert SEMANTIC.names.find(name, True) == ModelSource(size, None, weights=False)
    assert (
        SEMANTIC.names.aliases["tue-mps/eomt-vit-large"]
        == SEMANTIC.names.pretrained["eomt-large"]
        == "tue-mps/ade20k_semantic_eomt_large_512"
    )


def test_random_weights_are_those_of_transformers():
    module = build(ModelSource("tiny", None, weights=False), ["sky", "road"])
    assert module.training and module.mask_probs == [1.0, 1.0]
    assert module.query.weight.std().item() == pytest.approx(1, rel=0.05)
    masks, classes = module(torch.randn(1, 3, 96, 96))
    assert masks.shape == (1, 3, 24, 24, 24) and classes.shape == (1, 3, 24, 3)
    assert [
        name for name, parameter in module.named_parameters() if not parameter.requires_grad
    ] == ["embeddings.register_tokens"]


def test_settings_of_a_new_model_are_its_own():
    source = ModelSource("tiny", None, weights=False)
    module = build(source, ["sky"], image_size=64, num_queries=5, num_blocks=3)
    assert module(torch.randn(1, 3, 64, 64))[0].shape == (1, 4, 5, 16, 16)
    for settings, words in (
        ({"image_size": 60}, "patch size 8"),
        ({"num_blocks": 7}, "expected 1 to 6"),
    ):
        with pytest.raises(UserError, match=words):
            build(source, ["sky"], **settings)


def test_a_folder_of_other_classes_keeps_all_weights_but_the_rows_of_new_names(save_tiny):
    folder = save_tiny(["Traffic Light", "person", "dog"])
    before = load_model(folder).state_dict()
    after = build(from_folder(folder), ["person", "zebra", "traffic_light", "axolotl"])
    for name, tensor in after.state_dict().items():
        if name.startswith("class_predictor."):
            assert torch.equal(tensor[[2, 0, 4]], before[name][[0, 1, 3]])  # 4 and 3: no object
            assert tensor[1].ne(before[name][2]).any()
        elif name == "criterion.empty_weight":
            assert tensor.shape == (5,) and torch.equal(tensor[-2:], before[name][-2:])
        else:
            assert torch.equal(tensor, before[name]), name
    assert after.config.id2label == {0: "person", 1: "zebra", 2: "traffic_light", 3: "axolotl"}
    assert after(torch.randn(1, 3, 32, 32))[1].shape[-1] == 5


def test_the_same_classes_keep_every_weight(save_tiny):
    folder = save_tiny()
    stored, module = (
        load_model(folder).state_dict(),
        build(from_folder(folder), ["sky", "road", "tree"]),
    )
    assert all(torch.equal(tensor, stored[name]) for name, tensor in module.state_dict().items())


def test_another_image_size_resizes_the_positions_and_keeps_their_field(tiny_module):
    module = tiny_module()
    with torch.no_grad():
        module.embeddings.position_embeddings.weight.copy_(torch.arange(4.0).repeat(4)[:, None])
    set_image_size(module, 64)
    field = module.embeddings.position_embeddings.weight.reshape(8, 8, -1)
    assert (module.config.image_size, module.grid_size) == (64, (8, 8))
    assert field.requires_grad and torch.allclose(
        field[0], field[7], atol=1e-5
    )  # rows stay alike, columns stay in order
    assert (field[:, 1:] > field[:, :-1]).all() and torch.allclose(
        field[:, 3:5].mean(1), torch.tensor(1.5), atol=1e-5
    )
    assert module(torch.randn(1, 3, 64, 64))[0].shape[-2:] == (16, 16)
    with pytest.raises(UserError, match="multiple of the model's patch size 8"):
        set_image_size(module, 60)


def test_further_queries_are_new_and_the_trained_ones_stay(save_tiny):
    folder = save_tiny()
    stored = load_model(folder).query.weight
    more, fewer = (build(from_folder(folder), ["sky"], num_queries=count) for count in (11, 5))
    assert torch.equal(more.query.weight[:8], stored) and torch.equal(
        fewer.query.weight, stored[:5]
    )
    assert (
        more(torch.randn(1, 3, 32, 32))[1].shape == (1, 3, 11, 2)
        and more.query.weight.requires_grad
    )


def test_every_architecture_reads_images_of_its_size():
    for fields, side in ARCHITECTURES.values():
        assert side % fields.get("patch_size", 16) == 0
