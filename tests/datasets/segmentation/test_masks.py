"""Mask files as class ids, in every supported pixel format."""

import json
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from visionloop.datasets.segmentation.class_file import plain_class_file, read_class_file
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask

COLORS = {
    "classes": ["sky", "road", "car"],
    "colors": [[10, 20, 30], [200, 0, 0], [0, 0, 200]],
    "ignore_colors": [[0, 0, 0]],
}
VALUES = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


@pytest.fixture
def class_file(tmp_path):
    def write(content):
        (tmp_path / "classes.json").write_text(json.dumps(content))
        return read_class_file(tmp_path / "classes.json")

    return write


@pytest.fixture
def mask(tmp_path):
    def save(image, name="mask.png", **options):
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def with_palette(values, palette):
    image = Image.fromarray(values)
    image.putpalette(bytes(palette))
    return image


def gray_png(values, bits):
    """The bytes of a gray PNG of so many bits a pixel, which Pillow cannot write."""
    rows = b""
    for row in values:
        text = "".join(format(value, f"0{bits}b") for value in row)
        rows += b"\0" + int(text + "0" * (-len(text) % 8), 2).to_bytes((len(text) + 7) // 8, "big")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def test_gray_values_are_class_ids(mask, class_file):
    for name in ("mask.png", "mask.bmp", "mask.tif"):
        ids = read_mask(mask(VALUES, name), class_file({"classes": ["a", "b", "c"]}))
        assert (
            ids.dtype.is_floating_point is False
            and ids.element_size() == 1
            and ids.tolist() == VALUES.tolist()
        )


def test_a_palette_is_read_by_its_values(mask, class_file):
    palette = np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8)
    content = {"classes": ["a", "b", "c"]}
    assert (
        read_mask(mask(with_palette(VALUES, palette)), class_file(content)).tolist()
        == VALUES.tolist()
    )
    assert (
        read_mask(mask(with_palette(VALUES, palette), transparency=0), class_file(content)).tolist()
        == VALUES.tolist()
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_gray_png_of_any_depth_holds_its_values(tmp_path, bits):
    values = [[0, 1, min(3, 2**bits - 1), 1, 0], [1, 1, 0, 0, 1]]
    (tmp_path / "mask.png").write_bytes(gray_png(values, bits))
    assert (
        read_mask(tmp_path / "mask.png", plain_class_file(["a", "b", "c", "d"])).tolist() == values
    )


def test_a_palette_png_of_few_bits_holds_its_values(mask):
    values = np.array([[0, 1, 3, 2]], dtype=np.uint8)
    for bits in (2, 4, 8):
        assert (
            read_mask(
                mask(with_palette(values, range(256)), bits=bits), plain_class_file("abcd")
            ).tolist()
            == values.tolist()
        )


def test_sixteen_bits_may_hold_values_beyond_a_byte(mask, class_file):
    values = np.array([[0, 1000, 65535]], dtype=np.uint16)
    content = {"classes": ["a", "b"], "ids": {"1000": 1, "65535": 0}}
    assert read_mask(mask(values), class_file(content)).tolist() == [[255, 1, 0]]
    with pytest.raises(
        UnreadableMask,
        match=r"holds 2 values \(1000, 65535\) in 2 pixels, .*classes\.json defines 0 to 1 and 255",
    ):
        read_mask(mask(values), class_file({"classes": ["a", "b"]}))


def test_32_bits_beyond_16_are_refused(mask):
    with pytest.raises(UnreadableMask, match=r"holds 2 values \(-1, 70000\) in 2 pixels"):
        read_mask(
            mask(np.array([[0, 70000, -1]], dtype=np.int32), "mask.tif"), plain_class_file(["a"])
        )


def test_ids_are_looked_up_and_what_they_do_not_list_is_ignored(mask, class_file):
    values = np.array([[7, 26, 0, 255, 8]], dtype=np.uint8)
    assert read_mask(
        mask(values), class_file({"classes": ["road", "car"], "ids": {"7": 0, "26": 1}})
    ).tolist() == [[0, 1, 255, 255, 255]]


def test_255_never_becomes_a_class(mask, class_file):
    for content in (
        {"classes": ["a", "b", "c"]},
        {"classes": [f"{i}" for i in range(150)], "ids": "shift"},
        {"ids": "cityscapes"},
    ):
        assert (
            read_mask(mask(np.full((2, 2), 255, dtype=np.uint8)), class_file(content)).tolist()
            == [[255, 255]] * 2
        )


@pytest.mark.parametrize("values", [[11], [11, 200]])
def test_values_without_a_class_are_named_with_the_file(mask, values):
    path = mask(np.array([[0, 255, *values]], dtype=np.uint8))
    with pytest.raises(UnreadableMask) as caught:
        read_mask(path, plain_class_file([f"{i}" for i in range(11)]))
    assert caught.value.path == str(path) and caught.value.why.endswith(
        "classes.json defines 0 to 10 and 255 (ignored)"
    ) == (len(values) > 1)
    assert all(str(value) in caught.value.why for value in values)
    assert ("shift" in caught.value.why) == (
        values == [11]
    )  # one too many is what files that count from 1 look like


def test_colors_mean_classes(mask, class_file):
    pixels = np.array([[[10, 20, 30], [0, 0, 200]], [[0, 0, 0], [200, 0, 0]]], dtype=np.uint8)
    assert read_mask(mask(pixels), class_file(COLORS)).tolist() == [[0, 2], [255, 1]]
    assert read_mask(
        mask(np.dstack([pixels, np.full((2, 2), 9, dtype=np.uint8)])), class_file(COLORS)
    ).tolist() == [[0, 2], [255, 1]]


def test_a_color_without_a_class_is_an_error_unless_others_are_ignored(mask, class_file):
    pixels = np.array([[[10, 20, 30], [10, 20, 31], [1, 2, 3]]], dtype=np.uint8)
    with pytest.raises(
        UnreadableMask,
        match=r"2 colors that no class has, \[1, 2, 3\], \[10, 20, 31\], in 2 pixels",
    ):
        read_mask(mask(pixels), class_file(COLORS))
    assert read_mask(mask(pixels), class_file(COLORS | {"ignore_colors": "others"})).tolist() == [
        [0, 255, 255]
    ]


def test_without_colors_an_rgb_mask_must_be_gray(mask, class_file):
    gray = np.repeat(VALUES[..., None], 3, axis=2)
    assert (
        read_mask(mask(gray), class_file({"classes": ["a", "b", "c"]})).tolist() == VALUES.tolist()
    )
    gray[0, 0, 0] = 9
    with pytest.raises(
        UnreadableMask, match=r'is a color image, and .*classes\.json has no "colors"'
    ):
        read_mask(mask(gray), class_file({"classes": ["a", "b", "c"]}))


def test_a_palette_whose_colors_contradict_its_values_needs_a_word(mask, class_file):
    values = np.array([[0, 1, 255]], dtype=np.uint8)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[0, 1, 255]] = [[200, 0, 0], [10, 20, 30], [0, 0, 200]]
    path = mask(with_palette(values, palette.tobytes()))
    with pytest.raises(
        UnreadableMask,
        match=r"the value 0 means 'sky' and has the color of 'road'; say \"palette\"",
    ):
        read_mask(path, class_file(COLORS))
    assert read_mask(path, class_file(COLORS | {"palette": "values"})).tolist() == [[0, 1, 255]]
    assert read_mask(path, class_file(COLORS | {"palette": "colors"})).tolist() == [[1, 0, 2]]
    palette[[0, 1]] = palette[[1, 0]]  # the ignored value may have any color
    assert read_mask(
        mask(with_palette(values, palette.tobytes())), class_file(COLORS)
    ).tolist() == [[0, 1, 255]]
    short = with_palette(np.array([[0, 1, 2]], dtype=np.uint8), [10, 20, 30, 1, 1, 1, 2, 2, 2])
    assert read_mask(mask(short), class_file(COLORS)).tolist() == [[0, 1, 2]]


BROKEN = {
    "truncated": lambda content: content[: len(content) // 2],
    "no PNG, TIFF or BMP file": lambda content: b"no image",
    "empty file": lambda content: b"",
}


@pytest.mark.parametrize(("why", "change"), BROKEN.items())
def test_a_broken_file_is_named(mask, why, change):
    path = mask(np.random.default_rng(0).integers(0, 2, (200, 200), dtype=np.uint8))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UnreadableMask, match=why) as caught:
        read_mask(path, plain_class_file(["a", "b"]))
    assert caught.value.path == str(path) and caught.value.why
    copy = pickle.loads(pickle.dumps(caught.value))  # workers send their errors so
    assert type(copy) is UnreadableMask and (copy.path, copy.why) == (
        caught.value.path,
        caught.value.why,
    )


def test_a_jpeg_is_no_mask(mask):
    with pytest.raises(UnreadableMask, match="other formats do not keep class ids"):
        read_mask(mask(VALUES, format="JPEG"), plain_class_file("abc"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableMask, match=r"x\.png: No such file"):
        read_mask(tmp_path / "x.png", plain_class_file("abc"))


def test_floating_point_pixels_are_no_ids(mask):
    with pytest.raises(UnreadableMask, match="has F pixels"):
        read_mask(mask(np.zeros((2, 2), dtype=np.float32), "mask.tif"), plain_class_file("abc"))
