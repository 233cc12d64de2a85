"""Defaults by model and preset, warm-ups, parameter groups, micro-batches."""

import itertools

import pytest

from visionloop.engine.config.options import build
from visionloop.engine.config.resolve import resolve_auto
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.engine.lr_schedule import set_lr
from visionloop.engine.optim import build_optimizer
from visionloop.engine.train import resolve_settings
from visionloop.tasks.segmentation.architectures import ARCHITECTURES
from visionloop.tasks.segmentation.model import parameter_groups
from visionloop.tasks.segmentation.recipes import MICRO_BATCH, PRESETS, SEMANTIC
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.segmentation.semantic.task import SemanticTask

ADE20K = 39_120  # steps of the authors' run
LARGE = "tue-mps/ade20k_semantic_eomt_large_512"
PLAIN = "facebook/dinov2-with-registers-large"


def recipe_values(**flags):
    """Return {setting: value} before the data is read."""
    return {name: setting.value for name, setting in resolve_settings(SemanticTask, flags).items()}


def resolved(steps, **flags):
    """Return {setting: value} of a run of so many steps."""
    settings = resolve_auto(
        resolve_settings(SemanticTask, {"steps": steps, **flags}),
        100,
        "cpu",
        {},
        SemanticTask.resolve_defaults,
    )
    return {name: setting.value for name, setting in settings.items()}


# presets and shares of the run --------------------


def test_weights_are_fine_tuned_with_the_authors_numbers():
    values = recipe_values(model=LARGE)
    assert values["preset"] == "finetune" and not values["from_scratch"]
    assert (values["lr"], values["layer_decay"], values["weight_decay"], values["decay_all"]) == (
        1e-4,
        0.8,
        0.05,
        True,
    )
    assert (values["batch_size"], values["schedule"], values["clip_grad"], values["ema"]) == (
        16,
        "poly",
        0.01,
        False,
    )
    assert (values["schedule_power"], values["precision"], values["epochs"], values["points"]) == (
        0.9,
        "auto",
        31,
        12_544,
    )


def test_random_weights_train_longer_and_all_layers_alike():
    for values in (
        recipe_values(model="eomt-large", from_scratch=True),
        recipe_values(model=LARGE, preset="scratch"),
    ):
        assert (values["preset"], values["layer_decay"], values["epochs"]) == ("scratch", 1.0, 100)


def test_the_tiny_model_starts_from_random_weights_at_its_own_learning_rate():
    for values in (recipe_values(), recipe_values(model="tiny")):
        assert (values["model"], values["preset"], values["from_scratch"]) == (
            "tiny",
            "scratch",
            True,
        )
        assert (values["lr"], values["batch_size"], values["precision"], values["epochs"]) == (
            1e-3,
            8,
            "auto",
            60,
        )
        assert values["init"] == "mimetic"


def test_random_weights_of_another_architecture_are_those_of_transformers():
    for model in ("eomt-small", LARGE):
        assert recipe_values(model=model, from_scratch=True)["init"] == "transformers"


def test_a_flag_beats_the_preset_and_an_unknown_preset_is_named():
    values = recipe_values(model=LARGE, lr=0.5, steps=10)
    assert values["lr"] == 0.5 and values["epochs"] is None
    with pytest.raises(UserError, match=", ".join(PRESETS)):
        recipe_values(model=LARGE, preset="fast")


def test_presets_name_settings_that_exist():
    for preset in PRESETS:
        for model in ("tiny", LARGE):
            assert resolved(100, model=model, preset=preset).keys() == recipe_values().keys()


def test_the_heads_begin_and_the_vit_follows_over_twice_as_many_steps():
    values = resolved(ADE20K, model=LARGE)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (
        489,
        489,
        978,
    )
    values = resolved(40_000, model=LARGE)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (
        500,
        500,
        1000,
    )
    values = resolved(5, model=LARGE)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (1, 1, 2)


def test_a_set_warm_up_moves_that_of_the_vit_too():
    values = resolved(1000, model=LARGE, warmup_steps=70)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (
        70,
        70,
        140,
    )
    values = resolved(1000, model=LARGE, warmup_steps=70, backbone_rest=5, backbone_warmup=9)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (
        70,
        5,
        9,
    )
    values = resolved(1000, model=LARGE, warmup_steps=0)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (0, 0, 0)


def test_from_random_weights_everything_warms_up_at_once():
    values = resolved(1000, model="tiny")
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (
        25,
        0,
        25,
    )
    values = resolved(1000, model="tiny", warmup_steps=7)
    assert (values["warmup_steps"], values["backbone_rest"], values["backbone_warmup"]) == (7, 0, 7)


@pytest.mark.parametrize(
    "model", [LARGE, "eomt-large", "eomt-vit-large", "coco_panoptic_eomt_base_640_2x", "eomt-small"]
)
def test_a_released_eomt_needs_no_masks_in_a_short_run(model):
    assert resolved(1999, model=model)["mask_annealing"] == "off"
    assert resolved(2000, model=model)["mask_annealing"] == "auto"
    assert resolved(1999, model=model, mask_annealing="on")["mask_annealing"] == "on"
    assert resolved(1999, model=model, from_scratch=True)["mask_annealing"] == "auto"


def test_a_plain_vit_and_random_weights_have_masks_in_any_run():
    assert resolved(10, model=PLAIN)["mask_annealing"] == "auto"
    assert resolved(10, model="tiny")["mask_annealing"] == "auto"
    for steps in (10, 100_000):
        assert resolved(steps, model=PLAIN, preset="short")["mask_annealing"] == "off"


def test_a_folder_is_recognized_by_its_config(save_tiny, tmp_path):
    folder = save_tiny()
    assert (
        SEMANTIC.size_of(str(folder)) == "tiny"
        and resolved(100, model=str(folder))["mask_annealing"] == "off"
    )
    values = resolved(100, model=str(folder))
    assert (values["preset"], values["layer_decay"], values["lr"]) == ("finetune", 0.8, 1e-3)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2", "hidden_size": 1024}')
    assert (
        SEMANTIC.size_of(str(tmp_path)) == "eomt-large"
        and resolved(100, model=str(tmp_path))["mask_annealing"] == "auto"
    )
    for content in ('{"hidden_size": 8192}', "{}", "[]", "no json"):
        (tmp_path / "config.json").write_text(content)
        assert SEMANTIC.size_of(str(tmp_path)) is None


def test_every_size_has_a_micro_batch_and_the_batch_stays():
    assert set(MICRO_BATCH) == set(ARCHITECTURES)
    for size, micro_batch in MICRO_BATCH.items():
        assert resolved(100, model=size, from_scratch=True)["micro_batch"] == micro_batch
    values = resolved(100, model="eomt-large-cityscapes")
    assert (values["micro_batch"], values["batch_size"]) == (4, 16)
    assert resolved(100, model=PLAIN)["micro_batch"] == 4
    assert resolved(100, model=LARGE, micro_batch=2)["micro_batch"] == 2


# learning rates --------------------


@pytest.fixture
def large(tiny_module):
    """Return a narrow network of the depth of EoMT-L."""
    return tiny_module(hidden_size=8, num_hidden_layers=24, num_blocks=4, num_register_tokens=2)


def lrs_of(module, steps, heads, vit):
    """Return [{group: lr} of each step, and of the end]."""
    config = TrainConfig(steps=steps, lr=1e-4, schedule="poly", warmup_steps=heads)
    optimizer = build_optimizer(
        parameter_groups(module, layer_decay=0.8, rest=heads, warmup=vit), module, config
    )
    return [set_lr(optimizer, step, config) for step in range(steps + 1)]


def poly(step, steps):
    return (1 - step / steps) ** 0.9


def test_both_curves_are_the_authors(large):
    """Source: two_stage_warmup_poly_schedule.py, whose warm-ups start one step later."""
    steps, heads, vit = 200, 10, 20
    lrs = lrs_of(large, steps, heads, vit)
    for step, group_lrs in enumerate(lrs):
        factor = (step + 1) / heads if step < heads else poly(step - heads, steps - heads)
        assert group_lrs["heads"] == pytest.approx(1e-4 * factor)
        waited = step - heads
        factor = (
            0
            if waited < 0
            else (waited + 1) / vit
            if waited < vit
            else poly(waited - vit, steps - heads - vit)
        )
        assert group_lrs["norm"] == group_lrs["block_23"] == pytest.approx(1e-4 * factor)
    assert {
        lr for group_lrs in lrs[:heads] for name, lr in group_lrs.items() if name != "heads"
    } == {0.0}
    assert all(lr > 0 for lr in lrs[heads].values()) and set(lrs[-1].values()) == {0.0}
    assert (
        max(group_lrs["norm"] for group_lrs in lrs)
        == max(group_lrs["heads"] for group_lrs in lrs)
        == 1e-4
    )


def test_every_block_learns_slower_than_the_one_above(large):
    first = lrs_of(large, 200, 0, 0)[0]
    assert first.keys() == {"heads", "norm", "embeddings", *(f"block_{i}" for i in range(24))}
    assert first["block_0"] == first["embeddings"] == pytest.approx(5.9e-7, rel=0.005)
    assert first["block_19"] == pytest.approx(4.1e-5, rel=0.005)
    assert first["block_23"] == first["norm"] == first["heads"] == 1e-4
    blocks = [first[f"block_{i}"] for i in range(24)]
    assert [below / above for below, above in itertools.pairwise(blocks)] == pytest.approx(
        [0.8] * 23
    )


# groups --------------------


def names_by_group(module, **settings):
    """{group name: names of its parameters}."""
    name_of = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, **{"layer_decay": 0.8} | settings)
    return {
        group["name"]: {name_of[id(parameter)] for parameter in group["params"]} for group in groups
    }


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
def test_every_trained_parameter_is_in_one_group(large, decay_all, frozen):
    if frozen:
        large.embeddings.requires_grad_(False)
    names = [
        name for group in names_by_group(large, decay_all=decay_all).values() for name in group
    ]
    assert sorted(names) == sorted(
        name for name, parameter in large.named_parameters() if parameter.requires_grad
    )


def test_embeddings_blocks_norm_and_heads_have_groups_of_their_own(large):
    groups = names_by_group(large)
    assert groups["embeddings"] == {
        "embeddings.cls_token",
        "embeddings.register_tokens",
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embeddings.projection.bias",
        "embeddings.position_embeddings.weight",
    }
    assert groups["norm"] == {"layernorm.weight", "layernorm.bias"}
    assert all(name.startswith("layers.2.") for name in groups["block_2"]) and len(
        groups["block_2"]
    ) == len(groups["block_21"])
    assert {name.split(".")[0] for name in groups["heads"]} == {
        "query",
        "class_predictor",
        "mask_head",
        "upscale_block",
    }


def test_only_the_vit_waits_for_the_heads(large):
    for group in parameter_groups(large, layer_decay=0.8, rest=5, warmup=9):
        assert (group["start"], group["warmup"]) == (
            (0, None) if group["name"] == "heads" else (5, 9)
        )
    assert {
        (group["start"], group["warmup"]) for group in parameter_groups(large, layer_decay=1.0)
    } == {(0, None)}


def test_weight_decay_is_on_everything_or_on_matrices_alone(large):
    assert {group["weight_decay"] for group in parameter_groups(large, layer_decay=0.8)} == {None}
    groups = names_by_group(large, decay_all=False)
    plain = set().union(*(names for name, names in groups.items() if name.endswith("_no_decay")))
    assert {
        group["weight_decay"] for group in parameter_groups(large, layer_decay=0.8, decay_all=False)
    } == {None, 0.0}
    expected = {name for name, parameter in large.named_parameters() if parameter.ndim <= 1}
    tokens = {
        "query.weight",
        *(
            f"embeddings.{name}"
            for name in ("cls_token", "register_tokens", "position_embeddings.weight")
        ),
    }
    assert plain == expected | tokens


def test_the_task_hands_its_settings_on(large):
    settings = resolve_auto(
        resolve_settings(SemanticTask, {"steps": 1000, "model": LARGE}),
        100,
        "cpu",
        {},
        SemanticTask.resolve_defaults,
    )
    groups = SemanticTask(build(SemanticConfig, settings)).parameter_groups(large)
    assert {(group["start"], group["warmup"]) for group in groups} == {(0, None), (12, 24)}
    assert min(group["lr_scale"] for group in groups) == pytest.approx(0.8**23)
