"""Building, loading and fitting classifiers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification, Dinov2Config

from visionloop.engine.errors import UserError
from visionloop.tasks.classification.architectures import ARCHITECTURES, MODEL_NAMES
from visionloop.tasks.classification.export import load_folder, save_folder
from visionloop.tasks.classification.model import (
    build_model,
    find_heads,
    fit_head,
    load_model,
    mimetic_init,
    new_model,
    set_drop_path,
)
from visionloop.tasks.classification.positions import set_image_size
from visionloop.tasks.classification.processor import EvalTransform
from visionloop.tasks.huggingface.hub import ModelSource
from visionloop.tasks.huggingface.positions import resize_grid

TINY = ModelSource("tiny", None, weights=False)
# timm 1.0.31, resample_abs_pos_embed(positions, [3, 3], num_prefix_tokens=1) and to [5, 5], one
# channel
TIMM_4X4 = [0.0, 0.7, 0.3, 1.0, 0.6, 0.2, 0.9, 0.5, 0.1, 0.8, 0.4, 0.0, 0.7, 0.3, 1.0, 0.6, 0.2]
TIMM_3X3 = [
    0.0,
    0.501494,
    0.704961,
    0.581007,
    0.562169,
    0.429276,
    0.328261,
    0.571038,
    0.638264,
    0.351129,
]
TIMM_5X5 = [
    0.0,
    0.741002,
    0.34639,
    0.644862,
    0.962641,
    0.604327,
    0.277255,
    0.641923,
    0.780847,
    0.535191,
    0.176877,
    0.49351,
    0.641302,
    0.411328,
    0.209243,
    0.409465,
    0.709765,
    0.608885,
    0.292811,
    0.236079,
    0.622745,
    0.246018,
    0.844644,
    0.900661,
    0.471837,
    0.158998,
]


def trunk(module):
    return module.base_model.state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items()
    )


@pytest.fixture
def folder(save_model, tiny_config):
    return save_model(tiny_config)


def test_resized_positions_equal_timm_s_numbers():
    positions = torch.tensor(TIMM_4X4).reshape(1, 17, 1)
    for side, expected in ((3, TIMM_3X3), (5, TIMM_5X5)):
        resized = resize_grid(positions, 1, (4, 4), (side, side)).flatten()
        assert torch.allclose(resized, torch.tensor(expected), atol=1e-5)


def test_a_new_image_size_resizes_the_grid_and_every_place_that_remembers_it(folder):
    module = load_model(folder)
    before = module.vit.embeddings.position_embeddings.detach().clone()
    assert set_image_size(module, 48)
    grid = before[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True).flatten(2).mT
    after = module.vit.embeddings.position_embeddings
    assert torch.equal(after[:, :1], before[:, :1])
    assert torch.allclose(after[:, 1:], expected)
    assert module.config.image_size == 48
    assert module(pixel_values=torch.zeros(1, 3, 48, 48)).logits.shape == (1, 3)


def test_a_resized_model_is_saved_and_read_back_at_its_new_size(folder, tmp_path):
    module = build_model(ModelSource("x", folder, weights=True), ["a", "b"], image_size=48).eval()
    save_folder(module, module.state_dict(), tmp_path / "saved", EvalTransform().at_size(48))
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    pixels = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(again(pixel_values=pixels).logits, module(pixel_values=pixels).logits)


def test_a_size_that_the_patch_does_not_divide_is_refused(folder):
    with pytest.raises(UserError, match="multiple of the model's patch size 8"):
        set_image_size(load_model(folder), 50)


def test_the_same_classes_keep_the_head(folder):
    module = load_model(folder)
    before = copy.deepcopy(module.state_dict())
    assert fit_head(module, ["ant", "bee", "cat"]) == "kept"
    assert same(module.state_dict(), before)


@pytest.mark.parametrize("classes", [["cat", "ant", "bee"], ["cat", "ant"]])
def test_another_order_or_a_part_of_the_classes_carries_rows_over_by_name(folder, classes):
    module = load_model(folder)
    pixels = torch.randn(2, 3, 32, 32)
    before, old_trunk = module(pixel_values=pixels).logits, copy.deepcopy(trunk(module))
    assert fit_head(module, classes) == "carried"
    after = module(pixel_values=pixels).logits
    for column, name in enumerate(classes):
        assert torch.allclose(
            after[:, column], before[:, ["ant", "bee", "cat"].index(name)], atol=1e-6
        )
    assert same(trunk(module), old_trunk)
    assert module.config.id2label == dict(enumerate(classes))


@pytest.mark.parametrize("zero", [False, True])
def test_new_classes_start_a_new_head_on_a_bit_equal_trunk(folder, zero):
    module = load_model(folder)
    before = copy.deepcopy(trunk(module))
    assert fit_head(module, ["dog", "ant", "eel", "fox"], zero=zero) == "new"
    ((_, head),) = find_heads(module)
    assert head.out_features == 4
    assert (head.weight.abs().max() == 0) == zero
    assert same(trunk(module), before)


def test_a_bf16_checkpoint_loads_as_fp32(save_model, tiny_config):
    module = load_model(save_model(tiny_config, dtype=torch.bfloat16))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_saving_and_loading_changes_no_bit(tmp_path):
    module = build_model(TINY, ["a", "b"])
    tensors = {name: torch.randn_like(value) for name, value in module.state_dict().items()}
    save_folder(module, tensors, tmp_path / "saved", EvalTransform().at_size(64))
    load_folder(module, tmp_path / "saved")
    assert same(module.state_dict(), tensors)


def test_drop_path_of_zero_is_the_plain_model_and_of_one_an_identity(folder):
    pixels = torch.randn(2, 3, 32, 32)
    plain, dropped = load_model(folder).train(), load_model(folder).train()
    set_drop_path(dropped, 0.5)
    assert dropped.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(
        dropped.eval()(pixel_values=pixels).logits, plain.eval()(pixel_values=pixels).logits
    )
    set_drop_path(dropped, 1 - 1e-7)
    hidden = torch.randn(2, 17, 32)
    last = dropped.train().vit.layers[-1]
    assert torch.equal(last(hidden), hidden)
    # it rises from 0, so the first layer is never dropped
    assert not torch.equal(dropped.vit.layers[0](hidden), hidden)


def test_drop_path_goes_into_the_config_of_kinds_that_have_a_rate(save_model):
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=32,
        patch_size=8,
    )
    module = build_model(
        ModelSource("x", save_model(config), weights=True), ["a", "b"], drop_path=0.4
    )
    assert module.config.drop_path_rate == 0.4
    assert any(getattr(layer, "drop_prob", 0) == pytest.approx(0.4) for layer in module.modules())


def test_mimetic_weights_put_attention_near_the_identity():
    torch.manual_seed(0)
    module = new_model(TINY, ["a", "b"])
    mimetic_init(module)
    attention = module.vit.layers[0].attention
    value_output = attention.v_proj.weight.T @ attention.o_proj.weight.T
    assert -0.45 < value_output.diagonal().mean() < -0.35
    query_key = attention.q_proj.weight[:32].T @ attention.k_proj.weight[:32]
    assert query_key.diagonal().mean() > 5 * query_key.mean().abs()
    # adjacent patches have more similar position embeddings than distant ones
    places = F.normalize(module.vit.embeddings.position_embeddings[0, 1:], dim=1)
    assert places[0] @ places[1] > places[0] @ places[-1]


@pytest.mark.parametrize(
    ("name", "millions"), [("vit-tiny", 5.72), ("vit-small", 22.05), ("vit-base", 86.57)]
)
def test_architectures_have_the_papers_parameter_counts(name, millions):
    with torch.device("meta"):
        module = new_model(ModelSource(name, None, weights=False), [str(i) for i in range(1000)])
    assert sum(parameter.numel() for parameter in module.parameters()) / 1e6 == pytest.approx(
        millions, abs=0.005
    )
    assert module.config.image_size == ARCHITECTURES[name][-1] == 224


def test_missing_weights_of_the_trunk_are_an_error(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["vit.encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 missing weights, first vit"):
        load_model(folder)


def test_a_pickled_checkpoint_is_refused_unopened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    import pickle

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"pytorch_model\.bin alone") as caught:
        MODEL_NAMES.find(str(folder), False)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        load_model(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_hub_id_without_a_hub_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(UserError, match=r"not on this machine and .* cannot be reached") as caught:
        MODEL_NAMES.find("nobody/no-such-model", False)
    assert "\n" not in str(caught.value) and "--from-scratch" in str(caught.value)


def test_an_unknown_word_names_what_there_is():
    with pytest.raises(UserError, match="nor one of tiny, vit-tiny"):
        MODEL_NAMES.find("vit-bass", False)


def test_a_folder_s_config_alone_starts_from_scratch(folder):
    (folder / "model.safetensors").unlink()
    source = MODEL_NAMES.find(str(folder), True)
    module = build_model(source, ["x", "y"])
    assert isinstance(find_heads(module)[0][1], nn.Linear) and module.config.num_labels == 2
