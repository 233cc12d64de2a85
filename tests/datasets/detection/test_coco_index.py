"""COCO json to columnar index, and every error of a file in one line."""

import json

import numpy as np
import pytest
from detection_files import small_coco, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from visionloop.datasets.detection.index import find_problems, inspect_coco, read_coco
from visionloop.datasets.io.layout import DataLayoutError


@pytest.fixture
def check(tmp_path):
    """content -> [(kind, why)] of find_problems, for a json with its images.

    The note about the crowd of small_coco is left out.
    """

    def problems(content, classes=None):
        json_file = tmp_path / "train.json"
        json_file.write_text(content if isinstance(content, str) else json.dumps(content))
        problems = find_problems(json_file, tmp_path / "train", classes)
        assert all("\n" not in why and path == str(json_file) for _, path, why in problems)
        return [(kind, why) for kind, _, why in problems if "boxes are crowds" not in why]

    write_coco(tmp_path)
    return problems


def rows(index):
    """[(name, image id, size, [(box, class, crowd, area)])] of an index."""
    problems = []
    for i in range(len(index)):
        boxes, labels, crowd, areas = (column.tolist() for column in index.boxes_of(i))
        names = [index.classes[label] for label in labels]
        annotations = list(zip(boxes, names, crowd, areas, strict=True))
        problems.append(
            (index.name(i), index.image_ids[i].item(), index.sizes_hw[i].tolist(), annotations)
        )
    return problems


def test_the_index_holds_what_the_json_says(tmp_path):
    index = read_coco(write_coco(tmp_path), tmp_path / "train")
    assert index.classes == ("cat", "dog") and index.category_ids == (2, 9)
    assert rows(index) == [
        (
            "a.png",
            7,
            [30, 40],
            [([5, 5, 10, 10], "cat", False, 100), ([0, 0, 40, 30], "dog", True, 1000)],
        ),
        (
            "b.png",
            3,
            [24, 20],
            [([1, 2, 10, 12.5], "dog", False, 99), ([15, 20, 5, 4], "cat", False, 20)],
        ),
        ("c.png", 5, [16, 16], []),
    ]
    assert index.path(1) == str(tmp_path / "train" / "b.png")
    kinds = {
        name: getattr(index, name).dtype
        for name in ("image_ids", "sizes_hw", "offsets", "boxes", "labels", "crowd", "areas")
    }
    assert kinds == {
        "image_ids": np.int64,
        "sizes_hw": np.int64,
        "offsets": np.int64,
        "boxes": np.float64,
        "labels": np.int32,
        "crowd": np.bool_,
        "areas": np.float64,
    }


def test_a_json_without_problems_has_none(check):
    assert check(small_coco()) == []


SIDES = st.integers(1, 30)
BOXES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), SIDES, SIDES, st.sampled_from([None, 0, 1])),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(boxes=BOXES, as_text=st.booleans(), seed=st.integers(0, 99))
def test_the_index_agrees_with_pycocotools(tmp_path_factory, boxes, as_text, seed):
    generator = np.random.default_rng(seed)

    def ids(count):
        numbers = generator.choice(1000, count, replace=False).tolist()
        return [f"id {number}" for number in numbers] if as_text else numbers

    image_ids, category_ids = ids(4), ids(5)
    content = {
        "images": [
            {"id": key, "file_name": f"{n}.jpg", "width": 100, "height": 90}
            for n, key in enumerate(image_ids)
        ],
        "categories": [{"id": key, "name": f"class {key}"} for key in category_ids],
        "annotations": [
            {
                "id": n + 1,
                "image_id": image_ids[i],
                "category_id": category_ids[c],
                "bbox": [1, 2, w, h],
                "area": w * h,
            }
            | ({} if flag is None else {"iscrowd": flag})
            for n, (i, c, w, h, flag) in enumerate(boxes)
        ],
    }
    json_file = tmp_path_factory.mktemp("coco") / "x.json"
    json_file.write_text(json.dumps(content))
    index, theirs = read_coco(json_file, json_file.parent, need_images=False), COCO(json_file)
    assert (
        list(index.category_ids) == sorted(category_ids) and index.image_ids.tolist() == image_ids
    )
    for i, key in enumerate(image_ids):
        expected = theirs.imgToAnns[key]
        boxes_xywh, labels, crowd, _ = index.boxes_of(i)
        assert boxes_xywh.tolist() == [each["bbox"] for each in expected]
        assert [index.category_ids[label] for label in labels] == [
            each["category_id"] for each in expected
        ]
        assert crowd.tolist() == [bool(each.get("iscrowd", 0)) for each in expected]


def test_labels_of_another_split_go_by_name(tmp_path):
    content = small_coco()
    content["categories"] = [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}]
    index = read_coco(
        write_coco(tmp_path, content), tmp_path / "train", classes=("bird", "cat", "dog")
    )
    assert index.classes == ("bird", "cat", "dog") and index.category_ids == (None, 9, 2)
    assert [label for _, _, _, boxes in rows(index) for _, label, _, _ in boxes] == [
        "dog",
        "cat",
        "cat",
        "dog",
    ]


def test_a_class_that_training_does_not_know_is_an_error(check):
    assert check(small_coco(), classes=["cat"]) == [
        ("error", "category 'dog': not one of the 1 known classes (cat)")
    ]


@settings(max_examples=30, deadline=None)
@given(chosen=st.lists(st.integers(0, 2), max_size=6))
def test_a_subset_is_the_images_asked_for_with_their_boxes(index, chosen):
    subset = index.subset(chosen)
    assert rows(subset) == [rows(index)[row] for row in chosen]
    assert (subset.fingerprint() == index.fingerprint()) == (chosen == [0, 1, 2])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return read_coco(write_coco(folder), folder / "train")


def test_the_fingerprint_changes_with_every_column_but_not_with_the_place(index, tmp_path):
    def fingerprint(change, name):
        content = small_coco()
        change(content)
        return read_coco(
            write_coco(tmp_path / name, content), tmp_path / name / "train"
        ).fingerprint()

    assert fingerprint(lambda content: None, "copy") == index.fingerprint()
    changes = [
        lambda content: content["annotations"][0].update(bbox=[1, 2, 10, 12]),
        lambda content: content["annotations"][0].update(iscrowd=1),
        lambda content: content["annotations"][0].update(category_id=2),
        lambda content: content["annotations"][0].update(image_id=7),
        lambda content: content["annotations"][0].update(area=98),
        lambda content: content["images"][2].update(width=17),
        lambda content: content["images"][2].update(file_name="d.png"),
        lambda content: content["categories"][0].update(name="wolf"),
        lambda content: content["images"].reverse(),
    ]
    assert (
        len(
            {fingerprint(change, str(n)) for n, change in enumerate(changes)}
            | {index.fingerprint()}
        )
        == len(changes) + 1
    )


def test_a_box_costs_tens_of_bytes(index):
    columns = (index.boxes, index.labels, index.crowd, index.areas)
    assert sum(column.nbytes for column in columns) / len(index.boxes) < 50


def drop(*path):
    *parents, last = path

    def change(content):
        for step in parents:
            content = content[step]
        del content[last]

    return change


def put(value, *path):
    *parents, last = path

    def change(content):
        for step in parents:
            content = content[step]
        content[last] = value

    return change


BROKEN = [
    (put({}, "images"), "section 'images' is {}, expected a list"),
    (drop("annotations"), "no section 'annotations'"),
    (put([], "images"), "section 'images' is empty"),
    (put([], "categories"), "section 'categories' is empty"),
    (put(5, "annotations", 2), "annotations: entry 2: is 5, not an object"),
    (put("x", "images", 2), "images: entry 2: is 'x', not an object"),
    (put(3, "images", 2, "id"), "image 3: the id is there twice, again at position 2"),
    (
        lambda content: content["categories"].append({"id": 9, "name": "bird"}),
        "category 9: the id is there twice, again at position 2",
    ),
    (drop("images", 1, "id"), "image at position 1: id is missing"),
    (put([1], "images", 1, "id"), "image at position 1: id is \\[1\\]"),
    (put(2**70, "images", 1, "id"), "image at position 1: id is 11805"),
    (put("seven", "images", 0, "id"), "some image ids are numbers and others text \\('seven'\\)"),
    (put("cat", "categories", 0, "name"), "categories 9 and 2: both have the name 'cat'; rename"),
    (put(None, "categories", 0, "name"), "category 9: name is missing"),
    (drop("images", 0, "file_name"), "image 7: file_name is missing"),
    (put("", "images", 0, "file_name"), "image 7: file_name is ''"),
    (put("/tmp/a.png", "images", 0, "file_name"), "image 7: file_name '/tmp/a.png' is absolute"),
    (
        put("sub/../../a.png", "images", 0, "file_name"),
        "image 7: file_name 'sub/../../a.png' leads out of the folder",
    ),
    (put("a\0.png", "images", 0, "file_name"), "image 7: file_name holds a zero byte"),
    (
        put("\ud800.png", "images", 0, "file_name"),
        "image 7: file_name '.*' is no text that a file can have",
    ),
    (put("gone.png", "images", 0, "file_name"), "1 of 3 images are not in .*train: gone.png"),
    (put(-1, "images", 0, "width"), "image 7: height is 30 and width -1"),
    (put("40", "images", 0, "width"), "image 7: height is 30 and width '40'"),
    (put(1e300, "images", 0, "height"), "image 7: height is 1e\\+300 and width 40"),
    (put(99, "annotations", 1, "image_id"), "annotation 2: image_id 99 is no image's id"),
    (put("7", "annotations", 1, "image_id"), "annotation 2: image_id '7' is no image's id"),
    (put([7], "annotations", 1, "image_id"), "annotation 2: image_id \\[7\\] is no image's id"),
    (
        drop("annotations", 1, "category_id"),
        "annotation 2: category_id missing is no category's id",
    ),
    (put(0, "annotations", 1, "category_id"), "annotation 2: category_id 0 is no category's id"),
    (drop("annotations", 0, "bbox"), "annotation 1: bbox is missing, not four finite numbers"),
    (put([1, 2, 3], "annotations", 0, "bbox"), "annotation 1: bbox is \\[1, 2, 3\\], not four"),
    (put([1, 2, 3, "4"], "annotations", 0, "bbox"), "annotation 1: bbox is .* not four"),
    (
        put([1, 2, 3, float("nan")], "annotations", 0, "bbox"),
        "annotation 1: bbox is .*nan.* not four",
    ),
    (
        put([1, 2, 3, float("inf")], "annotations", 0, "bbox"),
        "annotation 1: bbox is .*inf.* not four",
    ),
    (put([1, 2, 3, 10**400], "annotations", 0, "bbox"), "annotation 1: bbox is .* not four"),
    (put({"x": 1}, "annotations", 0, "bbox"), "annotation 1: bbox is .* not four"),
    (put(2, "annotations", 0, "iscrowd"), "annotation 1: iscrowd is 2, neither 0 nor 1"),
    (put("no", "annotations", 0, "iscrowd"), "annotation 1: iscrowd is 'no', neither 0 nor 1"),
    (put(-1, "annotations", 0, "area"), "annotation 1: area is -1, not a number of at least 0"),
    (put([4], "annotations", 0, "area"), "annotation 1: area is \\[4\\], not a number"),
]


@pytest.mark.parametrize(("change", "why"), BROKEN)
def test_what_is_wrong_is_reported_once_and_by_name(check, tmp_path, change, why):
    content = small_coco()
    change(content)
    errors = [text for kind, text in check(content) if kind == "error"]
    assert len(errors) == 1
    with pytest.raises(DataLayoutError, match=why) as caught:
        read_coco(tmp_path / "train.json", tmp_path / "train")
    assert caught.value.why == errors[0] and caught.value.path == str(tmp_path / "train.json")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not json: "),
        ('{"images": [', "not json: "),
        ("[" * 100_000, "not json: "),
        ('{"images": ' + "1" * 5000 + "}", "not json: "),
        ("[]", "holds \\[\\], expected an object with images, annotations, categories"),
    ],
)
def test_a_file_that_is_no_coco_json_is_reported(check, tmp_path, text, why):
    assert [kind for kind, _ in check(text)] == ["error"]
    with pytest.raises(DataLayoutError, match=why):
        read_coco(tmp_path / "train.json", tmp_path / "train")


def test_a_file_that_is_no_text_or_not_there_is_reported(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\xfa\x80\x81")
    with pytest.raises(DataLayoutError, match=r"x\.json: not json"):
        read_coco(tmp_path / "x.json", tmp_path)
    with pytest.raises(DataLayoutError, match=r"gone\.json: No such file"):
        read_coco(tmp_path / "gone.json", tmp_path)


def test_many_of_a_kind_are_one_line_with_their_number(check):
    content = small_coco()
    for annotation in content["annotations"]:
        annotation["bbox"] = [1]
    (only,) = [why for kind, why in check(content) if kind == "error"]
    assert (
        only == "annotation 1: bbox is [1], not four finite numbers "
        "(4 such, also annotation 2, annotation 3, annotation 4)"
    )


def test_everything_wrong_is_reported_at_once(check):
    content = small_coco()
    content["annotations"][0]["image_id"] = 99
    content["annotations"][1]["bbox"] = None
    content["annotations"][3]["bbox"] = [18, 20, 5, 4]
    content["images"][2]["file_name"] = "gone.png"
    content["images"][0]["height"] = -1
    problems = check(content)
    assert [kind for kind, _ in problems].count("error") == 4
    assert any(
        "1 boxes reach outside their image, by up to 3 pixels; they are clipped: b.png" in why
        for _, why in problems
    )


WARNED = [
    (
        put([5, 5, 0, 10], "annotations", 1, "bbox"),
        "1 boxes without width or height, they are left out: a.png",
    ),
    (
        put([35, 5, 10, 10], "annotations", 1, "bbox"),
        "1 boxes reach outside their image, by up to 5 pixels; they are clipped: a.png",
    ),
    (
        put([-4, 5, 10, 10], "annotations", 1, "bbox"),
        "1 boxes reach outside their image, by up to 4 pixels; they are clipped: a.png",
    ),
    (
        lambda content: content["categories"].append({"id": 1, "name": "bird"}),
        "no boxes of 1 of 3 classes: bird",
    ),
    (
        lambda content: content["annotations"].append(content["annotations"][0]),
        "1 boxes repeat another of the same class and place: b.png",
    ),
    (put("b.png", "images", 2, "file_name"), "1 images are listed twice or more: b.png"),
]


@pytest.mark.parametrize(("change", "why"), WARNED)
def test_what_is_odd_but_usable_is_a_warning(check, tmp_path, change, why):
    content = small_coco()
    change(content)
    assert [row[1] for row in check(content) if row[0] != "error"] == [why]
    assert len(read_coco(tmp_path / "train.json", tmp_path / "train")) == 3


def test_corners_written_as_sizes_are_recognized(check):
    content = small_coco()
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x + 2, y + 2, x + width, y + height]
    content["annotations"].pop(2)
    content["annotations"][1]["bbox"] = [25, 20, 35, 29]
    assert [(kind, why.split(":")[0]) for kind, why in check(content)] == [
        ("error", "bbox looks like [x1, y1, x2, y2], expected is [x, y, width, height]")
    ]


def test_shares_of_the_image_are_recognized(check):
    content = small_coco()
    for annotation in content["annotations"]:
        annotation["bbox"] = [0.1, 0.2, 0.5, 0.25]
    problems = check(content)
    assert [kind for kind, _ in problems] == [
        "error"
    ] and "no number of any bbox is above 0.5" in problems[0][1]


def test_images_need_not_be_there_when_only_annotations_are_needed(tmp_path):
    json_file = write_coco(tmp_path)
    assert len(read_coco(json_file, tmp_path / "nowhere", need_images=False)) == 3
    with pytest.raises(DataLayoutError, match="3 of 3 images are not in"):
        read_coco(json_file, tmp_path / "nowhere")


def test_sizes_may_be_missing(check, tmp_path):
    content = small_coco()
    for image in content["images"]:
        del image["width"], image["height"]
    assert check(content) == []
    assert read_coco(tmp_path / "train.json", tmp_path / "train").sizes_hw.tolist() == [[0, 0]] * 3


def test_outlines_and_boolean_values_are_accepted(check, tmp_path):
    content = small_coco()
    content["annotations"][0] |= {"segmentation": [[1, 2, 3, 4, 5, 6]], "iscrowd": False}
    content["annotations"][2] |= {
        "segmentation": {"counts": [1, 2], "size": [30, 40]},
        "iscrowd": True,
    }
    assert check(content) == []
    assert read_coco(tmp_path / "train.json", tmp_path / "train").crowd.tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_names_are_looked_for_in_the_folder_that_holds_them(tmp_path):
    json_file = write_coco(tmp_path, images="elsewhere")
    index = read_coco(json_file, [tmp_path / "train", tmp_path / "elsewhere", tmp_path])
    assert index.folder == str(tmp_path / "elsewhere")


def test_real_annotations_agree_with_pycocotools(real_data):
    data = real_data("bccd")
    index, problems = inspect_coco(data / "train.json", data / "train")
    theirs = COCO(data / "train.json")
    assert [problem for problem in problems if problem[0] == "error"] == []
    assert (len(index), len(index.boxes), index.classes) == (205, 2804, ("RBC", "WBC", "Platelets"))
    for i, key in enumerate(index.image_ids.tolist()):
        assert index.name(i) == theirs.imgs[key]["file_name"]
        assert index.boxes_of(i)[0].tolist() == [each["bbox"] for each in theirs.imgToAnns[key]]
