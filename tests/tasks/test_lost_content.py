"""Images that lose their content on the way to 8-bit RGB are reported, and only those."""

import numpy as np
import pytest
from PIL import Image

from visionloop.datasets.classification.image_folder import scan
from visionloop.datasets.io.images import read_image
from visionloop.tasks import checks
from visionloop.tasks.checks import decode_all

# a checkerboard of brightness 0 to 1
PATTERN = np.kron(np.linspace(0, 1, 64).reshape(8, 8), np.ones((8, 8)))


def gray(largest, kind=np.uint8):
    return Image.fromarray((PATTERN * largest).astype(kind))


def with_alpha(alpha, color=0):
    colors = np.full((64, 64, 3), color, dtype=np.uint8)
    return Image.fromarray(np.dstack([colors, alpha.astype(np.uint8)]))


def warnings_of(folder, images):
    """The warnings of a folder with these {name: image}."""
    (folder / "a").mkdir(parents=True)
    for name, image in images.items():
        image.save(folder / "a" / name)
    report = {"errors": [], "warnings": []}
    sizes = [size_hw for _, _, _, size_hw, _ in decode_all({"train": scan(folder)}, report)]
    assert sizes == [image.size[::-1] for image in images.values()] and not report["errors"]
    return [warning["why"] for warning in report["warnings"]]


@pytest.mark.parametrize(
    ("largest", "words"), [(4095, "nearly black"), (1023, "nearly black"), (16383, "dark")]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_values_of_a_few_bits_in_16_bit_files_are_reported(tmp_path, largest, words, suffix):
    images = {f"0{suffix}": gray(largest, np.uint16), f"1{suffix}": gray(65535, np.uint16)}
    images[f"2{suffix}"] = gray(largest - 5, np.uint16)
    assert warnings_of(tmp_path / "train", images) == [
        f"2 of 3 images are {words}, their largest value is {largest} of 65535: "
        f"a/0{suffix}, a/2{suffix}; scale the values to the full range"
    ]


def test_8_bit_images_are_reported_when_nearly_black(tmp_path):
    images = {"0.png": gray(1), "1.png": gray(60), "2.jpg": gray(9), "3.png": gray(200)}
    (why,) = warnings_of(tmp_path / "train", images)
    assert "2 of 4 images are nearly black" in why and "a/0.png, a/2.jpg" in why


def test_content_in_alpha_is_reported_where_the_colors_have_none(tmp_path):
    images = {
        "0.png": with_alpha(PATTERN * 255),
        "1.png": with_alpha(PATTERN * 255, color=200),
        "2.png": with_alpha(np.full((64, 64), 255), color=200),
        "3.png": Image.fromarray(np.full((64, 64, 3), 128, dtype=np.uint8)),
        "4.webp": gray(255).convert("RGBA"),
    }
    (why,) = warnings_of(tmp_path / "train", images)
    assert why == (
        "2 of 5 images have a single color without their alpha channel, which is dropped: "
        "a/0.png, a/1.png; paint them on a background"
    )


def test_a_light_in_the_dark_of_a_jpeg_counts(tmp_path):
    """The check decodes JPEGs at an eighth, where a few bright pixels are no longer bright."""
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[3:5, 3:5] = 255
    assert warnings_of(tmp_path / "train", {"0.jpg": Image.fromarray(pixels)}) == []


def test_the_check_decodes_jpegs_at_a_small_size(tmp_path, monkeypatch):
    shapes = []
    monkeypatch.setattr(
        checks, "lost_content", lambda path, image: shapes.append(tuple(image.shape))
    )
    warnings_of(tmp_path / "train", {"0.jpg": gray(255), "1.png": gray(255)})
    assert shapes == [(3, 8, 8), (3, 64, 64)]
    assert read_image(tmp_path / "train" / "a" / "0.jpg").shape == (3, 64, 64)
