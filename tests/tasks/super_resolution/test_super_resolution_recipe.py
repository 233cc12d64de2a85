"""Defaults that model, mode and preset change, and settings that contradict each other."""

import json
import math

import pytest
import torch

from visionloop.engine.config.options import build
from visionloop.engine.config.resolve import resolve_auto
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.engine.lr_schedule import set_lr
from visionloop.engine.optim import build_optimizer
from visionloop.engine.train import resolve_settings
from visionloop.tasks.super_resolution.architectures import ARCHITECTURES, PRETRAINED
from visionloop.tasks.super_resolution.config import MODES, SuperResolutionConfig
from visionloop.tasks.super_resolution.recipes import (
    MICRO_BATCH,
    PRESETS,
    RECIPE_OF_MODE,
    architecture_of,
    mode_of,
)
from visionloop.tasks.super_resolution.task import SuperResolutionTask

CLASSICAL = PRETRAINED["classical", 2]
# architecture -> mode, scale, batch, loss of the authors
OF_ARCHITECTURE = {
    "tiny": ("classical", 2, 4, "l1"),
    "lightweight": ("lightweight", 2, 64, "l1"),
    "classical": ("classical", 2, 32, "l1"),
    "real-world": ("real-world", 4, 32, "l1"),
    "compressed": ("compressed", 4, 32, "l1"),
    "denoise": ("denoise", 1, 8, "charbonnier"),
    "jpeg": ("jpeg", 1, 8, "charbonnier"),
}
MODE_FOR_SCALE_1 = {"mode": "denoise", "scale": 1}


def recipe_values(**flags):
    """{setting: value} before the data is read."""
    return {
        name: setting.value
        for name, setting in resolve_settings(SuperResolutionTask, flags).items()
    }


def resolved(steps, **flags):
    """{setting: value} of a run of so many steps."""
    settings = resolve_auto(
        resolve_settings(SuperResolutionTask, {"steps": steps, **flags}),
        100,
        "cpu",
        {},
        SuperResolutionTask.resolve_defaults,
    )
    return {name: setting.value for name, setting in settings.items()}


def refusal(**flags):
    """Return the error message of these flags, one line that starts with the flag."""
    with pytest.raises(UserError) as caught:
        recipe_values(**flags)
    line = str(caught.value)
    assert "\n" not in line and line.startswith("--" + caught.value.field.replace("_", "-"))
    return line


def folder_with(path, **config):
    """A folder that has a config.json alone."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


# modes and presets --------------------


def test_every_architecture_has_a_line_here():
    assert set(OF_ARCHITECTURE) == set(ARCHITECTURES) and set(RECIPE_OF_MODE) == set(MODES)


@pytest.mark.parametrize("model", OF_ARCHITECTURE)
@pytest.mark.parametrize("preset", PRESETS)
def test_an_architecture_names_its_mode_and_with_it_batch_and_loss(model, preset):
    values = recipe_values(model=model, preset=preset)
    assert (
        values["mode"],
        values["scale"],
        values["batch_size"],
        values["loss"],
    ) == OF_ARCHITECTURE[model]


@pytest.mark.parametrize("model", OF_ARCHITECTURE)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_the_authors_optimizer(model, preset):
    values = resolved(1000, model=model, preset=preset)
    assert (values["optimizer"], values["weight_decay"], values["beta1"]) == ("adam", 0.0, 0.9)
    of_its_own = (values["beta2"], values["clip_grad"], values["warmup_steps"])
    assert of_its_own == ((0.99, 1.0, 50) if model == "tiny" else (0.999, math.inf, 0))
    assert (values["ema"], values["ema_decay"], values["flips"]) == (True, 0.999, True)


def test_random_weights_have_the_authors_learning_rate_and_trained_ones_half_of_it():
    for model in set(ARCHITECTURES) - {"tiny"}:
        scratch, tuned = (
            recipe_values(model=model, preset="scratch"),
            recipe_values(model=model, preset="finetune"),
        )
        assert (scratch["lr"], tuned["lr"]) == (2e-4, 1e-4)
        assert (scratch["steps"], tuned["steps"]) == (500_000, 250_000)
    assert (
        recipe_values(model="classical", from_scratch=True)["preset"]
        == recipe_values(model="denoise")["preset"]
        == "scratch"
    )
    assert (
        recipe_values(model="classical")["preset"]
        == recipe_values(model=CLASSICAL)["preset"]
        == "finetune"
    )
    # there are no weights of these
    assert (
        recipe_values(model="denoise")["from_scratch"]
        and recipe_values(model="jpeg")["from_scratch"]
    )


def test_the_learning_rate_is_halved_where_the_authors_halve_it():
    settings = resolve_settings(SuperResolutionTask, {"model": "classical", "from_scratch": True})
    config = build(
        TrainConfig, resolve_auto(settings, 800, "cpu", {}, SuperResolutionTask.resolve_defaults)
    )
    module = torch.nn.Linear(1, 1)
    optimizer = build_optimizer(
        SuperResolutionTask(SuperResolutionConfig()).parameter_groups(module), module, config
    )
    lrs = {
        step: set(set_lr(optimizer, step, config).values())
        for step in (0, 249_999, 250_000, 400_000, 450_000, 475_000, 499_999)
    }
    assert list(lrs.values()) == [{2e-4 / times} for times in (1, 1, 2, 4, 8, 16, 16)]


def test_the_tiny_model_is_trained_in_minutes_by_numbers_of_its_own():
    for values in (recipe_values(), recipe_values(model="tiny")):
        assert (values["model"], values["preset"], values["from_scratch"]) == (
            "tiny",
            "scratch",
            True,
        )
        assert (values["lr"], values["batch_size"], values["schedule"], values["lr_min"]) == (
            2e-3,
            4,
            "cosine",
            0.0,
        )
        assert (values["steps"], values["init"]) == (9000, "authors")
    values = recipe_values(mode="jpeg")
    assert (values["scale"], values["loss"], values["batch_size"]) == (1, "charbonnier", 4)


def test_a_flag_beats_the_recipe_and_an_unknown_preset_or_mode_is_named():
    values = recipe_values(
        model="classical",
        lr=0.5,
        steps=10,
        loss="charbonnier",
        batch_size=4,
        mode="real-world",
        scale=4,
        ema=False,
    )
    assert (values["lr"], values["steps"], values["loss"], values["batch_size"]) == (
        0.5,
        10,
        "charbonnier",
        4,
    )
    assert (values["mode"], values["scale"], values["ema"]) == ("real-world", 4, False)
    assert recipe_values(model="classical", epochs=3)["steps"] is None
    assert ", ".join(PRESETS) in refusal(model="classical", preset="fast")
    assert ", ".join(MODES) in refusal(mode="fast")


def test_presets_name_settings_that_exist():
    for preset in PRESETS:
        for model in (*ARCHITECTURES, CLASSICAL):
            assert resolved(100, model=model, preset=preset).keys() == recipe_values().keys()


def test_every_architecture_has_a_micro_batch_and_the_batch_stays():
    assert set(MICRO_BATCH) == set(ARCHITECTURES)
    for name, micro_batch in MICRO_BATCH.items():
        assert resolved(100, model=name, from_scratch=True)["micro_batch"] == micro_batch
    values = resolved(100, model="classical-x4")
    assert (values["micro_batch"], values["batch_size"]) == (4, 32)
    assert resolved(100, model="classical-x4", micro_batch=2)["micro_batch"] == 2
    assert resolved(100, model="somebody/elses")["micro_batch"] == 4


# scales --------------------


@pytest.mark.parametrize(
    ("model", "mode", "scale"),
    [
        ("classical-x4", "classical", 4),
        ("lightweight-x2", "lightweight", 2),
        ("caidas/swin2sr-classicalsr-x2-64", "classical", 2),
        ("swin2SR-realworld-sr-x4-64-bsrgan-psnr", "real-world", 4),
        (PRETRAINED["compressed", 4], "compressed", 4),
        ("somebody/elses", "classical", None),  # unknown until its config is read
    ],
)
def test_names_of_released_weights_tell_mode_and_scale(model, mode, scale):
    values = recipe_values(model=model)
    assert (values["mode"], values["scale"]) == (mode, scale)
    assert recipe_values(model=model, scale=3)["scale"] == 3


def test_the_size_stays_in_restoration_and_only_there():
    assert (
        refusal(model="classical", scale=1)
        == "--scale 1: choose the restoration with --mode denoise or jpeg"
    )
    assert refusal(model="tiny", scale=1) == refusal(model="classical-x4", scale=1)
    assert refusal(mode="denoise", scale=2) == "--scale 2: denoise and jpeg keep the image size"
    assert refusal(model="jpeg", scale=4) == "--scale 4: denoise and jpeg keep the image size"
    assert (
        refusal(model="denoise", mode="classical")
        == "--scale 1: choose the restoration with --mode denoise or jpeg"
    )
    assert (
        recipe_values(model="classical", **MODE_FOR_SCALE_1)["scale"]
        == recipe_values(model="classical", mode="denoise")["scale"]
        == 1
    )


@pytest.mark.parametrize("scale", [0, 9])
def test_a_scale_beyond_eight_is_refused(scale):
    assert refusal(scale=scale) == f"--scale: expected 1 to 8, got {scale}"


def test_settings_of_other_tasks_are_refused_with_an_alternative():
    assert refusal(layer_decay=0.8) == "--layer-decay: not for super-resolution"
    assert (
        refusal(image_size=64)
        == "--image-size: not for super-resolution; --patch-size is the side of the training crops"
    )


def test_best_weights_by_a_score_that_is_not_taken_are_refused():
    assert refusal(best_metric="lpips") == "--best-metric lpips: needs --lpips-weights"
    assert (
        recipe_values(best_metric="lpips", lpips_weights="lpips.safetensors")["best_metric"]
        == "lpips"
    )


# folders --------------------

LARGE, LIGHT, SMALL = (
    {"embed_dim": embed, "depths": depths}
    for embed, depths in ((180, [6] * 6), (60, [6] * 4), (60, [2, 2]))
)


@pytest.mark.parametrize(
    ("config", "architecture", "mode", "scale"),
    [
        (LARGE | {"upsampler": "pixelshuffle", "upscale": 3}, "classical", "classical", 3),
        (LARGE | {"upsampler": "nearest+conv", "upscale": 4}, "real-world", "real-world", 4),
        (LARGE | {"upsampler": "pixelshuffle_aux", "upscale": 4}, "compressed", "compressed", 4),
        (LARGE | {"upsampler": "", "upscale": 1, "visionloop_mode": "jpeg"}, "jpeg", "jpeg", 1),
        (
            LIGHT | {"upsampler": "pixelshuffledirect", "upscale": 2},
            "lightweight",
            "lightweight",
            2,
        ),
        (
            LIGHT | {"upsampler": "", "upscale": 1, "visionloop_mode": "denoise"},
            "lightweight",
            "denoise",
            1,
        ),
        (
            SMALL
            | {"upsampler": "pixelshuffledirect", "upscale": 2, "visionloop_mode": "classical"},
            "tiny",
            "classical",
            2,
        ),
        (SMALL | {"upsampler": "pixelshuffledirect", "upscale": 2}, "tiny", "lightweight", 2),
        (SMALL | {"upsampler": "nearest+conv", "upscale": 4}, "tiny", "real-world", 4),
        (
            SMALL | {"upsampler": "", "upscale": 1, "visionloop_mode": "denoise"},
            "tiny",
            "denoise",
            1,
        ),
    ],
)
def test_a_folder_is_identified_by_its_config(tmp_path, config, architecture, mode, scale):
    folder = folder_with(tmp_path / "model", model_type="swin2sr", **config)
    assert (architecture_of(folder), mode_of(folder)) == (architecture, mode)
    values = resolved(100, model=folder)
    assert (values["mode"], values["scale"], values["preset"]) == (mode, scale, "finetune")
    assert (values["loss"], values["micro_batch"]) == (
        RECIPE_OF_MODE[mode][1],
        MICRO_BATCH[architecture],
    )
    assert values["batch_size"] == (4 if architecture == "tiny" else RECIPE_OF_MODE[mode][0])


def test_a_folder_for_x1_without_a_mode_asks_for_one(tmp_path):
    folder = folder_with(tmp_path / "model", **LARGE, upsampler="", upscale=1)
    assert refusal(model=folder) == "--scale 1: choose the restoration with --mode denoise or jpeg"
    assert recipe_values(model=folder, mode="jpeg")["scale"] == 1


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "no json",
        '{"embed_dim": null}',
        '{"embed_dim": "wide", "depths": 3}',
        '{"visionloop_mode": 5}',
    ],
)
def test_what_is_wrong_with_a_folder_is_reported_when_it_is_loaded(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert mode_of(str(tmp_path)) == "classical"
    assert resolved(10, model=str(tmp_path))["mode"] == "classical"


def test_a_folder_that_is_named_like_an_architecture_is_not_asked(tmp_path, monkeypatch):
    """`--model jpeg` is the architecture wherever it is typed."""
    folder_with(
        tmp_path / "tiny",
        **LARGE,
        upsampler="nearest+conv",
        upscale=4,
        visionloop_mode="real-world",
    )
    monkeypatch.chdir(tmp_path)
    values = recipe_values(model="tiny")
    assert (values["mode"], values["scale"]) == ("classical", 2)
