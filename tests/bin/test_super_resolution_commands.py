"""The commands of super-resolution, on a model that is trained for twenty steps."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from super_resolution_files import some_image, write_image, write_super_resolution_data
from transformers import AutoImageProcessor, Swin2SRForImageSuperResolution

from visionloop.bin import super_resolution
from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.engine.train import train
from visionloop.tasks.super_resolution.network import pad_to_window
from visionloop.tasks.super_resolution.task import SuperResolutionTask

commands = super_resolution.commands  # what the fixture `command` runs

SMALL = "--model tiny --batch-size 4 --device cpu --precision fp32 --steps 8 --patch-size 16"
SCORES = {"psnr", "ssim", "psnr_rgb", "ssim_rgb"}
SHORT = dict(batch_size=8, eval_every=0, workers=0, threads=1, precision="fp32", device="cpu")
TINY_REACH = 23


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The user's cache folder, for all commands here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three images to train on, three to evaluate on with their LR images, 80 to 82 x 110 px."""
    folder = write_super_resolution_data(
        tmp_path_factory.mktemp("data"), images=3, size_hw=(80, 110), given=[2]
    )
    shutil.rmtree(folder / "train" / "LR_x2")
    return folder


@pytest.fixture(scope="module")
def best(data, cache, tmp_path_factory):
    """best/ of a short run at x2."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train(SuperResolutionTask, data=str(data), model="tiny", steps=20, output=str(output), **SHORT)
    return output / "best"


@pytest.fixture(scope="module")
def denoiser(data, cache, tmp_path_factory):
    """best/ of a few steps of taking strong noise away."""
    output = tmp_path_factory.mktemp("runs") / "denoiser"
    train(
        SuperResolutionTask,
        data=str(data),
        mode="denoise",
        noise="50",
        steps=3,
        patch_size=16,
        output=str(output),
        **SHORT,
    )
    return output / "best"


@pytest.fixture(scope="module")
def small(data):
    """The small images of validation."""
    return data / "val" / "LR_x2"


@pytest.fixture(scope="module")
def predicted(best, small, tmp_path_factory):
    """Return the folder of `predict` for the small validation images."""
    output = tmp_path_factory.mktemp("predictions") / "out"
    with pytest.raises(SystemExit) as left:
        commands.main(
            ["predict", "--model", str(best), "--input", str(small), "--output", str(output)]
        )
    assert left.value.code == 0
    return output


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def results(folder):
    """{name: bytes of pixels} of what `predict` wrote."""
    return {path.name: pixels(path) for path in sorted((folder / "results").rglob("*.png"))}


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(image, second[name]) for name, image in first.items()
    )


# evaluate --------------------


@pytest.mark.parametrize("kind", ["best", "denoiser"])
def test_evaluate_prints_what_the_run_had_scored(command, best, denoiser, kind, data, tmp_path):
    model = {"best": best, "denoiser": denoiser}[kind]
    code, printed, _ = command(
        "evaluate --json", model=model, data=data, output=tmp_path / "out" / "scores.json"
    )
    scores = json.loads(printed, parse_constant=pytest.fail)  # NaN is no json
    assert code == 0 and set(scores) == {*SCORES, "val_loss"}
    (logged,) = [
        row["metrics"] for row in read_rows(model.parent / "metrics.jsonl") if row["kind"] == "eval"
    ]
    assert scores == pytest.approx(
        logged, rel=1e-4
    )  # corrected weights of the denoiser round a gray level differently here and there
    assert (
        json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=pytest.fail)
        == scores
    )


def test_the_table_has_the_score_of_bicubic_beside_ours(command, best, data):
    code, printed, _ = command("evaluate", "--model", best, "--data", data)
    lines = printed.splitlines()
    assert code == 0 and lines[0].startswith("3 images, 95 % intervals") and "nan" not in printed
    labels = [" ".join(line.split("  ")[0].split()) for line in lines[1:]]
    assert labels == [
        "PSNR",
        "SSIM",
        "PSNR of RGB",
        "SSIM of RGB",
        "validation loss",
        "bicubic PSNR",
        "bicubic SSIM",
    ]
    assert 20 < float(lines[-2].split()[2]) < 40 and 0.5 < float(lines[-1].split()[2]) < 1
    assert all(
        float(low) <= float(value) <= float(high)
        for value, low, _, high in (line.split()[-4:] for line in lines[1:-2])
    )


def test_evaluation_takes_tiles_and_ensemble_as_options(command, best, data):
    def scores(*options):
        code, printed, _ = command("evaluate", "--model", best, "--data", data, "--json", *options)
        assert code == 0
        return json.loads(printed)

    plain = scores()
    assert scores("--cache", "none", "--batch-size", "1") == plain
    assert (
        plain["psnr"]
        != scores("--tile", "8", "--halo", "8")["psnr"]
        == pytest.approx(plain["psnr"], abs=0.5)
    )
    assert scores("--ensemble", "8")["psnr"] > plain["psnr"]
    assert scores("--mode", "real-world")["psnr"] != plain["psnr"]  # without a border
    assert scores("--split", "train")["psnr"] != plain["psnr"]


def test_noise_is_that_of_training_by_default(command, denoiser, data):
    def score(*options):
        return json.loads(
            command("evaluate", "--model", denoiser, "--data", data, "--json", *options)[1]
        )["psnr"]

    plain = score()
    assert score("--noise", "50") == plain != score("--noise", "15")


def test_saved_predictions_have_the_scores_of_the_model(command, best, data, predicted):
    scores = json.loads(command("evaluate", "--model", best, "--data", data, "--json")[1])
    for path in (predicted, predicted / "results"):
        code, printed, _ = command("evaluate", "--predictions", path, "--data", data, "--json")
        evaluated = json.loads(printed)
        assert code == 0 and {key: evaluated[key] for key in SCORES} == {
            key: scores[key] for key in SCORES
        }
        assert evaluated.get("val_loss") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--predictions", "no-such-folder"),
            "--predictions no-such-folder: expected a folder of images",
        ),
        (("--predictions", "p", "--tile", "64"), "--tile: needs --model"),
        (
            ("--model", "m", "--save-predictions", "x.json"),
            "--save-predictions x.json: predictions of super_resolution cannot be saved",
        ),
        (("--model", "no-such-folder"), "--model no-such-folder: no such folder"),
        (("--model", "BEST", "--mode", "jpeg"), "--mode jpeg: keeps the image size"),
        (
            ("--model", "BEST", "--lpips-weights", "no.safetensors"),
            "--lpips-weights: no.safetensors: expected a safetensors file",
        ),
        (("--model", "BEST", "--ensemble", "5"), "--ensemble: expected 1 or 8, got 5"),
        (
            ("--model", "BEST", "--cache", "ram"),
            "Invalid value for '--cache': 'ram' is not one of 'disk', 'none'.",
        ),
        (("--model", "BEST", "--split", "test"), "DATA: expected test/HR/x.png, found train, val"),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(command, best, data, arguments, message):
    arguments = [best if argument == "BEST" else argument for argument in arguments]
    code, _, errors = command("evaluate", "--data", data, *arguments)
    assert (
        code == 2
        and errors.startswith(f"error: {message.replace('DATA', str(data))}")
        and errors.count("\n") == 1
    )


# predict --------------------


def test_predict_writes_results_images_and_lines(predicted, best, small):
    rows = read_rows(predicted / "predictions.jsonl")
    names = [f"v0{i}x2.png" for i in range(3)]
    assert [row["file"] for row in rows] == names == list(results(predicted))
    module = SuperResolutionTask.load_trained(best)[1]
    for row in rows:
        image = read_image(small / row["file"])
        with torch.no_grad():
            expected = (
                module(image[None] / 255)["sr"][0]
                .clamp(0, 1)
                .mul(255)
                .round()
                .byte()
                .permute(1, 2, 0)
                .numpy()
            )
        assert np.array_equal(pixels(predicted / "results" / row["file"]), expected)
        assert (row["height"], row["width"]) == expected.shape[:2] and row["scale"] == 2
        assert not row["tiled"] and row["exact"] and row["tiling"].startswith("whole")
        assert pixels(predicted / "images" / row["file"]).shape[1] > 700
    assert pixels(predicted / "contact_sheet.png").shape[0] > 3 * 150
    assert {path.name for path in predicted.iterdir()} == {
        "predictions.jsonl",
        "results",
        "images",
        "contact_sheet.png",
    }


def test_lines_are_printed_too_and_a_single_image_is_enough(command, best, small, tmp_path):
    code, printed, _ = command(
        "predict --json", model=best, input=small / "v01x2.png", output=tmp_path / "out"
    )
    rows = [json.loads(line) for line in printed.splitlines()]
    assert (
        code == 0
        and rows == read_rows(tmp_path / "out" / "predictions.jsonl")
        and rows[0]["file"] == "v01x2.png"
    )


def test_a_broken_image_does_not_stop_predict(command, best, small, predicted, tmp_path):
    shutil.copytree(small, tmp_path / "in")
    (tmp_path / "in" / "v01.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    code, printed, errors = command(
        "predict --json", model=best, input=tmp_path / "in", output=tmp_path / "out"
    )
    assert (
        code == 2
        and "predicted 3 of 4 images" in errors
        and f"error: {tmp_path / 'in' / 'v01.png'}: truncated" in errors
    )
    rows = read_rows(tmp_path / "out" / "predictions.jsonl")
    assert [("error" in row) for row in rows] == [False, True, False, False]
    assert [json.loads(line) for line in printed.splitlines()] == rows
    assert same(results(tmp_path / "out"), results(predicted))


def test_tiles_with_the_models_reach_give_the_whole_image(command, best, tmp_path):
    source, tile = (
        write_image(tmp_path / "wide.png", some_image("wide", 30, 100)),
        ("--tile", "16"),
    )
    ways = {
        "whole": (),
        "exact": (*tile, "--halo", TINY_REACH),
        "default": tile,
        "near": (*tile, "--halo", "8"),
    }
    rows, images = {}, {}
    for name, options in ways.items():
        assert (
            command(
                "predict", "--model", best, "--input", source, "--output", tmp_path / name, *options
            )[0]
            == 0
        )
        (rows[name],), images[name] = (
            read_rows(tmp_path / name / "predictions.jsonl"),
            results(tmp_path / name)["wide.png"].astype(int),
        )
    assert rows["exact"] == rows["default"] and not rows["whole"]["tiled"]
    assert all(
        rows[name]["tiled"] and rows[name]["exact"] == (name == "exact")
        for name in ("exact", "near")
    )
    assert (
        "approximation" in rows["near"]["tiling"]
        and "the same as the whole image" in rows["exact"]["tiling"]
    )
    differences = {name: np.abs(image - images["whole"]) for name, image in images.items()}
    assert (
        max(differences[name].max() for name in ("exact", "default")) <= 1
    )  # the last rounding may turn
    differing = {name: (difference > 0).mean() for name, difference in differences.items()}
    assert differing["exact"] < 1e-3 and differing["near"] > 10 * differing["exact"], differing


def test_an_ensemble_turns_with_its_input(command, best, tmp_path):
    image = some_image("turned", 32, 40)  # where windows turn too
    write_image(tmp_path / "in" / "upright.png", image)
    write_image(tmp_path / "in" / "turned.png", np.rot90(image).copy())
    for name, options in {"eight": ("--ensemble", "8"), "one": ()}.items():
        assert (
            command("predict", *options, model=best, input=tmp_path / "in", output=tmp_path / name)[
                0
            ]
            == 0
        )
    eight, one = results(tmp_path / "eight"), results(tmp_path / "one")
    turned = np.rot90(eight["upright.png"]).astype(int)
    assert (
        np.abs(turned - eight["turned.png"]).max() <= 1
        and np.abs(turned - one["turned.png"]).max() > 1
    )


def test_gray_images_transparency_and_rotated_photographs_keep_their_mode_and_size(
    command, best, tmp_path
):
    folder, colors = tmp_path / "in", some_image("c", 22, 35)
    write_image(folder / "gray.png", colors[..., 0])
    write_image(folder / "alpha.png", np.dstack([colors, np.full((22, 35), 77, dtype=np.uint8)]))
    write_image(folder / "both.png", Image.fromarray(colors[..., 0]).convert("LA"))
    write_image(folder / "deep.png", Image.fromarray(colors[..., 0].astype(np.uint16) * 257))
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "a maker"
    Image.fromarray(colors).save(folder / "photo.jpg", exif=exif)
    write_image(folder / "line.png", colors[:1])
    code, _, _ = command(
        "predict --batch-size 4", model=best, input=folder, output=tmp_path / "out"
    )
    assert code == 0
    modes, sizes = {}, {}
    for path in (tmp_path / "out" / "results").iterdir():
        with Image.open(path) as image:
            modes[path.stem], sizes[path.stem] = image.mode, image.size
            if path.stem == "alpha":
                assert set(np.array(image)[..., 3].flat) == {77}
            if path.stem == "photo":
                assert image.getexif().get(271) == "a maker" and 0x0112 not in image.getexif()
    assert modes == {
        "gray": "L",
        "alpha": "RGBA",
        "both": "LA",
        "deep": "L",
        "photo": "RGB",
        "line": "RGB",
    }
    assert (
        sizes.pop("photo") == (44, 70)
        and sizes.pop("line") == (70, 2)
        and set(sizes.values()) == {(70, 44)}
    )


def test_a_denoiser_keeps_the_size(command, denoiser, small, tmp_path):
    assert (
        command("predict", "--model", denoiser, "--input", small, "--output", tmp_path / "out")[0]
        == 0
    )
    for name, image in results(tmp_path / "out").items():
        assert image.shape == pixels(small / name).shape
    assert {row["scale"] for row in read_rows(tmp_path / "out" / "predictions.jsonl")} == {1}


# check --------------------


def test_check_prints_costs_and_writes_the_sheet(command, data, tmp_path):
    code, printed, errors = command(
        "check", "--data", data, *SMALL.split(), "--json", "--sheet", tmp_path / "new" / "sheet.png"
    )
    report = json.loads(printed)
    assert code == 0 and set(report) == {"errors", "warnings", "classes", "estimate"}
    assert report["errors"] == [] and report["classes"] == {}
    assert set(report["estimate"]) == {"memory_gib", "disk_gib", "seconds"} and all(
        value > 0 for value in report["estimate"].values()
    )
    assert all(
        errors.count(f"warning: {row['path']}: {row['why']}") == 1 for row in report["warnings"]
    )
    left, right = np.array_split(pixels(tmp_path / "new" / "sheet.png"), 2, axis=1)
    assert left.shape[0] > 500 and left.std() > 20 and right.std() > 20


@pytest.mark.parametrize(
    "options", [(), ("--scale", "4"), ("--mode", "denoise", "--noise", "15-50"), ("--mode", "jpeg")]
)
def test_lines_for_people_are_printed_without_json(command, data, options):
    code, printed, errors = command("check", "--data", data, *SMALL.split(), *options)
    assert code == 0 and "3 images in train with " in printed and "decoded images take " in printed
    assert ("made from HR/ with MATLAB's bicubic" in printed) == (
        options == () or options[0] == "--scale"
    )
    assert printed.splitlines()[-1].startswith("0 error(s)") and "error: " not in errors


def test_every_broken_image_is_a_line_that_names_its_file(command, data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    hr, lr = folder / "train" / "HR", folder / "val" / "LR_x2"
    (hr / "t01.png").write_bytes(b"")
    write_image(hr / "t02.png", some_image("small", 30, 90))
    write_image(lr / "v01x2.png", some_image("other", 31, 40))
    code, printed, errors = command("check", "--data", folder, *SMALL.split(), "--json")
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (
        code == 2
        and [f"error: {row['path']}: {row['why']}" for row in json.loads(printed)["errors"]]
        == lines
    )
    assert len(lines) == 3 and json.loads(printed)["estimate"] == {
        "memory_gib": None,
        "disk_gib": None,
        "seconds": None,
    }
    assert f"error: {hr / 't01.png'}: empty file" in lines
    for start in (f"{hr / 't02.png'}: is 30 x 90", f"{lr / 'v01x2.png'}: is 31 x 40"):
        assert any(line.startswith(f"error: {start} (height x width)") for line in lines)
    # training looks at sizes first and meets the rest on its way: one line either way
    code, _, errors = command(
        "train", "--data", folder, *SMALL.split(), "--output", tmp_path / "run", "--workers", 0
    )
    assert code == 2 and errors.count("error: ") == 1 and "t02.png" in errors


def test_a_folder_of_another_layout_is_reported_in_one_line_by_every_command(
    command, best, data, tmp_path
):
    shutil.copytree(data / "train" / "HR", tmp_path / "data" / "train")
    runs = (
        ("check", *SMALL.split(), "--val-split", "0.2"),
        ("train", *SMALL.split(), "--output", tmp_path / "run"),
        ("evaluate", "--model", best),
    )
    for name, *arguments in runs:
        code, _, errors = command(name, "--data", tmp_path / "data", *arguments)
        assert code == 2 and len(errors.splitlines()) == 1, name
        assert errors.startswith(f"error: {tmp_path / 'data'}") and "HR/x.png" in errors, name
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_the_command_line_shows_what_a_run_would_be(command):
    code, printed, _ = command(
        "train --model lightweight --scale 4 --from-scratch --loss charbonnier --dry-run"
    )
    rows = json.loads(printed)
    assert (
        code == 0
        and rows["mode"] == {"value": "lightweight", "source": "recipe"}
        and rows["scale"] == {"value": 4, "source": "flag"}
    )
    assert rows["loss"]["source"] == "flag" and rows["clip_grad"] == {
        "value": "inf",
        "source": "recipe",
    }


# export --------------------


@pytest.mark.parametrize("kind", ["best", "denoiser", "checkpoint of the denoiser"])
def test_export_gives_transformers_the_same_images(command, kind, small, tmp_path, request):
    source = request.getfixturevalue(kind.split()[-1])
    if kind.startswith("checkpoint"):
        source = source.parent / "checkpoints" / "step_00000003"
    code, printed, _ = command("export", "--model", source, "--output", tmp_path / "out")
    assert code == 0 and "tensors read back bit for bit" in printed
    assert ("is corrected for plain transformers" in printed) == kind.startswith("checkpoint")
    model = Swin2SRForImageSuperResolution.from_pretrained(tmp_path / "out").eval()
    assert (
        command(
            "predict", "--model", source, "--input", small, "--output", tmp_path / "predictions"
        )[0]
        == 0
    )
    for name, ours in results(tmp_path / "predictions").items():
        with torch.no_grad():
            theirs = model(
                pad_to_window(read_image(small / name)[None] / 255, model.config.window_size)
            ).reconstruction[0]
        theirs = (
            (theirs[:, : ours.shape[0], : ours.shape[1]].clamp(0, 1) * 255)
            .round()
            .byte()
            .permute(1, 2, 0)
            .numpy()
        )
        difference = np.abs(theirs.astype(int) - ours)
        assert (
            difference.max() <= (1 if kind.startswith("checkpoint") else 0)
            and (difference > 0).mean() < 1e-3
        )


def test_the_card_shows_how_to_use_the_folder_and_its_lines_run(
    command, best, small, tmp_path, monkeypatch
):
    assert command("export", "--model", best, "--output", tmp_path / "out")[0] == 0
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    shutil.copy(small / "v00x2.png", tmp_path / "image.png")
    exec(compile(code.replace("THIS FOLDER", str(tmp_path / "out")), "card", "exec"), {})
    assert AutoImageProcessor.from_pretrained(tmp_path / "out") is not None
    assert (
        command("predict", "--model", best, "--input", "image.png", "--output", "predictions")[0]
        == 0
    )
    ours, theirs = (
        results(tmp_path / "predictions")["image.png"].astype(int),
        pixels(tmp_path / "result.png"),
    )
    assert ours.shape == theirs.shape
    # the processor adds a window where nothing is missing: the last rows and columns see more than
    # ours
    assert np.abs(ours - theirs)[: -2 * TINY_REACH, : -2 * TINY_REACH].max() <= 1


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs the onnx extra",
)
@pytest.mark.parametrize("kind", ["best", "denoiser"])
def test_export_to_onnx_agrees_with_pytorch(command, kind, tmp_path, request):
    code, printed, _ = command(
        "export", "--model", request.getfixturevalue(kind), "--output", tmp_path / "out", "--onnx"
    )
    assert code == 0 and "a batch of any size; onnxruntime and PyTorch agree" in printed
    assert (tmp_path / "out" / "model.onnx").exists()


# overfitted --------------------


@pytest.fixture
def pairs(tmp_path):
    """Four images with their small ones, in train and val."""
    return write_super_resolution_data(tmp_path / "pairs", images=4, size_hw=(64, 80), given=[2])


OVERFIT = (*SMALL.split(), "--from-scratch", "--threads", "1", "--overfit", "4")


@pytest.mark.slow
def test_a_few_overfitted_crops_are_better_than_bicubic(command, pairs):
    code, printed, errors = command("check", "--data", pairs, *OVERFIT)
    (line,) = [
        line for line in printed.splitlines() if line.startswith("4 images overfitted: PSNR ")
    ]
    ours, bicubic = float(line.split()[4]), float(line.split()[-1])
    assert code == 0 and "error" not in errors and "; bicubic PSNR: " in line
    assert ours >= bicubic > 15


def test_small_images_of_other_large_ones_are_not_overfitted(command, pairs):
    for i in range(4):
        other = matlab_resize(some_image(f"other {i}", (64 + i) // 2 * 2, 80), 0.5)
        write_image(pairs / "train" / "LR_x2" / f"t{i:02}x2.png", other)
    code, printed, errors = command("check", "--data", pairs, *OVERFIT)
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == 2 and line.startswith(
        f"error: {pairs}: 4 of 4 small images, enlarged, differ more from their large images than "
    )
    assert (
        line.endswith("check that they belong to the same images") and " steps, " not in printed
    )  # nothing was trained
