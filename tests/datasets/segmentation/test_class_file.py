"""classes.json: meaning of the values in mask files, and one line for each error."""

import json

import numpy as np
import pytest

from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.class_file import plain_class_file, read_class_file


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        path = tmp_path / "classes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_class_file(path)

    return write_and_read


def meaning(class_file, *values):
    """Class id of each value, None where it is an error."""
    table, is_valid = class_file.table, class_file.is_valid
    return [int(table[value]) if is_valid[value] else None for value in values]


SAME = [
    {"classes": ["sky", "road"]},
    {"classes": {"0": "sky", "1": "road"}, "ignore_index": 255},
    {"1": "road", "0": "sky"},
    ["sky", "road"],
]


@pytest.mark.parametrize("content", SAME)
def test_a_list_and_an_object_of_names_are_the_same(read, content):
    class_file = read(content)
    assert (
        class_file.classes == ("sky", "road")
        and class_file.ignore_index == 255
        and class_file.colors is None
    )
    assert meaning(class_file, 0, 1, 2, 254, 255, 256, 65535) == [0, 1, None, None, 255, None, None]
    assert (
        class_file.digest() == read(SAME[0]).digest() == plain_class_file(["sky", "road"]).digest()
    )


def test_nothing_is_subtracted_unless_asked_for(read):
    assert meaning(read({"classes": ["wall", "floor"]}), 0, 1, 2) == [0, 1, None]


def test_ade20k_counts_from_one(read):
    class_file = read({"classes": [f"class {i}" for i in range(150)], "ids": "shift"})
    assert meaning(class_file, 0, 1, 2, 150, 151, 255) == [255, 0, 1, 149, None, 255]
    assert (
        np.array_equal(class_file.table[1:151], np.arange(150))
        and (class_file.table[151:] == 255).all()
    )


def test_the_keys_of_an_object_are_values_in_the_masks(read):
    class_file = read({"classes": {"10": "b", "2": "a", "700": "c"}, "ignore_index": 0})
    assert class_file.classes == ("a", "b", "c") and meaning(class_file, 0, 2, 10, 700, 3, 255) == [
        255,
        0,
        1,
        2,
        None,
        None,
    ]
    assert class_file.describe_values() == "2, 10, 700 and 0 (ignored)"


def test_values_that_ids_do_not_list_are_ignored(read):
    class_file = read(
        {"classes": ["road", "car"], "ids": {"7": 0, "26": "car", "27": 1, "3": None, "4": 255}}
    )
    assert meaning(class_file, 7, 26, 27, 3, 4, 0, 999) == [0, 1, 1, 255, 255, 255, 255]


def test_cityscapes_label_ids_need_no_list_of_classes(read):
    class_file = read({"ids": "cityscapes"})
    assert (
        len(class_file.classes) == 19
        and class_file.classes[:2] == ("road", "sidewalk")
        and class_file.classes[-1] == "bicycle"
    )
    assert meaning(class_file, 0, 6, 7, 8, 9, 11, 33, 34, 255) == [
        255,
        255,
        0,
        1,
        255,
        2,
        18,
        None,
        255,
    ]


def test_cityscapes_classes_are_matched_by_name(read):
    names = read({"ids": "cityscapes"}).classes[::-1]
    assert meaning(read({"classes": names, "ids": "cityscapes"}), 7, 33) == [18, 0]


def test_ignore_index_may_be_another_value_or_none(read):
    assert meaning(read({"classes": ["a", "b"], "ignore_index": 9}), 9, 255) == [255, None]
    assert meaning(read({"classes": ["a", "b"], "ignore_index": None}), 0, 255) == [0, None]


def test_255_classes_leave_room_for_the_ignored_ones(read):
    names = [f"{i}" for i in range(255)]
    assert meaning(read({"classes": names}), 254, 255) == [254, 255]
    assert meaning(read({"classes": names, "ids": "shift"}), 0, 255) == [255, 254]
    with pytest.raises(DataLayoutError, match="256 classes, at most 255"):
        read([*names, "one more"])


def test_colors_are_in_order_of_id(read):
    for colors in ({"road": [4, 5, 6], "sky": [1, 2, 3]}, [[1, 2, 3], [4, 5, 6]]):
        class_file = read(
            {"classes": ["sky", "road"], "colors": colors, "ignore_colors": [[0, 0, 0]]}
        )
        assert (
            class_file.colors.tolist() == [[1, 2, 3], [4, 5, 6]]
            and class_file.colors.dtype == np.uint8
        )
        assert (
            class_file.color_ids == {(1, 2, 3): 0, (4, 5, 6): 1, (0, 0, 0): 255}
            and not class_file.other_colors
        )


def test_other_classes_are_matched_by_name(read):
    content = {
        "classes": ["sky", "road"],
        "colors": [[1, 2, 3], [4, 5, 6]],
        "ids": "shift",
        "ignore_colors": [[9, 9, 9]],
    }
    class_file = read(content).with_classes(["road", "sky"])
    assert class_file.classes == ("road", "sky") and meaning(class_file, 0, 1, 2, 3) == [
        255,
        1,
        0,
        None,
    ]
    assert class_file.colors.tolist() == [[4, 5, 6], [1, 2, 3]] and class_file.color_ids == {
        (1, 2, 3): 1,
        (4, 5, 6): 0,
        (9, 9, 9): 255,
    }
    larger = read(content).with_classes(["car", "road", "sky"])
    assert meaning(larger, 0, 1, 2) == [255, 2, 1] and larger.colors is None
    with pytest.raises(
        DataLayoutError,
        match=r"classes\.json: class 'sky' is not one of the 1 known classes \(road\)",
    ):
        read(content).with_classes(["road"])


def test_the_digest_changes_with_whatever_changes_a_mask(read):
    contents = [
        {"classes": ["a", "b"]},
        {"classes": ["b", "a"]},
        {"classes": ["a", "b"], "ignore_index": 9},
        {"classes": ["a", "b"], "ids": "shift"},
        {"classes": ["a", "b"], "ids": {"3": 0, "4": 1}},
        {"classes": ["a", "b"], "colors": [[1, 2, 3], [4, 5, 6]]},
        {"classes": ["a", "b"], "colors": [[1, 2, 3], [4, 5, 6]], "palette": "colors"},
        {"classes": ["a", "b"], "colors": [[1, 2, 3], [4, 5, 6]], "ignore_colors": "others"},
    ]
    assert len({read(content).digest() for content in contents}) == len(contents)


WRONG = {
    "not json": "{",
    r'holds 7, expected \{"classes": \[names\]\}': 7,
    '"classes" is missing': {},
    '"classes" is \\[\\], expected a list of names': {"classes": []},
    "unknown key 'colours'; valid are classes, ignore_index, ids": {
        "classes": ["a"],
        "colours": {},
    },
    "the name of class 1 is 3, expected text": {"classes": ["a", 3]},
    "two classes have the name 'a'": {"classes": ["a", "b", "a"]},
    "\"classes\" has the key 'x', expected values": {"classes": {"x": "a"}},
    '"classes" has the keys 1, 2, with "ids" they must be 0 to 1': {
        "classes": {"1": "a", "2": "b"},
        "ids": "shift",
    },
    '"ignore_index" is -1, expected 0 to 65535 or null': {"classes": ["a"], "ignore_index": -1},
    '"ignore_index" is True': {"classes": ["a"], "ignore_index": True},
    "\"ignore_index\" 0 is the value of class 'a' too": {"classes": ["a"], "ignore_index": 0},
    "\"ids\" is 'ade', expected": {"classes": ["a"], "ids": "ade"},
    "\"ids\" has the key '-1'": {"classes": ["a"], "ids": {"-1": 0}},
    "\"ids\" '5' is 3, expected a class id 0 to 0, a class or null": {
        "classes": ["a"],
        "ids": {"5": 3},
    },
    "\"ids\" '5' is \\[1\\], expected": {"classes": ["a"], "ids": {"5": [1]}},
    '"classes" must then be its 19': {"classes": ["a"], "ids": "cityscapes"},
    '"colors" has none for b': {"classes": ["a", "b"], "colors": {"a": [1, 2, 3]}},
    "\"colors\" names 'void', which is no class": {
        "classes": ["a"],
        "colors": {"a": [1, 2, 3], "void": [0, 0, 0]},
    },
    r"the color of 'a' is \[1, 2, 300\], expected \[r, g, b\]": {
        "classes": ["a"],
        "colors": {"a": [1, 2, 300]},
    },
    r'"colors": two classes have \[1, 2, 3\]': {
        "classes": ["a", "b"],
        "colors": [[1, 2, 3], [1, 2, 3]],
    },
    '"ignore_colors" without "colors"': {"classes": ["a"], "ignore_colors": "others"},
    "\"ignore_colors\" is 'all', expected": {
        "classes": ["a"],
        "colors": [[1, 2, 3]],
        "ignore_colors": "all",
    },
    "is the color of a class too": {
        "classes": ["a"],
        "colors": [[1, 2, 3]],
        "ignore_colors": [[1, 2, 3]],
    },
    '"palette" is \'colors\', expected "values"': {"classes": ["a"], "palette": "colors"},
}


@pytest.mark.parametrize(("expected", "content"), WRONG.items())
def test_what_is_wrong_is_one_line_with_the_file(read, expected, content):
    with pytest.raises(DataLayoutError, match=expected) as caught:
        read(content)
    assert caught.value.path.endswith("classes.json") and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataLayoutError, match=r"classes\.json: No such file"):
        read_class_file(tmp_path / "classes.json")
