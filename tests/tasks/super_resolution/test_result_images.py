"""Output images: their rows in JSON, and the properties of the input file that they keep."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.predict_files import save_image
from visionloop.bin.super_resolution import commands
from visionloop.datasets.io.headers import EXIF_ORIENTATION
from visionloop.datasets.io.images import read_image
from visionloop.datasets.io.matlab_resize import matlab_resize
from visionloop.tasks.super_resolution.model import load_model
from visionloop.tasks.super_resolution.result_images import (
    RESULTS,
    describe_predictions,
    finish_image,
    prediction_images,
)
from visionloop.tasks.super_resolution.tiling import Tiling, upscale

MAKER, ARTIST, PHOTO_IFD, GPS_IFD, LENS, GPS_LATITUDE = 271, 315, 0x8769, 0x8825, 0xA434, 2
WIDTH_TAG, HEIGHT_TAG = 0xA002, 0xA003
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY_PIXELS, ALPHA = RGB[..., 0], np.linspace(0, 255, 54).reshape(6, 9).astype(np.uint8)


def enlarged(path, scale=2):
    """A stand-in for the network: each pixel as a square."""
    return read_image(path).repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def saved(path, scale=2):
    """(Pillow image of the result as it lies on the disk, the file's bytes)."""
    target = path.with_name("out") / "result.png"
    save_image(target, finish_image(path, enlarged(path, scale), scale))
    with Image.open(target) as image:
        image.load()
        return image, target.read_bytes()


def write(path, image, **options):
    image.save(path, **options)
    return path


def exif_block(orientation=1):
    exif = Image.Exif()
    exif[MAKER], exif[EXIF_ORIENTATION] = "Camera works", orientation
    exif.get_ifd(PHOTO_IFD).update({LENS: "50 mm", WIDTH_TAG: 9, HEIGHT_TAG: 6})
    exif.get_ifd(GPS_IFD)[GPS_LATITUDE] = (48.0, 8.0, 0.0)
    return exif.tobytes()


def test_a_row_says_how_large_and_how_the_image_was_made():
    predictions = {
        "images": [
            torch.zeros(3, 12, 18, dtype=torch.uint8),
            torch.zeros(3, 8, 4, dtype=torch.uint8),
        ],
        "tilings": [Tiling(0, 0, 23, True), Tiling(8, 8, 23, False)],
    }
    batch = {"pixel_values": [torch.zeros(3, 6, 9), torch.zeros(3, 4, 2)]}
    first, second = describe_predictions(predictions, batch, ["a.jpg", "sub/b.png"])
    assert json.loads(json.dumps(first)) == first
    assert {name: first[name] for name in ("file", "width", "height", "scale")} == {
        "file": "a.jpg",
        "width": 18,
        "height": 12,
        "scale": 2,
    }
    assert (first["tiled"], first["exact"]) == (False, True) and (
        second["tiled"],
        second["exact"],
    ) == (True, False)
    assert "whole" in first["tiling"] and "approximation" in second["tiling"]


@pytest.mark.parametrize(
    ("image", "suffix", "mode"),
    [
        (Image.fromarray(RGB), ".png", "RGB"),
        (Image.fromarray(RGB), ".bmp", "RGB"),
        (Image.fromarray(GRAY_PIXELS), ".png", "L"),
        (Image.fromarray(GRAY_PIXELS), ".jpg", "L"),
        (Image.fromarray(GRAY_PIXELS).convert("1"), ".png", "L"),
        (Image.fromarray(GRAY_PIXELS.astype(np.uint16) * 257), ".png", "L"),
        (Image.merge("LA", (Image.fromarray(GRAY_PIXELS), Image.fromarray(ALPHA))), ".png", "LA"),
        (Image.fromarray(np.dstack([RGB, ALPHA])), ".png", "RGBA"),
        (Image.fromarray(np.dstack([RGB, ALPHA])), ".webp", "RGBA"),
        (Image.fromarray(RGB).convert("P"), ".png", "RGB"),
        (Image.fromarray(RGB).convert("CMYK"), ".jpg", "RGB"),
        (Image.fromarray(RGB).convert("CMYK"), ".tif", "RGB"),
    ],
)
def test_gray_and_transparent_files_stay_so_and_all_others_become_rgb(
    tmp_path, image, suffix, mode
):
    path = write(tmp_path / f"in{suffix}", image)
    result, _ = saved(path)
    assert result.mode == mode and result.size == (18, 12)
    colors = np.asarray(result.convert("RGB")).astype(int)
    assert np.abs(colors - enlarged(path).permute(1, 2, 0).numpy()).max() <= 1
    if mode in ("LA", "RGBA"):
        assert np.array_equal(np.asarray(result)[..., -1], matlab_resize(ALPHA, 2))


def test_transparency_of_a_palette_and_of_one_color_is_kept(tmp_path):
    palette = Image.fromarray(np.arange(54, dtype=np.uint8).reshape(6, 9)).convert("P")
    for image, mode in (
        (palette, "RGBA"),
        (Image.fromarray(np.full((6, 9), 7, dtype=np.uint8)), "LA"),
    ):
        result, _ = saved(write(tmp_path / "in.png", image, transparency=7))
        assert result.mode == mode and np.asarray(result)[..., -1].min() < 99


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_orientation_is_applied_once_to_colors_and_transparency(tmp_path, suffix, orientation):
    exif = exif_block(orientation)
    image = Image.fromarray(np.dstack([RGB, ALPHA]))
    path = write(
        tmp_path / f"in{suffix}",
        image,
        exif=exif,
        **({"lossless": True, "exact": True} if suffix == ".webp" else {}),
    )
    result, _ = saved(path, scale=1)
    stored = image.copy()
    stored.getexif()[EXIF_ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(np.asarray(result), expected)
    assert EXIF_ORIENTATION not in result.getexif()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_is_kept_with_the_output_size(tmp_path, suffix):
    exif = Image.Exif()
    exif.load(exif_block(orientation=6))
    if suffix == ".tif":
        exif[ARTIST] = "Somebody"
    path = write(tmp_path / f"in{suffix}", Image.fromarray(RGB), exif=exif)
    result, _ = saved(path)
    exif = result.getexif()
    photo = exif.get_ifd(PHOTO_IFD)
    assert (
        result.size == (12, 18) and exif[MAKER] == "Camera works" and EXIF_ORIENTATION not in exif
    )
    assert (photo[LENS], photo[WIDTH_TAG], photo[HEIGHT_TAG]) == ("50 mm", 12, 18)
    assert exif.get_ifd(GPS_IFD)[GPS_LATITUDE] == (48.0, 8.0, 0.0)
    assert set(exif) <= {
        MAKER,
        ARTIST,
        PHOTO_IFD,
        GPS_IFD,
    }  # nothing about where pixels lay in the old file
    assert (exif.get(ARTIST) == "Somebody") == (suffix == ".tif")


def test_a_profile_is_kept_where_it_is_for_the_channels_of_the_output(tmp_path):
    assert (
        saved(write(tmp_path / "a.jpg", Image.fromarray(RGB), icc_profile=SRGB))[0].info[
            "icc_profile"
        ]
        == SRGB
    )
    assert (
        saved(
            write(tmp_path / "b.png", Image.fromarray(np.dstack([RGB, ALPHA])), icc_profile=SRGB)
        )[0].info["icc_profile"]
        == SRGB
    )
    other = SRGB[:16] + b"CMYK" + SRGB[20:]
    assert (
        "icc_profile"
        not in saved(
            write(tmp_path / "c.jpg", Image.fromarray(RGB).convert("CMYK"), icc_profile=other)
        )[0].info
    )
    gray = SRGB[:16] + b"GRAY" + SRGB[20:]
    assert (
        saved(write(tmp_path / "d.jpg", Image.fromarray(GRAY_PIXELS), icc_profile=gray))[0].info[
            "icc_profile"
        ]
        == gray
    )


def test_a_file_without_either_gets_neither_and_broken_exif_is_left_out(tmp_path):
    result, content = saved(write(tmp_path / "a.png", Image.fromarray(RGB)))
    assert "icc_profile" not in result.info and b"eXIf" not in content
    _, content = saved(
        write(tmp_path / "b.jpg", Image.fromarray(RGB), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    )
    assert b"eXIf" not in content


def test_output_images_are_made_one_by_one(tmp_path):
    paths = [write(tmp_path / f"{i}.png", Image.fromarray(RGB)) for i in range(2)]
    files = prediction_images(paths, {"images": [enlarged(path) for path in paths]}, 2)
    assert list(files) == [RESULTS]
    write(paths[1], Image.fromarray(GRAY_PIXELS))  # looked at only when its turn comes
    assert [image.mode for image in files[RESULTS]] == ["RGB", "L"]


def test_what_pillow_refuses_gives_its_colors(tmp_path):
    notes = PngInfo()
    notes.add_text("comment", "hello")
    path = write(tmp_path / "a.png", Image.fromarray(RGB), pnginfo=notes)
    path.write_bytes(path.read_bytes().replace(b"hello", b"hullo"))  # its checksum is wrong now
    with pytest.raises(OSError):
        Image.open(path)
    assert np.array_equal(np.asarray(saved(path, scale=1)[0]), RGB)


def test_arrays_are_saved_as_before(tmp_path):
    for image in (RGB, GRAY_PIXELS):
        save_image(tmp_path / "new" / "a.png", image)
        plain = io.BytesIO()
        Image.fromarray(image).save(plain, "png")
        assert (tmp_path / "new" / "a.png").read_bytes() == plain.getvalue()


def predicted(*arguments):
    with pytest.raises(SystemExit) as left:
        run_commands(commands, ["predict", "--device", "cpu", *map(str, arguments)])
    return left.value.code


def test_predict_takes_tiles_and_ensembles_from_the_command_line(tmp_path, save_tiny):
    model = save_tiny()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", Image.fromarray(pixels), exif=exif_block(), icc_profile=SRGB)
    write(tmp_path / "in" / "b.jpg", Image.fromarray(pixels[:9, :7, 0]))
    out = tmp_path / "out"
    assert (
        predicted(
            "--model",
            model,
            "--input",
            tmp_path / "in",
            "--output",
            out,
            "--tile",
            8,
            "--halo",
            8,
            "--ensemble",
            8,
        )
        == 0
    )
    first, second = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    assert (first["tiled"], first["exact"], first["width"], first["height"]) == (
        True,
        False,
        120,
        80,
    ) and not second["tiled"]
    with Image.open(out / RESULTS / "a.png") as result:
        assert (
            result.mode == "RGBA"
            and result.getexif()[MAKER] == "Camera works"
            and result.info["icc_profile"] == SRGB
        )
        output = np.asarray(result)[..., :3]
    colors = torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)
    expected = upscale(load_model(model).eval(), colors, tile=8, halo=8, ensemble=8, as_bytes=True)
    assert np.array_equal(output, expected.permute(1, 2, 0).numpy())
    with Image.open(out / RESULTS / "b.png") as result:
        assert result.mode == "L" and result.size == (14, 18)
    assert {path.name for path in (out / "images").iterdir()} == {"a.png", "b.jpg"} and (
        out / "contact_sheet.png"
    ).exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [("--tile", "--tile: expected at least 0, got -1"), ("--halo", "--halo: expected")],
)
def test_predict_refuses_a_value_out_of_range(tmp_path, capsys, option, message):
    assert (
        predicted(
            "--model", tmp_path, "--input", tmp_path, "--output", tmp_path / "out", option, -1
        )
        == 2
    )
    assert capsys.readouterr().err.startswith(f"error: {message}")
