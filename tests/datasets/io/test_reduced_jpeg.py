"""JPEGs decoded at a reduced size: the same image and crop, refused for the same reasons."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionloop.datasets.classification.transforms import (
    CROP_RATIO,
    ClassificationTrainPreset,
    centered_box,
    random_box,
)
from visionloop.datasets.detection.transforms import DetectionTrainPreset
from visionloop.datasets.io.images import UnreadableImage, read_image, read_size
from visionloop.datasets.io.reduced_jpeg import (
    read_image_to_draw,
    read_reduced_image,
    reduced_size,
    reduction,
    resized_part,
)
from visionloop.engine.seeding import seed_host


def waves(height, width, period=60):
    """Steep everywhere: a shift of half a pixel is 3 to 6 gray levels. uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width] * (2 * np.pi / period)
    return np.stack(
        [128 + 100 * np.sin(x), 128 + 100 * np.sin(y), 128 + 100 * np.sin(x + y)], axis=-1
    ).astype(np.uint8)


def save(path, pixels, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, quality=95, subsampling=0, **({"exif": exif} | options))
    return path


def difference(a, b):
    """Mean distance in gray levels."""
    return (a.float() - b.float()).abs().mean().item()


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), least=st.integers(8, 700))
def test_the_reduction_is_the_strongest_that_leaves_the_shorter_side_long_enough(
    height, width, least
):
    factor = reduction((height, width), least)
    assert factor in (1, 2, 4, 8) and (factor == 1 or min(height, width) / factor >= least)
    assert factor == 8 or min(height, width) / (2 * factor) < least


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_scaled_image_is_upright_and_the_mean_over_squares(tmp_path, orientation, factor):
    path = save(tmp_path / "x.jpg", waves(160, 240), orientation)
    whole = read_image(path)
    scaled, full_hw = read_reduced_image(path, 160 // factor)
    assert full_hw == tuple(whole.shape[-2:]) == read_size(path)
    assert (
        tuple(scaled.shape)
        == (3, full_hw[0] // factor, full_hw[1] // factor)
        == (3, *reduced_size(path, 160 // factor))
    )
    means = torch.nn.functional.avg_pool2d(whole.float(), factor)
    assert difference(scaled, means) < 1


@pytest.mark.parametrize(
    ("mode", "options"), [("L", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 2})]
)
def test_gray_progressive_and_subsampled_files_are_scaled_too(tmp_path, mode, options):
    path = tmp_path / "x.jpg"
    Image.fromarray(waves(161, 243)).convert(mode).save(path, quality=95, **options)
    scaled, full_hw = read_reduced_image(path, 80)
    assert full_hw == (161, 243) and tuple(scaled.shape) == (3, 81, 122) == (
        3,
        *reduced_size(path, 80),
    )
    assert (
        difference(
            scaled[:, :80, :121], torch.nn.functional.avg_pool2d(read_image(path).float(), 2)
        )
        < 2
    )


@pytest.mark.parametrize(
    ("name", "mode", "orientation", "tail"),
    [
        ("x.png", "RGB", 1, b""),
        ("x.jpg", "CMYK", 1, b""),
        ("x.jpg", "RGB", 6, b""),
        ("y.jpg", "L", 2, b"tail"),
    ],
)
def test_what_is_not_scaled_is_read_whole(tmp_path, name, mode, orientation, tail):
    """Other formats, CMYK, and rotated files with odd sides."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(waves(161, 243)).convert(mode).save(tmp_path / name, exif=exif)
    with open(tmp_path / name, "ab") as file:
        file.write(tail)
    image, full_hw = read_reduced_image(tmp_path / name, 16)
    assert torch.equal(image, read_image(tmp_path / name)) and full_hw == tuple(image.shape[-2:])


def test_bytes_behind_the_image_change_nothing(tmp_path):
    """Phones append a second image or data of their own."""
    path = save(tmp_path / "x.jpg", waves(160, 240))
    before = read_reduced_image(path, 20)
    with open(path, "ab") as file:
        file.write(b"tail")
    after = read_reduced_image(path, 20)
    assert torch.equal(before[0], after[0]) and before[0].shape == (3, 20, 30)


@pytest.mark.parametrize("end", [b"", b"\xff\xd9", bytes(500)])
@pytest.mark.parametrize("progressive", [False, True])
def test_damaged_files_are_refused_as_when_read_whole(tmp_path, progressive, end):
    path = save(tmp_path / "x.jpg", waves(64, 96, period=20), progressive=progressive)
    data, refused = path.read_bytes(), 0
    for length in range(0, len(data) - 2, 97):
        path.write_bytes(data[:length] + end)
        try:
            whole = read_image(path)
        except UnreadableImage as error:
            refused += 1
            with pytest.raises(UnreadableImage) as caught:
                read_reduced_image(path, 8)
            assert str(caught.value) == str(error) and str(path) in str(error)
        else:
            assert read_reduced_image(path, 8)[1] == tuple(whole.shape[-2:])
    assert refused > 3


def test_a_bomb_and_a_missing_file_are_refused_as_when_read_whole(tmp_path):
    path = save(tmp_path / "x.jpg", waves(48, 64))
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xfd\xe8\xfd\xe8"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="bomb"):
        read_reduced_image(path, 8)
    with pytest.raises(UnreadableImage, match="No such file"):
        read_reduced_image(tmp_path / "gone.jpg", 8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "orientation"), [(389, 515, 1), (392, 520, 3), (520, 392, 6), (520, 392, 7)]
)
def test_the_same_box_is_drawn_and_cut_to_fractions_of_a_pixel(
    tmp_path, height, width, orientation, interpolation
):
    path = save(tmp_path / "x.jpg", waves(height, width), orientation)
    preset = ClassificationTrainPreset(size=48, interpolation=interpolation)
    scaled, full_hw = read_reduced_image(path, preset.min_side)
    assert scaled.shape[-2] < full_hw[0]
    for seed in range(10):
        seed_host(seed)
        plain = preset(read_image(path))
        chance = random.getstate()
        seed_host(seed)
        assert difference(preset(scaled, full_hw), plain) < 1.5
        assert random.getstate() == chance


def test_a_box_one_pixel_beside_its_place_would_be_seen(tmp_path):
    """The bound of the test above detects a shift of one pixel."""
    path = save(tmp_path / "x.jpg", waves(389, 515))
    scaled, full_hw = read_reduced_image(path, 90)
    parts = [resized_part(scaled, full_hw, (20, left, 200, 220), 48, 48) for left in (30, 31)]
    assert difference(*parts) > 3


def test_boxes_of_objects_and_pixels_of_a_scaled_image_are_where_they_were(tmp_path):
    path = save(tmp_path / "x.jpg", waves(389, 515))
    boxes = torch.tensor([[100.0, 100, 300, 250], [20, 200, 90, 380]])
    preset = DetectionTrainPreset(48, photometric=0)
    scaled, full_hw = read_reduced_image(path, preset.min_side)
    assert scaled.shape[-2:] == (195, 258)
    for seed in range(20):
        seed_host(seed)
        pixels, cxcywh, keep = preset(read_image(path), boxes)
        seed_host(seed)
        others = preset(scaled, boxes, torch.tensor(full_hw))
        assert (
            torch.equal(cxcywh, others[1])
            and torch.equal(keep, others[2])
            and difference(pixels, others[0]) < 1
        )


def test_a_part_of_a_scaled_image_is_that_of_the_image_resized(tmp_path):
    """A box on whole pixels of the scaled image needs only a crop and a resize."""
    scaled = torch.from_numpy(waves(60, 80)).permute(2, 0, 1)
    part = resized_part(scaled, (120, 159), (20, 40, 60, 80), 16, 24)
    expected = Image.fromarray(waves(60, 80)[10:40, 20:60]).resize(
        (24, 16), Image.Resampling.BILINEAR
    )
    assert np.array_equal(part.permute(1, 2, 0), np.asarray(expected)) and part.is_contiguous()


@given(least=st.floats(0.05, 1), longer=st.integers(0, 300), seed=st.integers(0, 2**20))
def test_the_smallest_training_crop_keeps_the_pixels_of_the_result(least, longer, seed):
    side = ClassificationTrainPreset(size=64, crop_scale_min=least).min_side
    random.seed(seed)
    box = random_box(side, side + longer, (least, least), CROP_RATIO) or centered_box(
        side, side + longer, CROP_RATIO
    )
    assert min(box[2:]) >= 63


def test_a_detectors_smallest_crop_is_three_tenths_of_a_side():
    assert (
        DetectionTrainPreset(96).min_side == 320
        and DetectionTrainPreset(96, iou_crop=0.0).min_side == 96
    )


def test_real_images_differ_by_less_than_a_gray_level_on_average(real_data):
    distances = []
    preset = ClassificationTrainPreset(size=64)
    for path in sorted((real_data("bccd") / "train").glob("*.jpg"))[:8]:
        whole, (scaled, full_hw) = read_image(path), read_reduced_image(path, preset.min_side)
        assert scaled.shape[-2:] == (240, 320)
        for seed in range(5):
            seed_host(seed)
            plain = preset(whole)
            seed_host(seed)
            distances.append(difference(plain, preset(scaled, full_hw)))
    assert 0 < np.mean(distances) < 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_to_draw_is_no_smaller_than_the_drawing(tmp_path, orientation):
    path = save(tmp_path / "x.jpg", waves(240, 480), orientation)
    for longest, sides in (
        (120, (60, 120)),
        (121, (120, 240)),
        (241, (240, 480)),
        (999, (240, 480)),
    ):
        image, full_hw = read_image_to_draw(path, longest)
        assert sorted(image.shape[1:]) == sorted(sides) and full_hw == read_size(path)


def test_the_size_of_a_scaled_image_names_a_file_that_is_none(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"x\.jpg"):
        reduced_size(tmp_path / "x.jpg", 8)
    Image.fromarray(waves(160, 240)).save(tmp_path / "x.png")
    assert reduced_size(tmp_path / "x.png", 8) == (160, 240)
