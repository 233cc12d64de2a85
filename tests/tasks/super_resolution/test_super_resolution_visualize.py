"""Drawings of training pairs, evaluated crops and predictions; and the model card."""

import ast
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.metrics.image_quality import psnr
from visionloop.tasks.super_resolution import visualize
from visionloop.tasks.super_resolution.config import SuperResolutionConfig
from visionloop.tasks.super_resolution.export import save_plain_folder, write_model_card
from visionloop.tasks.super_resolution.scores import METRICS
from visionloop.tasks.super_resolution.visualize import (
    PANEL,
    STRIP,
    bicubic_part,
    busiest_part,
    draw_batch,
    draw_prediction,
    draw_samples,
    to_array,
)

GAP = visualize.GAP


def noise(height, width, seed=0):
    return torch.randint(
        0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def evaluated(scale=2, sizes=((30, 40), (100, 90))):
    """(batch, predictions) as evaluation has them; the result is better than bicubic."""
    lr = [noise(*size, seed=i) for i, size in enumerate(sizes)]
    hr = [noise(scale * h, scale * w, seed=9) for h, w in sizes]
    bicubic = [
        one
        if scale == 1
        else torch.from_numpy(matlab_resize(to_array(one), scale)).permute(2, 0, 1)
        for one in lr
    ]
    return {"pixel_values": lr, "hr": hr, "bicubic": bicubic}, {
        "images": [one // 2 + 50 for one in hr]
    }


def test_the_busiest_part_is_where_neighbors_differ_most():
    image = np.full((60, 80, 3), 128, dtype=np.uint8)
    image[32:42, 50:60] = to_array(noise(10, 10))
    rows, columns = busiest_part(image, 2, 20)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (
        10,
        10,
    )  # in pixels of the input
    assert (
        2 * rows.start <= 32
        and 2 * rows.stop >= 42
        and 2 * columns.start <= 50
        and 2 * columns.stop >= 60
    )
    assert busiest_part(image, 2, 20) == (rows, columns)
    assert busiest_part(np.zeros((60, 80, 3), dtype=np.uint8), 2, 20) == (
        slice(0, 10),
        slice(0, 10),
    )  # plain: the first
    assert busiest_part(image, 1, 500) == (slice(0, 60), slice(0, 80))
    assert busiest_part(image[:1, :1], 1, 5) == (slice(0, 1), slice(0, 1))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_part_is_enlarged_as_it_is_within_the_whole_image(scale):
    image = to_array(noise(30, 40))
    whole = matlab_resize(image, scale)
    for rows, columns in (
        (slice(10, 20), slice(8, 30)),
        (slice(0, 6), slice(34, 40)),
        (slice(0, 30), slice(0, 40)),
    ):
        enlarged = bicubic_part(image, (rows, columns), scale)
        assert np.array_equal(
            enlarged,
            whole[
                scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop
            ],
        )


def test_a_training_batch_shows_each_pair_in_its_place():
    lr, hr = (
        torch.stack([noise(24, 24, i) for i in range(3)]),
        torch.stack([noise(48, 48, i) for i in range(3)]),
    )
    drawn = draw_batch({"pixel_values": lr, "hr": hr})
    assert drawn.dtype == np.uint8
    first = drawn[6 : 6 + 192, 6:]
    assert np.array_equal(first[:, :192], to_array(lr[0]).repeat(8, 0).repeat(8, 1))
    assert np.array_equal(first[:, 194:386], to_array(hr[0]).repeat(4, 0).repeat(4, 1))


def test_an_evaluation_shows_input_bicubic_output_and_ground_truth_of_one_part():
    batch, predictions = evaluated()
    first, second = draw_samples(batch, predictions, 2)
    assert first.dtype == second.dtype == np.uint8 and second.shape[1] == 2 * PANEL + GAP
    rows, columns = busiest_part(to_array(batch["hr"][1]), 2, 128)
    part = np.s_[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop]
    expected = [to_array(batch["pixel_values"][1])[rows, columns].repeat(2, 0).repeat(2, 1)]
    expected += [
        to_array(values[1])[part]
        for values in (batch["bicubic"], predictions["images"], batch["hr"])
    ]
    for i, image in enumerate(expected):
        top, left = i // 2 * (PANEL + 18 + GAP), i % 2 * (PANEL + GAP)  # 18: a caption
        assert np.array_equal(
            second[top : top + PANEL, left : left + PANEL], image.repeat(2, 0).repeat(2, 1)
        )
    assert np.array_equal(draw_samples(batch, predictions, 2)[1], second)


def captions(monkeypatch):
    """[(words, color)] of every caption that is drawn from now on."""
    drawn_captions, plain = [], visualize.with_caption

    def listen(image, lines, *, color=visualize.PLAIN):
        drawn_captions.append((*lines, color))
        return plain(image, lines, color=color)

    monkeypatch.setattr(visualize, "with_caption", listen)
    return drawn_captions


def test_captions_hold_the_scores_of_the_whole_image_without_its_border(monkeypatch):
    drawn_captions, (batch, predictions) = captions(monkeypatch), evaluated(sizes=((100, 90),))
    draw_samples(batch, predictions, 2)
    hr, bicubic, result = (
        to_array(values[0]) for values in (batch["hr"], batch["bicubic"], predictions["images"])
    )
    before, after = (psnr(image, hr, border=2) for image in (bicubic, result))
    words = [words for words, _ in drawn_captions[:4]]
    assert words == ["input", f"bicubic {before:.2f} dB", f"result {after:.2f} dB", "ground truth"]
    assert (
        after > before
        and drawn_captions[2][1] == visualize.RIGHT
        and drawn_captions[1][1] == visualize.PLAIN
    )
    drawn_captions.clear()
    draw_samples(batch, {"images": batch["bicubic"]}, 2, border=0)
    assert drawn_captions[2] == (
        f"result {psnr(bicubic, hr):.2f} dB",
        visualize.PLAIN,
    )  # no better: not green


def test_at_x1_the_input_stands_there_once(monkeypatch):
    drawn_captions, (batch, predictions) = (
        captions(monkeypatch),
        evaluated(scale=1, sizes=((90, 140),)),
    )
    (drawn,) = draw_samples(batch, predictions, 1)
    noisy, hr = (to_array(batch[name][0]) for name in ("pixel_values", "hr"))
    assert (
        drawn_captions[0][0] == f"input {psnr(noisy, hr):.2f} dB"
        and drawn.shape[1] == 2 * PANEL + GAP
    )
    assert [words for words, _ in drawn_captions] == [
        drawn_captions[0][0],
        f"result {psnr(to_array(predictions['images'][0]), hr):.2f} dB",
        "ground truth",
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (5, 3)])
def test_images_of_a_few_pixels_are_drawn_too(size):
    batch, predictions = evaluated(4, [size])
    assert draw_samples(batch, predictions, 4)[0].shape[1] == 2 * PANEL + GAP
    assert draw_prediction(batch["pixel_values"][0], predictions["images"][0]).shape[1] == STRIP


@pytest.mark.parametrize(
    ("scale", "size"),
    [(2, (300, 400)), (4, (57, 86)), (8, (20, 9)), (3, (100, 100)), (1, (300, 200))],
)
def test_a_strip_has_one_width_and_shows_before_and_after_of_one_part(scale, size):
    height, width = size
    image, result = noise(height, width), noise(scale * height, scale * width, seed=1)
    strip = draw_prediction(image, result)
    assert strip.shape[1] == STRIP and strip.shape[0] <= PANEL + 30
    rows, columns = busiest_part(to_array(image), 1, PANEL // scale)
    after = to_array(result)[
        scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop
    ]
    times = PANEL // max(after.shape[:2])
    panel = after.repeat(times, 0).repeat(times, 1)
    left = (1 if scale == 1 else 2) * (PANEL + GAP) + (PANEL - panel.shape[1]) // 2
    assert np.array_equal(strip[: panel.shape[0], left : left + panel.shape[1]], panel)
    before = to_array(image)[rows, columns].repeat(scale * times, 0).repeat(scale * times, 1)
    left = (PANEL - panel.shape[1]) // 2
    assert np.array_equal(strip[: panel.shape[0], left : left + panel.shape[1]], before)


def test_at_x1_what_was_removed_is_drawn_around_gray():
    image = torch.full((3, 300, 300), 100, dtype=torch.uint8)
    result = image.clone()
    result[0, :, 0], result[1] = 90, 200
    strip = draw_prediction(image, result)
    assert strip[5, 2 * (PANEL + GAP)].tolist() == [168, 0, 128] and strip[
        5, 2 * (PANEL + GAP) + 9
    ].tolist() == [128, 0, 128]


class Described:
    """The part of a task that its card reads."""

    metrics = METRICS

    def __init__(self, **fields):
        self.config = SuperResolutionConfig(data="data", model="tiny", **fields)


@pytest.mark.parametrize(
    ("upsampler", "scale", "mode", "title", "corrected"),
    [
        ("pixelshuffledirect", 2, "classical", "Super-resolution x2", None),
        (
            "pixelshuffle_aux",
            4,
            "compressed",
            "Super-resolution x4",
            "the bicubic image of raw pixels",
        ),
        ("", 1, "denoise", "Denoiser", "the mean color"),
        ("", 1, "jpeg", "JPEG artifact remover", "the mean color"),
    ],
)
def test_the_card_states_the_purpose_and_the_corrected_heads(
    tmp_path, tiny_network, upsampler, scale, mode, title, corrected
):
    module = tiny_network(upsampler, scale)
    save_plain_folder(module, module.state_dict(), tmp_path)
    write_model_card(tmp_path, Described(mode=mode), {"psnr": 33.6614, "ssim": 0.9299}, (91, 5))
    text = (tmp_path / "README.md").read_text()
    assert (
        f"# {title}\n" in text
        and "pipeline_tag: image-to-image" in text
        and "class" not in text.replace("classical", "")
    )
    assert (
        "| PSNR | 33.6614 |" in text
        and "Trained on 91 images and scored on 5 others." in text
        and f"- mode: {mode}" in text
    )
    assert (
        "multiples of 4" in text
        and ("visionloop_heads" in text) == bool(corrected)
        and (corrected or "") in text
    )
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ast.parse(code)
    assert f"side * {scale} for" in code and str(tmp_path) not in text


@pytest.mark.parametrize(("upsampler", "scale"), [("pixelshuffledirect", 2), ("", 1)])
def test_the_cards_code_gives_our_image(tmp_path, tiny_network, monkeypatch, upsampler, scale):
    module = tiny_network(upsampler, scale).eval()
    save_plain_folder(module, module.state_dict(), tmp_path / "model")
    write_model_card(
        tmp_path / "model", Described(mode="classical" if scale > 1 else "denoise"), {}, None
    )
    (code,) = re.findall(
        r"```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL
    )
    assert module.reach == 13
    pixels = noise(21, 34)
    Image.fromarray(to_array(pixels)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    exec(code.replace("THIS FOLDER", "model"), {})
    with Image.open("result.png") as image:
        theirs = np.asarray(image).astype(int)
    with torch.no_grad():
        ours = to_array(
            (module(pixels[None].float() / 255)["sr"][0].clamp(0, 1) * 255).round().byte()
        ).astype(int)
    assert theirs.shape == ours.shape == (21 * scale, 34 * scale, 3)
    away = np.abs(theirs - ours)[
        : -13 * scale, : -13 * scale
    ]  # its padding is another, and the network sees 13 pixels far
    assert away.max() <= 1
    assert json.loads((tmp_path / "model" / "config.json").read_text())["upscale"] == scale
