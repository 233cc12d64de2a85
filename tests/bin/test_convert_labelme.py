"""Conversion of labelme shapes to masks, in the order of the file."""

import base64
import io

import numpy as np
import pytest
from conversion_files import classes, files_below, grid, image, labelme, mask, write
from PIL import Image


def test_the_shapes_of_labelme_are_drawn_in_their_order(convert, tmp_path):
    shapes = [
        ("sky", "rectangle", [[8, 3.0], [0, 0.0]]),
        ("tree", "polygon", [[2, 1], [5, 1], [5, 4], [2, 4]]),
        ("__ignore__", "rectangle", [[4, 2], [6, 5]]),
        ("_background_", "rectangle", [[0, 0], [1, 1]]),
        ("mark", "point", [[3, 3]]),
    ]
    labelme(tmp_path / "me", "a", shapes)
    status, out, err = convert("masks", tmp_path / "me", tmp_path / "out")
    assert (
        status == 0
        and "shape 5 (mark): a point covers no pixel" in err
        and "1 images, 2 regions" in out
    )
    assert classes(tmp_path / "out") == ["background", "mark", "sky", "tree"]
    assert mask(tmp_path / "out", "train/a.png") == grid(
        "02222222", "22333222", "2233xx22", "0033xx00", "0000xx00", "00000000"
    )
    labelme(tmp_path / "me", "a", shapes[1::-1])
    convert("masks", tmp_path / "me", tmp_path / "out", "--background", "ignore")
    assert mask(tmp_path / "out", "train/a.png") == grid(
        *["00000000"] * 3, "xx111xxx", *["xxxxxxxx"] * 2
    )


@pytest.mark.parametrize("kind", ["rectangle", "oriented_rectangle", "rotation"])
def test_a_turned_rectangle_has_four_corners(convert, tmp_path, kind):
    corners = [[2, 1], [5, 1], [5, 4], [2, 4]]
    labelme(tmp_path / "me", "a", [("x", kind, corners)])
    convert("masks", tmp_path / "me", tmp_path / "out")
    assert mask(tmp_path / "out", "train/a.png") == grid(
        "00000000", *["00111000"] * 3, *["00000000"] * 2
    )


def test_a_circle_goes_around_its_first_point_through_the_second(convert, tmp_path):
    labelme(tmp_path / "me", "a", [("ball", "circle", [[4, 3], [4, 5]])])
    convert("masks", tmp_path / "me", tmp_path / "out")
    assert mask(tmp_path / "out", "train/a.png") == grid(
        "00000000", "00011000", "00111100", "00111100", "00011000", "00000000"
    )


def test_folders_are_splits_and_classes_are_those_of_all(convert, tmp_path):
    labelme(
        tmp_path / "me",
        "train/deep/a",
        [("b", "rectangle", [[0, 0], [8, 6]])],
        imagePath="..\\..\\deep\\a.jpg",
    )
    labelme(tmp_path / "me", "valid/v", [("a", "rectangle", [[0, 0], [8, 6]])])
    image(tmp_path / "me/train/unlabeled.jpg")
    write(tmp_path / "me/train/package.json", {"name": "x"})
    status, _, err = convert("masks", tmp_path / "me", tmp_path / "out")
    assert (
        status == 0
        and "unlabeled.jpg: image without annotations" in err
        and "package.json: not a labelme json, skipped" in err
    )
    assert files_below(tmp_path / "out/masks") == ["train/deep/a.png", "val/v.png"] and classes(
        tmp_path / "out"
    ) == ["background", "a", "b"]
    assert (
        mask(tmp_path / "out", "val/v.png")[0][0] == 1
        and mask(tmp_path / "out", "train/deep/a.png")[0][0] == 2
    )


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (("x", "polygon", [[1, 1], [2, 2]]), "shape 2 (x): a polygon with 2 points"),
        (("x", "rectangle", [[1, 1]]), "shape 2 (x): a rectangle with 1 points"),
        (
            ("x", "blob", [[1, 1], [2, 2]]),
            "shape_type is 'blob', expected polygon, rectangle, circle or mask",
        ),
        (("x", "circle", [[1, 1], [2, None]]), "shape 2 (x): a coordinate is missing"),
        (("x", "polygon", "1 1 2 2"), "points is '1 1 2 2'"),
        (("", "polygon", [[1, 1], [2, 2], [3, 1]]), "shape 2: label is ''"),
    ],
)
def test_an_invalid_shape_is_reported_by_file_and_number_in_one_line(convert, tmp_path, shape, why):
    path = labelme(tmp_path / "me", "a", [("x", "rectangle", [[0, 0], [4, 4]]), shape])
    status, out, err = convert("masks", tmp_path / "me", tmp_path / "out")
    assert (
        status == 2
        and out == ""
        and err.count("\n") == 1
        and err.startswith(f"error: {path}: ")
        and why in err
    )


def test_an_invalid_labelme_file_is_reported_in_one_line(convert, tmp_path):
    labelme(tmp_path / "me", "ok", [("x", "rectangle", [[0, 0], [4, 4]])])
    for content, why in (
        ({"imageHeight": 9}, "annotated as 8 x 9, but the image is 8 x 6"),
        ({"imageHeight": "6"}, "annotated as 8 x '6', but the image is 8 x 6"),
        ({"shapes": {}}, "'shapes' is {}"),
        ({"imagePath": "b.jpg"}, "its image 'b.jpg' is not beside it"),
    ):
        path = labelme(tmp_path / "me", "a", [], **content)
        if "imagePath" in content:
            path.with_suffix(".jpg").unlink()
        status, _, err = convert("masks", tmp_path / "me", tmp_path / "out")
        assert (
            status == 2
            and err.count("\n") == 1
            and err.startswith(f"error: {path}: ")
            and why in err
        )


def png(*lines):
    """A mask of digits as labelme writes it: a PNG of bits in base64."""
    file = io.BytesIO()
    Image.fromarray(np.array([[int(digit) for digit in line] for line in lines]) > 0).save(
        file, "PNG"
    )
    return base64.b64encode(file.getvalue()).decode()


def test_a_mask_of_labelme_covers_the_pixels_of_its_bitmap(convert, tmp_path):
    shapes = [
        {"label": "x", "shape_type": "mask", "points": [[2, 1], [4, 2]], "mask": png("101", "011")},
        # it reaches one pixel beyond the image
        {
            "label": "y",
            "shape_type": "mask",
            "points": [[-1, 4], [1, 6]],
            "mask": png(*["111"] * 3),
        },
    ]
    labelme(tmp_path / "me", "a", [], shapes=shapes)
    assert convert("masks", tmp_path / "me", tmp_path / "out")[0] == 0
    assert mask(tmp_path / "out", "train/a.png") == grid(
        "00000000", "00101000", "00011000", "00000000", "22000000", "22000000"
    )


@pytest.mark.parametrize(
    ("points", "text", "why"),
    [
        ([[2, 1], [4, 2]], "no base64!", "mask is 'no base64!', expected a PNG in base64"),
        ([[2, 1], [4, 2]], base64.b64encode(b"no png").decode(), "expected a PNG in base64"),
        ([[2, 1], [4, 2]], None, "mask is missing"),
        ([[2, 1], [4, 4]], png("101", "011"), "shape [2, 3], its points say [4, 3]"),
        ([[2, 1]], png("101", "011"), "a mask with 1 points"),
    ],
)
def test_a_mask_that_cannot_be_read_is_named(convert, tmp_path, points, text, why):
    shape = {"label": "x", "shape_type": "mask", "points": points, "mask": text}
    path = labelme(tmp_path / "me", "a", [], shapes=[shape])
    status, _, err = convert("masks", tmp_path / "me", tmp_path / "out")
    assert status == 2 and err.startswith(f"error: {path}: shape 1 (x): ") and why in err


@pytest.mark.parametrize(
    ("json_name", "image_name", "image_path"),
    [
        ("json/a", "image/a.jpg", "../image/a.jpg"),
        ("json/a", "image/a.jpg", "..\\image\\a.jpg"),
        ("json/a", "image/b.jpg", "../image/b.jpg"),
        ("json/a", "image/deep/a.jpg", "C:\\pictures\\a.jpg"),
        ("json/a", "image/a.JPG", "a.jpg"),
        ("json/a", "image/a.jpg", None),
        ("caf\u00e9", "cafe\u0301.jpg", "caf\u00e9.jpg"),
    ],
)
def test_an_image_in_another_folder_is_found(convert, tmp_path, json_name, image_name, image_path):
    drawn = [("x", "rectangle", [[0, 0], [8, 6]])]
    path = labelme(tmp_path / "me", json_name, drawn, imagePath=image_path)
    path.with_suffix(".jpg").unlink()
    image(tmp_path / "me" / image_name)
    image(tmp_path / "me" / "image" / "other.jpg")
    assert convert("masks", tmp_path / "me", tmp_path / "out")[0] == 0
    assert len(files_below(tmp_path / "out/masks")) == 1


def test_an_image_that_is_only_embedded_is_named(convert, tmp_path):
    path = labelme(tmp_path / "me", "a", [("x", "rectangle", [[0, 0], [8, 6]])], imageData="aGk=")
    path.with_suffix(".jpg").unlink()
    status, _, err = convert("masks", tmp_path / "me", tmp_path / "out")
    assert status == 2 and err.count("\n") == 1
    assert "but embedded as imageData: write it as a file beside the json" in err


def test_an_image_outside_of_the_source_is_not_read(convert, tmp_path):
    path = labelme(
        tmp_path / "me", "a", [("x", "rectangle", [[0, 0], [8, 6]])], imagePath="../b.jpg"
    )
    path.with_suffix(".jpg").unlink()
    image(tmp_path / "b.jpg")
    status, _, err = convert("masks", tmp_path / "me", tmp_path / "out")
    assert status == 2 and "its image '../b.jpg' is not beside it" in err
