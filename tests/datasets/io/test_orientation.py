"""One rule of EXIF orientation for every reader of image files, whatever else a file holds."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from visionloop.datasets.cache.decoded import DecodedImages, open_image_cache
from visionloop.datasets.io.headers import exif_orientation
from visionloop.datasets.io.images import read_image, read_orientation, read_size
from visionloop.datasets.io.paths import PathIndex, join_paths
from visionloop.datasets.io.reduced_jpeg import read_reduced_image, reduced_size

XMP = b"http://ns.adobe.com/xap/1.0/\0"
LONG_XMP = b"http://ns.adobe.com/xmp/extension/\0"
TURNED_IN_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'


def block(orientation, order="big", kind=3):
    """EXIF with an orientation alone."""
    start, mark = (b"MM\0*", ">") if order == "big" else (b"II*\0", "<")
    value = struct.pack(mark + "HH", orientation, 0)
    if kind == 4:
        value = struct.pack(mark + "I", orientation)
    entry = struct.pack(mark + "HHI", 0x0112, kind, 1) + value
    return start + struct.pack(mark + "IH", 8, 1) + entry + bytes(4)


def segment(content, marker=0xE1):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(colors, *segments):
    """A JPEG with segments after its first one."""
    buffer = io.BytesIO()
    Image.fromarray(colors).save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    return data[:20] + b"".join(segments) + data[20:]


def png(colors, exif, *, at_end):
    """A PNG with an eXIf chunk before or after the pixels."""
    buffer = io.BytesIO()
    Image.fromarray(colors).save(buffer, "PNG")
    data = buffer.getvalue()
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    at = data.rindex(b"IEND") - 4 if at_end else 33
    return data[:at] + chunk + data[at:]


def saved(colors, suffix, orientation):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "WEBP" else {}
    Image.fromarray(colors).save(buffer, suffix, exif=exif, **options)
    return buffer.getvalue()


EXIF = b"Exif\0\0"
FILES = {
    "EXIF alone.jpg": lambda c, o: jpeg(c, segment(EXIF + block(o))),
    "little endian.jpg": lambda c, o: jpeg(c, segment(EXIF + block(o, "little"))),
    "XMP first.jpg": lambda c, o: jpeg(
        c, segment(XMP + TURNED_IN_XMP), segment(EXIF + block(o)), segment(b"x", 0xFE)
    ),
    "long XMP first.jpg": lambda c, o: jpeg(
        c, segment(LONG_XMP + bytes(40)), segment(bytes(60_000), 0xE2), segment(EXIF + block(o))
    ),
    "two blocks.jpg": lambda c, o: jpeg(
        c, segment(EXIF + block(o)), segment(EXIF + block(1 + o % 8))
    ),
    "fill bytes.jpg": lambda c, o: jpeg(c, b"\xff\xff", segment(EXIF + block(o))),
    "early.png": lambda c, o: png(c, block(o), at_end=False),
    "late.png": lambda c, o: png(c, block(o), at_end=True),
    "named.png": lambda c, o: png(c, EXIF + block(o), at_end=False),
    "x.webp": lambda c, o: saved(c, "WEBP", o),
    "x.tif": lambda c, o: saved(c, "TIFF", o),
}


def waves(height=160, width=240):
    y, x = np.mgrid[:height, :width] * (2 * np.pi / 60)
    return (128 + 100 * np.stack([np.sin(x), np.sin(y), np.cos(x - y)], axis=-1)).astype(np.uint8)


def expected(path, orientation):
    """The image of a file without orientation, turned by Pillow. uint8 [3, H, W]."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    for name in ("exif", "xmp"):
        image.info.pop(name, None)
    image.getexif().clear()
    image.getexif()[0x0112] = orientation
    return torch.from_numpy(np.array(ImageOps.exif_transpose(image))).permute(2, 0, 1)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FILES)
def test_every_reader_gives_the_same_upright_image(tmp_path, kind, orientation):
    path = tmp_path / kind
    path.write_bytes(FILES[kind](waves(), 1))
    wanted = expected(path, orientation)
    path.write_bytes(FILES[kind](waves(), orientation))
    index = PathIndex(folder=str(tmp_path), **join_paths([kind.encode()]))
    assert read_orientation(path) == orientation
    assert read_size(path) == tuple(wanted.shape[1:])
    assert torch.equal(read_image(path), wanted)
    assert torch.equal(DecodedImages(index)(0)[0], wanted)
    assert torch.equal(open_image_cache(index)(0)[0], wanted)
    reduced, full_hw = read_reduced_image(path, 40)
    assert full_hw == tuple(wanted.shape[1:])
    assert reduced_size(path, 40) == tuple(reduced.shape[1:])
    assert torch.equal(open_image_cache(index, 40)(0)[0], reduced)
    factor = 4 if kind.endswith(".jpg") else 1
    means = torch.nn.functional.avg_pool2d(wanted.float(), factor)
    assert (reduced - means).abs().mean() < 1.5


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("orientation", [0, 9, 49, 65535])
def test_a_value_outside_of_1_to_8_is_ignored_by_every_reader(tmp_path, kind, orientation):
    path = tmp_path / kind
    path.write_bytes(FILES[kind](waves(), 1))
    wanted = read_image(path)
    path.write_bytes(FILES[kind](waves(), orientation))
    assert read_orientation(path) == 1 and read_size(path) == (160, 240)
    assert torch.equal(read_image(path), wanted)
    assert read_reduced_image(path, 40)[1] == (160, 240)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"MM",
        b"XX\0*" + block(6)[4:],
        block(6)[:12],
        block(6)[:4] + b"\xff" * 8,
        block(6, kind=4),
        block(6, kind=2),
    ],
)
def test_a_broken_block_counts_as_none(tmp_path, exif):
    for name, data in {
        "x.jpg": jpeg(waves(), segment(EXIF + exif)),
        "x.png": png(waves(), exif, at_end=False),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert exif_orientation(data) == 1 == read_orientation(tmp_path / name)
        assert read_image(tmp_path / name).shape[1:] == read_size(tmp_path / name) == (160, 240)


def test_xmp_turns_nothing(tmp_path):
    """Pillow would turn the pixels of a TIFF by its XMP, but not its size."""
    path = tmp_path / "x.tif"
    Image.fromarray(waves()).save(path, tiffinfo={700: TURNED_IN_XMP})
    with Image.open(path) as image:
        assert image.getexif().get(0x0112) == 8
    assert read_image(path).shape[1:] == read_size(path) == (160, 240)
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg(waves(), segment(XMP + TURNED_IN_XMP)))
    assert read_image(path).shape[1:] == read_size(path) == (160, 240)
