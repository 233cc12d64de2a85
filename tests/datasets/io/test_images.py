"""Reading one image: the pixels of every kind of file, and one error for what is none."""

import errno
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from visionloop.datasets.io.folders import IMAGE_SUFFIXES
from visionloop.datasets.io.headers import jpeg_frame
from visionloop.datasets.io.images import (
    MAX_PIXELS,
    UnreadableImage,
    read_image,
    read_orientation,
    read_size,
)
from visionloop.datasets.io.reduced_jpeg import read_reduced_image


def as_array(image):
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png(width, height, *, bits=8, color_type=2, rows=b""):
    """A PNG file from its header fields and raw rows."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_format_reads_as_pillow_reads_it(tmp_path, colors, mode):
    written = 0
    for suffix in IMAGE_SUFFIXES:
        path = tmp_path / f"x{suffix}"
        try:
            Image.fromarray(colors).convert(mode).save(path)
        except (OSError, ValueError):
            continue  # the format has no such mode
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(as_array(read_image(path)), expected), path.name
        assert read_size(path) == (48, 64)
        written += 1
    assert written >= 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_rotated_upright(tmp_path, colors, suffix, orientation):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(colors).save(path, exif=with_orientation(orientation))
    # a twin without the orientation, rotated by Pillow
    twin = tmp_path / f"twin{suffix}"
    Image.fromarray(colors).save(twin)
    with Image.open(twin) as image:
        image = image.convert("RGB")
        image.getexif()[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(as_array(read_image(path)), expected)
    assert read_size(path) == expected.shape[:2]


def test_a_broken_exif_block_counts_as_none(tmp_path, colors):
    path = tmp_path / "x.jpg"
    Image.fromarray(colors).save(path, exif=with_orientation(6))
    data = bytearray(path.read_bytes())
    at = data.index(b"Exif") + 10
    data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert read_image(path).shape == (3, 48, 64)
    assert read_size(path) == (48, 64)


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 4).astype(np.uint16).reshape(4, 64)
    expected = np.round(ramp / 257).astype(np.uint8)
    for name in ("gray.png", "gray.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert np.array_equal(
            as_array(read_image(tmp_path / name)), np.repeat(expected[..., None], 3, axis=2)
        )


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_of_every_kind_of_png_are_rounded(tmp_path, color_type, channels):
    """Pillow alone keeps the high bytes of those with several channels: 1 too little of most."""
    values = np.random.default_rng(0).integers(0, 65536, (6, 9, channels)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path = tmp_path / "x.png"
    path.write_bytes(png(9, 6, bits=16, color_type=color_type, rows=rows))
    colors = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, axis=2)
    expected = np.round(colors / 257).astype(np.uint8)
    assert np.array_equal(as_array(read_image(path)), expected)


def test_a_png_with_a_broken_note_is_read(tmp_path, colors):
    """Pillow refuses a file for the checksum of a text; its pixels and orientation are whole."""
    note = PngInfo()
    note.add_text("comment", "hello")
    path = tmp_path / "x.png"
    Image.fromarray(colors).save(path, pnginfo=note, exif=with_orientation(6))
    path.write_bytes(path.read_bytes().replace(b"hello", b"hullo"))
    with pytest.raises(OSError):
        Image.open(path)
    assert np.array_equal(as_array(read_image(path)), np.rot90(colors, -1))
    assert read_size(path) == (64, 48)


def test_damage_that_libjpeg_skips_is_decoded_as_pillow_does(tmp_path, colors):
    path = tmp_path / "x.jpg"
    Image.fromarray(colors).save(path)
    data = bytearray(path.read_bytes())
    data[-40:-20] = bytes(20)
    path.write_bytes(data)
    with Image.open(path) as image:
        expected = np.asarray(image)
    assert np.array_equal(as_array(read_image(path)), expected)
    reduced, full_hw = read_reduced_image(path, 16)
    assert full_hw == (48, 64) and np.array_equal(as_array(reduced), expected)


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 2), (5, 7), (7, 7), (3, 30), (8, 8)])
def test_jpegs_of_a_few_pixels_are_decoded_in_full(tmp_path, colors, size_hw):
    path = tmp_path / "x.jpg"
    Image.fromarray(colors[: size_hw[0], : size_hw[1]]).save(path, quality=95)
    with Image.open(path) as image:
        assert np.array_equal(as_array(read_image(path)), np.asarray(image))


def test_a_thumbnail_does_not_make_a_truncated_jpeg_whole(tmp_path, colors):
    path = tmp_path / "x.jpg"
    buffer = io.BytesIO()
    Image.fromarray(colors).resize((16, 16)).save(buffer, "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + buffer.getvalue()
    Image.fromarray(colors).save(path, exif=exif)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableImage, match="truncated"):
        read_image(path)


def test_alpha_is_dropped(tmp_path, colors):
    alpha = np.zeros((48, 64, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([colors, alpha], axis=2)).save(tmp_path / "x.png")
    assert np.array_equal(as_array(read_image(tmp_path / "x.png")), colors)


def test_of_an_animation_the_first_frame_is_read(tmp_path, colors):
    frames = [Image.fromarray(np.roll(colors, shift, axis=1)) for shift in (0, 20, 40)]
    for name in ("x.gif", "x.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / name) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(as_array(read_image(tmp_path / name)), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_ends_early_is_an_error_and_never_gray(tmp_path, colors, suffix, share):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(colors).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert caught.value.path == str(path) and "truncated" in caught.value.why


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_an_error(tmp_path, colors, progressive):
    path = tmp_path / "x.jpg"
    Image.fromarray(colors).save(path, progressive=progressive)
    data = path.read_bytes()
    for length in [*range(1, len(data) - 1, 37), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableImage):
            read_image(path)
    path.write_bytes(data[:100])  # before the frame's header, where Pillow alone is asked
    with pytest.raises(UnreadableImage, match="truncated: the end of the file is missing"):
        read_image(path)


def test_a_jpeg_whose_end_is_zeros_is_an_error(tmp_path, colors):
    """An interrupted copy often has the right length; Pillow fills such an image with gray."""
    path = tmp_path / "x.jpg"
    Image.fromarray(colors).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(5000))
    with pytest.raises(UnreadableImage, match="truncated"):
        read_image(path)


def test_bytes_behind_the_end_do_no_harm(tmp_path, colors):
    for name in ("x.jpg", "x.png"):
        Image.fromarray(colors).save(tmp_path / name)
        before = read_image(tmp_path / name)
        with open(tmp_path / name, "ab") as file:
            file.write(bytes(100))
        assert torch.equal(read_image(tmp_path / name), before)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "empty file"), (b"hello " * 50, "not an image"), (b"\xff\xd8\xff", "not an image")],
)
def test_what_is_no_image_is_reported(tmp_path, content, why):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=why) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {caught.value.why}"


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC; convert it"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIC; convert it"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF; convert it"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"II*\0\x08\0\0\0\0\0", "a TIFF with values or channels"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "an SVG"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "a web page; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer .* git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, start, why):
    path = tmp_path / "x.jpg"
    path.write_bytes(start + b" " * 100)
    for read in (read_image, read_size, read_orientation):
        with pytest.raises(UnreadableImage, match=f"not an image of a known format, but {why}"):
            read(path)


def test_a_file_that_vanished_and_a_folder_are_reported(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImage, match="directory"):
        read_image(tmp_path)
    with pytest.raises(UnreadableImage, match="No such file"):
        read_size(tmp_path / "gone.jpg")


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, colors):
    side = 1 + int(MAX_PIXELS**0.5)
    (tmp_path / "x.png").write_bytes(png(side, side))
    Image.fromarray(colors).save(tmp_path / "x.jpg")
    data = bytearray((tmp_path / "x.jpg").read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "x.jpg").write_bytes(data)
    Image.new("L", (8, 8)).save(tmp_path / "x.bmp")
    data = bytearray((tmp_path / "x.bmp").read_bytes())
    data[18:26] = struct.pack("<ii", side, side)
    (tmp_path / "x.bmp").write_bytes(data)
    for name in ("x.png", "x.jpg", "x.bmp"):
        for read in (read_image, read_size):
            with pytest.raises(UnreadableImage, match="bomb"):
                read(tmp_path / name)


def test_floating_point_pixels_are_refused_with_the_reason(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((4, 4), dtype=np.float32)).save(
        tmp_path / "x.tif"
    )
    with pytest.raises(UnreadableImage, match="floating-point"):
        read_image(tmp_path / "x.tif")


def test_the_size_in_a_jpeg_header_is_found_behind_other_segments(colors):
    segments = {
        "exif": with_orientation(3),
        "icc_profile": bytes(70_000),
        "comment": b"\xff\xc0" * 50,
    }
    for options in ({}, {"progressive": True}, segments):
        buffer = io.BytesIO()
        Image.fromarray(colors).save(buffer, "JPEG", **options)
        assert jpeg_frame(buffer.getvalue()) == (48, 64, 3)
    assert jpeg_frame(b"\xff\xd8\xff\xd9") is None


def test_the_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(UnreadableImage("a/b.jpg", "empty file")))
    assert (error.path, error.why, str(error)) == ("a/b.jpg", "empty file", "a/b.jpg: empty file")
    assert isinstance(error, OSError)


def test_values_below_zero_are_called_so(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array([[-5, 300], [7, 8]], dtype=np.int32)).save(path)
    with pytest.raises(UnreadableImage, match="gray values from -5 to 300 have no fixed range"):
        read_image(path)


def test_too_little_memory_to_decode_is_told_apart_from_a_broken_file(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.new("RGB", (3, 2)).save(path)

    def no_room(*_):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "convert", no_room)
        with pytest.raises(UnreadableImage, match="not enough memory") as caught:
            read_image(path)
    assert caught.value.errno == errno.ENOMEM
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert caught.value.errno is None
