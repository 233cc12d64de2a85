"""Conversion of labelme shapes to masks, in the order of the file."""

import pytest
from conversion_files import classes, files_below, grid, image, labelme, mask, write


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
            ("x", "mask", [[1, 1], [2, 2]]),
            "shape_type is 'mask', expected polygon, rectangle or circle",
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
