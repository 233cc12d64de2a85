"""The hooks of the task: training, saving, every mode, stopping, and unusual images."""

import json
import logging
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_super_resolution import QUIET, SmallTask
from super_resolution_files import some_image, write_image, write_super_resolution_data
from transformers import Swin2SRForImageSuperResolution

from visionloop.bin.converters.lpips import convert_lpips
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.testing.short_runs import (
    CONFIG,
    STEPS,
    logged,
    runs_differ,
    seeded_model,
    spec_of,
    train_steps,
)
from visionloop.engine.train import run_training, train
from visionloop.metrics.lpips import SHAPES, Lpips
from visionloop.tasks.super_resolution.network import pad_to_window
from visionloop.tasks.super_resolution.task import SuperResolutionTask

# a run of a second, evaluated at the end
SHORT = replace(CONFIG, steps=3, eval_every=0, save_every=0, batch_size=4, micro_batch=2, ema=False)
FLAGS = dict(
    patch_size=8, steps=3, batch_size=4, micro_batch=4, eval_every=0, save_every=0, log_every=1,
    workers=0, threads=1, precision="fp32", device="cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder, empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "visionloop" / "images"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of 80 x 86 px and a little larger, small ones made from them."""
    return write_super_resolution_data(tmp_path_factory.mktemp("data"), images=5, size_hw=(80, 86))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Colored blocks of 4 px: half as large, nothing of them is lost."""
    folder, generator = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4):
            colors = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            write_image(
                folder / split / "HR" / f"{number}.png", colors.repeat(4, axis=0).repeat(4, axis=1)
            )
    return folder


def small_task(data, **settings):
    return SmallTask(replace(QUIET, data=str(data), **settings))


def eval_batch(task, dataset, numbers):
    return task.collate_eval([dataset[i] | {"sample_id": torch.tensor(i)} for i in numbers])


def scores_of(task, module, dataset, batch_size=4):
    return evaluate_dataset(task, module, dataset, batch_size=batch_size).compute()


def losses_in(output):
    return [row["loss"] for row in logged(output) if row["kind"] == "train"]


def refusal(function, *arguments, **settings):
    """Return the error message, one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# learning --------------------


@pytest.fixture(scope="module")
def overfitted(blocks):
    """(task, module, its first and last loss): one batch overfitted."""
    task = small_task(blocks, patch_size=16, flips=False)
    module, dataset = seeded_model(task), task.build_eval_dataset("train")
    batch = task.collate([dataset[i] | {"sample_id": torch.tensor(i)} for i in range(4)], 0, 0)
    optimizer, losses = torch.optim.Adam(module.parameters()), []
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)
        losses.append(task.loss(module, batch, task.count_normalizers([batch]))["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return task, module, [float(losses[i].detach()) for i in (0, -1)]


def test_one_batch_is_overfitted(overfitted):
    task, module, (first, last) = overfitted
    assert last < 0.15 * first
    metric = evaluate_dataset(task, module, task.build_eval_dataset("train"), batch_size=4)
    scores = metric.compute()
    assert scores["psnr"] > task.reference_scores(metric)["bicubic PSNR"] + 5
    assert scores["val_loss"] == pytest.approx(
        last, rel=0.05
    )  # the training loss between pixels, a step later


def test_what_is_saved_scores_the_same(overfitted, blocks, tmp_path):
    task, module, _ = overfitted
    task.save(module, module.state_dict(), tmp_path / "saved")
    again, loaded = SuperResolutionTask.load_trained(
        tmp_path / "saved", data=str(blocks), cache="none"
    )
    assert not loaded.training and (again.config.mode, again.scale, again.border) == (
        "classical",
        2,
        2,
    )
    assert scores_of(again, loaded, again.build_eval_dataset("train")) == scores_of(
        task, module, task.build_eval_dataset("train")
    )


def test_a_batch_of_training_is_pairs_of_crops(data):
    task = small_task(data, patch_size=12, scale=4)
    train_set, val = task.build_datasets()
    batch = task.collate([train_set[i] | {"sample_id": torch.tensor(i)} for i in range(3)], 0, 0)
    assert batch["pixel_values"].shape == (3, 3, 12, 12) and batch["hr"].shape == (3, 3, 48, 48)
    assert batch["pixel_values"].dtype == batch["hr"].dtype == torch.uint8 and batch[
        "sample_ids"
    ].tolist() == [0, 1, 2]
    assert task.count_normalizers([batch, batch]) == {"pixels": 2 * 3 * 48 * 48}
    torch.testing.assert_close(task.to_input(batch), batch["pixel_values"] / 255)
    batch = eval_batch(task, val, range(5))
    assert [image.shape[1:] for image in batch["pixel_values"]] == [
        (20 + i // 4, 21) for i in range(5)
    ]
    assert [image.shape for image in batch["bicubic"]] == [image.shape for image in batch["hr"]]


def test_losses_of_micro_batches_add_up_to_the_mean_over_the_batch(data):
    task = small_task(data, loss="charbonnier")
    module, (train_set, _) = seeded_model(task), task.build_datasets()
    samples = [train_set[i] | {"sample_id": torch.tensor(i)} for i in range(5)]
    micro_batches = [task.collate(samples[:2], 0, 0), task.collate(samples[2:], 0, 2)]
    total = sum(
        task.loss(module, micro_batch, task.count_normalizers(micro_batches))["loss"]
        for micro_batch in micro_batches
    )
    whole = task.collate(samples, 0, 0)
    torch.testing.assert_close(
        total, task.loss(module, whole, task.count_normalizers([whole]))["loss"]
    )
    torch.testing.assert_close(
        total,
        (module(task.to_input(whole))["sr"] - whole["hr"] / 255).abs().mean(),
        atol=1e-4,
        rtol=0,
    )


# every mode, from a folder to a folder --------------------

# head and scale of the folder that is trained on, settings, loss terms, pixels at the edge that no
# correction reaches
MODES = {
    "classical x2": ("pixelshuffle", 2, {}, {}, set(), 0),
    "classical x3 from x2": ("pixelshuffle", 2, {}, {"scale": 3, "mode": "classical"}, set(), 0),
    "compressed x4": (
        "pixelshuffle_aux",
        4,
        {},
        {"quality": "30"},
        {"loss_aux", "loss_frequency"},
        2,
    ),
    "denoise": ("", 1, {}, {"mode": "denoise", "noise": "15-50"}, set(), 0),
    "jpeg": (
        "",
        1,
        {"window_size": 7, "img_range": 255.0},
        {"mode": "jpeg", "patch_size": 14},
        set(),
        0,
    ),
    "real-world x4": ("nearest+conv", 4, {}, {}, set(), 0),
}


@pytest.fixture(scope="module")
def in_mode(tmp_path_factory, data):
    """in_mode(name) -> (the run's folder, its Result), trained once each."""
    done = {}

    def run(name, save_tiny):
        if name not in done:
            upsampler, scale, fields, settings, _, _ = MODES[name]
            start = save_tiny(upsampler, scale, **fields)
            output = tmp_path_factory.mktemp("runs") / "run"
            flags = (
                FLAGS
                | {"data": str(data), "model": str(start), "output": str(output), "ema": False}
                | settings
            )
            done[name] = output, train(SuperResolutionTask, **flags)
        return done[name]

    return run


@pytest.mark.parametrize("name", MODES)
def test_a_short_run_in_each_mode_ends_with_finite_losses_and_scores(in_mode, save_tiny, name):
    output, result = in_mode(name, save_tiny)
    assert result.state == "finished" and result.step == 3
    rows = [row for row in logged(output) if row["kind"] == "train"]
    assert {key for key in rows[0] if key.startswith("loss")} == {"loss", "loss_pixel"} | MODES[
        name
    ][4]
    assert all(math.isfinite(row[key]) for row in rows for key in row if key.startswith("loss"))
    assert {"psnr", "ssim", "psnr_rgb", "ssim_rgb", "val_loss"} == set(result.scores)
    assert all(map(math.isfinite, result.scores.values()))


@pytest.mark.parametrize("name", MODES)
def test_plain_transformers_gives_the_image_that_was_trained(in_mode, save_tiny, data, name):
    output, _ = in_mode(name, save_tiny)
    trained = SuperResolutionTask.load_trained(output / "checkpoints" / "step_00000003")[1]
    assert trained.official_heads
    scale, edge = trained.scale, MODES[name][5]
    assert (
        json.loads((output / "best" / "config.json").read_text())["upscale"]
        == scale
        == MODES[name][3].get("scale", MODES[name][1])
    )
    library = Swin2SRForImageSuperResolution.from_pretrained(
        output / "best", use_safetensors=True
    ).eval()
    image = torch.from_numpy(some_image("new", 13, 22)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        ours = trained(image)["sr"]
        theirs = library(pad_to_window(image, trained.window)).reconstruction[
            ..., : 13 * scale, : 22 * scale
        ]
    inside = (..., slice(edge, 13 * scale - edge), slice(edge, 22 * scale - edge))
    tolerance = 2e-6 if trained.upsampler in ("", "pixelshuffle_aux") else 0
    torch.testing.assert_close(theirs[inside], ours[inside], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", MODES)
def test_evaluating_best_does_to_the_input_what_training_did(in_mode, save_tiny, data, name):
    output, result = in_mode(name, save_tiny)
    task, module = SuperResolutionTask.load_trained(output / "best", data=str(data))
    border = 0 if task.scale == 1 or name.startswith("real-world") else task.scale
    assert (task.config.mode, task.border) == (name.split()[0], border)
    scores = scores_of(task, module, task.build_eval_dataset("val"))
    assert scores == pytest.approx(
        result.scores, abs=2e-3
    )  # corrected weights round a gray level differently here and there


def test_settings_of_evaluation_beat_those_of_training(in_mode, save_tiny, data):
    output, _ = in_mode("denoise", save_tiny)
    assert SuperResolutionTask.load_trained(output / "best")[0].config.noise == "15-50"
    task = SuperResolutionTask.load_trained(output / "best", data=str(data), noise="50")[0]
    assert task.degradation.lowest == 50
    task = SuperResolutionTask.load_trained(output / "best", mode="jpeg", quality="10")[0]
    assert task.degradation.highest == 10


def test_a_network_that_enlarges_is_not_evaluated_on_noise(in_mode, save_tiny):
    output, _ = in_mode("classical x2", save_tiny)
    line = refusal(SuperResolutionTask.load_trained, output / "best", mode="denoise")
    assert line == f"--mode denoise: keeps the image size, but {output / 'best'} is for x2"


def test_training_starts_from_best_in_its_own_mode(in_mode, save_tiny, data, tmp_path):
    output, _ = in_mode("compressed x4", save_tiny)
    flags = FLAGS | {
        "data": str(data),
        "model": str(output / "best"),
        "output": str(tmp_path / "next"),
        "ema": False,
    }
    train(SuperResolutionTask, **flags | {"quality": "30", "lr": 0.0})
    settings = json.loads((tmp_path / "next" / "settings.json").read_text())["settings"]
    assert settings["mode"]["value"] == "compressed" and settings["scale"]["value"] == 4
    old, new = (
        load_file(run / "checkpoints" / "step_00000003" / "model.safetensors")
        for run in (output, tmp_path / "next")
    )
    assert all(
        torch.allclose(tensor, new[name], atol=1e-6) for name, tensor in old.items()
    )  # corrected, and back


@pytest.mark.parametrize("name", ["denoise", "jpeg", "compressed x4", "classical x2"])
def test_a_checkpoint_is_exported_like_best(in_mode, save_tiny, tmp_path, name):
    output, _ = in_mode(name, save_tiny)
    task, module = SuperResolutionTask.load_trained(output / "checkpoints" / "step_00000003")
    lines = task.export(module, tmp_path / "export")
    assert len(lines) == (name != "classical x2")
    best, exported = (
        load_file(folder / "model.safetensors") for folder in (output / "best", tmp_path / "export")
    )
    assert all(torch.equal(tensor, exported[key]) for key, tensor in best.items())
    assert all(
        torch.equal(tensor, exported[key]) for key, tensor in module.state_dict().items()
    )  # corrected in place
    again = SuperResolutionTask.load_trained(tmp_path / "export")[1]
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(image)["sr"], again(image)["sr"])


# evaluation --------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"mode": "denoise", "scale": 1, "noise": "50"}, {"mode": "compressed", "scale": 4}],
)
def test_scores_do_not_depend_on_the_evaluation_batch(data, settings):
    task = small_task(data, **settings)
    module, val = seeded_model(task), task.build_eval_dataset("val")
    scores = [scores_of(task, module, val, batch_size) for batch_size in (1, 2, 5)]
    assert scores[0] == scores[1] == scores[2] and math.isfinite(scores[0]["val_loss"])


def test_a_share_set_aside_is_what_evaluate_reads_later(data, tmp_path):
    (tmp_path / "alone" / "train").mkdir(parents=True)
    (tmp_path / "alone" / "train" / "HR").symlink_to(data / "train" / "HR")
    flags = FLAGS | {
        "data": str(tmp_path / "alone"),
        "output": str(tmp_path / "run"),
        "patch_size": 16,
    }
    assert "no validation split (val/HR/)" in refusal(train, SuperResolutionTask, **flags)
    result = train(SuperResolutionTask, **flags, val_split=0.4)
    task, module = SuperResolutionTask.load_trained(
        tmp_path / "run" / "best", data=str(tmp_path / "alone"), val_split=0.4
    )
    train_part, val = task.build_eval_dataset("train"), task.build_eval_dataset("val")
    assert len(train_part) + len(val) == 5 and len(val) == 2
    assert scores_of(task, module, val) == pytest.approx(result.scores, rel=1e-9)


def test_an_ensemble_and_tiles_are_used_in_evaluation(data):
    task = small_task(data)
    module = seeded_model(task)
    plain = scores_of(task, module, task.build_eval_dataset("val"))
    mean = small_task(data, ensemble=8)
    assert scores_of(mean, module, mean.build_eval_dataset("val"))["psnr"] != plain["psnr"]
    tiled = small_task(data, tile=8, halo=module.reach)
    assert scores_of(tiled, module, tiled.build_eval_dataset("val"))["psnr"] == pytest.approx(
        plain["psnr"], abs=1e-3
    )
    assert refusal(small_task, data, ensemble=3) == "--ensemble: expected 1 or 8, got 3"


# LPIPS --------------------


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    """Write the file that bin/convert.py makes, with random weights."""
    folder, generator = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0)
    tensors = {key: 0.05 * torch.rand(shape, generator=generator) for key, shape in SHAPES.items()}
    save_file(
        {key: tensor - 0.02 for key, tensor in tensors.items() if key.startswith("features.")},
        folder / "backbone.safetensors",
    )
    heads = {
        f"lin{key[6]}.model.1.weight": tensor
        for key, tensor in tensors.items()
        if key.startswith("heads.")
    }
    save_file(heads, folder / "heads.safetensors")
    convert_lpips(
        folder / "backbone.safetensors", folder / "heads.safetensors", folder / "lpips.safetensors"
    )
    return folder / "lpips.safetensors"


def test_lpips_is_scored_where_its_weights_are_given(data, lpips_file, tmp_path):
    task = small_task(data, lpips_weights=str(lpips_file))
    result = train_steps(task, tmp_path, config=SHORT)
    module = seeded_model(task)
    task.load(module, tmp_path / "checkpoints" / "step_00000003")
    batch, measure = (
        eval_batch(task, task.build_eval_dataset("val"), range(5)),
        Lpips.load(lpips_file),
    )
    with torch.no_grad():
        images = task.predict(module.eval(), batch)["images"]
    expected = [
        measure(image[None], hr[None]).item() for image, hr in zip(images, batch["hr"], strict=True)
    ]
    assert result.scores["lpips"] == pytest.approx(np.mean(expected)) and min(expected) > 0


def test_without_them_one_line_is_logged_once(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = train_steps(small_task(data), tmp_path, config=replace(SHORT, eval_every=1))
    messages = [record.getMessage() for record in caplog.records if "LPIPS" in record.getMessage()]
    assert messages == [
        "LPIPS is not scored: --lpips-weights names no file (bin/convert.py lpips makes it)"
    ]
    assert "lpips" not in result.scores


def test_a_wrong_lpips_file_is_reported_before_the_first_step(data, lpips_file, tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, why in (
        ("text", "safetensors"),
        ("other", r"features.0.weight: expected shape"),
        ("absent", "No such file"),
    ):
        path = str(tmp_path / f"{name}.safetensors")
        line = refusal(
            train,
            SuperResolutionTask,
            **FLAGS,
            data=str(data),
            output=str(tmp_path / name),
            lpips_weights=path,
        )
        assert line.startswith(f"--lpips-weights: {path}: ") and why in line
        assert json.loads((tmp_path / name / "status.json").read_text())["state"] == "failed"
        assert not (tmp_path / name / "metrics.jsonl").exists()


# the cache --------------------


@pytest.mark.parametrize(
    "settings", [{}, {"mode": "compressed", "scale": 4}, {"mode": "denoise", "scale": 1}]
)
def test_with_and_without_a_cache_it_is_the_same_run(data, cache, tmp_path, settings):
    assert not cache.exists()
    train_steps(small_task(data, cache="none", **settings), tmp_path / "none")
    assert not cache.exists()
    train_steps(small_task(data, cache="disk", **settings), tmp_path / "disk")
    assert len(list(cache.rglob("*.raw"))) == (10 if settings.get("scale") == 1 else 20)
    assert runs_differ(tmp_path / "none", tmp_path / "disk") is None


# wrong settings --------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"mode": "denoise", "noise": "loud"},
            "--noise: expected a number or a range such as 15-50, within 0 to 255, got 'loud'",
        ),
        (
            {"mode": "denoise", "noise": "50-15"},
            "--noise: expected a number or a range such as 15-50, within 0 to 255, got '50-15'",
        ),
        (
            {"mode": "jpeg", "quality": "0"},
            "--quality: expected a whole number or a range such as 15-50, within 1 to 100, got '0'",
        ),
        (
            {"mode": "jpeg", "quality": "10.5"},
            "--quality: expected a whole number or a range such as 15-50, within 1 to 100, got"
            " '10.5'",
        ),
        ({"scale": 5}, "--scale 5: tiny supports the scales 1, 2, 3, 4, 8"),
        (
            {"patch_size": 8},
            "--patch-size: 8 pixels, expected more than the window's 8: no block would"
            " shift its windows",
        ),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line_before_an_image_is_decoded(
    data, cache, tmp_path, settings, line
):
    flags = FLAGS | {"patch_size": 16} | settings
    assert (
        refusal(train, SuperResolutionTask, data=str(data), output=str(tmp_path / "run"), **flags)
        == line
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists() and not cache.exists()


def test_a_noise_that_is_not_used_is_not_parsed(data):
    assert small_task(data, noise="loud", quality="bad").degradation is None


# unusual images --------------------


@pytest.fixture
def odd(tmp_path):
    """Sides that scale and window do not divide, an image of one crop, strips, a few pixels."""
    for number, size in enumerate([(67, 65), (65, 64), (64, 131), (200, 66)]):
        write_image(
            tmp_path / "odd" / "train" / "HR" / f"{number}.png", some_image(str(number), *size)
        )
    for number, size in enumerate([(37, 61), (9, 70), (70, 9), (4, 4), (8, 12), (33, 33)]):
        write_image(
            tmp_path / "odd" / "val" / "HR" / f"{number}.png", some_image(str(number), *size)
        )
    return tmp_path / "odd"


@pytest.mark.parametrize(
    "settings",
    [{}, {"scale": 3}, {"mode": "compressed", "scale": 4}, {"mode": "denoise", "scale": 1}],
)
def test_odd_images_are_trained_on_and_evaluated(odd, tmp_path, settings):
    task = small_task(odd, cache="disk", **settings)
    result = train_steps(task, tmp_path / "run", config=SHORT)
    assert result.state == "finished" and all(map(math.isfinite, losses_in(tmp_path / "run")))
    assert all(math.isfinite(result.scores[name]) for name in ("psnr", "ssim", "val_loss"))
    batch = eval_batch(task, task.build_eval_dataset("val"), range(6))
    with torch.no_grad():
        predictions = task.predict(seeded_model(task).eval(), batch)
    assert [image.shape for image in predictions["images"]] == [
        image.shape for image in batch["hr"]
    ]
    assert all(image.dtype == torch.uint8 for image in predictions["images"])


def test_a_validation_set_too_small_for_any_score_ends_without_one(data, tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "HR").symlink_to(data / "train" / "HR")
    write_image(tmp_path / "data" / "val" / "HR" / "dot.png", some_image("dot", 4, 4))
    result = train_steps(small_task(tmp_path / "data"), tmp_path / "run", config=SHORT)
    assert (
        result.state == "finished"
        and math.isnan(result.scores["psnr"])
        and math.isfinite(result.scores["val_loss"])
    )
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_of_large_images_a_part_is_drawn_and_crops_whole():
    sizes = [(3, 24, 24), (3, 64, 64), (3, 700, 500)]
    batch = {"pixel_values": [torch.zeros(size, dtype=torch.uint8) for size in sizes]}
    batch["hr"] = [
        torch.zeros(3, 2 * height, 2 * width, dtype=torch.uint8) for _, height, width in sizes
    ]
    for i, (height, width) in enumerate([(192, 386), (128, 258), (512, 1026)]):
        image = SmallTask(QUIET).draw({name: column[i : i + 1] for name, column in batch.items()})[
            "batch"
        ]
        assert height <= image.shape[0] < height + 60 and width <= image.shape[1] < width + 60


# parts that stay --------------------


def test_a_frozen_backbone_keeps_every_bit_and_the_head_learns(data, tmp_path):
    task = small_task(data, freeze="backbone", mode="compressed", scale=4)
    train_steps(task, tmp_path, config=SHORT)
    before = seeded_model(task).state_dict()
    after = load_file(tmp_path / "checkpoints" / "step_00000003" / "model.safetensors")
    still = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert (
        still == {name for name in before if name.startswith("swin2sr.")} and still != before.keys()
    )


# stopping --------------------


def test_a_stop_leaves_the_evaluation_at_a_batch_border(data):
    task = small_task(data)
    module, val, done = seeded_model(task), task.build_eval_dataset("val"), []
    assert (
        evaluate_dataset(
            task, module, val, batch_size=2, stop=lambda: len(done) == 1, advance=done.append
        )
        is None
    )
    assert done == [2] and module.training
    assert len(evaluate_dataset(task, module, val, batch_size=2, advance=done.append)) == 5


class StoppedInEvaluation(SmallTask):
    """Stopped while the second batch of the run's first evaluation goes through the network."""

    flag, calls = None, 0

    def predict(self, model, batch):
        self.calls += 1
        self.flag.requested = self.flag.requested or self.calls == 2
        return super().predict(model, batch)


class StopAtOnce(StopFlag):
    """Requested from the first step on."""

    def install(self):
        super().install()
        self.requested = True


def test_the_same_command_resumes_and_then_reports_the_run_as_finished(
    data, save_tiny, tmp_path, capsys
):
    """With all the recipe's settings: nothing is clipped, and json has no infinity."""
    flags = FLAGS | {"data": str(data), "model": str(save_tiny())}
    for name, stops in (("straight", [None]), ("stopped", [StopAtOnce(), None])):
        ends = [
            train(SuperResolutionTask, **flags, output=str(tmp_path / name), stop=stop)
            for stop in stops
        ]
        assert [(end.state, end.step) for end in ends] == [("stopped", 1), ("finished", 3)][
            -len(stops) :
        ]
        assert train(SuperResolutionTask, **flags, output=str(tmp_path / name)).step == 3
        assert "this run is finished (3 steps); nothing to do" in capsys.readouterr().out
    weights = [
        (tmp_path / name / "best" / "model.safetensors").read_bytes()
        for name in ("straight", "stopped")
    ]
    assert weights[0] == weights[1]


def test_an_evaluation_that_a_stop_dropped_is_done_first_and_changes_no_byte(data, tmp_path):
    config = replace(QUIET, data=str(data), mode="denoise", scale=1, noise="5-50")
    settings = replace(CONFIG, eval_batch_size=1)
    task = StoppedInEvaluation(config)
    task.flag = StopFlag()
    (tmp_path / "stopped").mkdir()
    spec = spec_of(task, tmp_path / "stopped", config=settings)
    result = run_training(spec, start=None, stop=task.flag)
    assert (result.state, result.step, task.calls) == ("stopped", 3, 2) and not result.scores
    state = json.loads(
        (tmp_path / "stopped" / "checkpoints" / "step_00000003" / "state.json").read_text()
    )
    assert state["step"] == 3 and state["evaluated_at"] == 0
    for name in ("stopped", "straight"):
        assert train_steps(SmallTask(config), tmp_path / name, config=settings).step == STEPS
    assert runs_differ(tmp_path / "straight", tmp_path / "stopped") is None
    assert sorted(os.listdir(tmp_path / "stopped" / "best")) == sorted(
        os.listdir(tmp_path / "straight" / "best")
    )
