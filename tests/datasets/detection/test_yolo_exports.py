"""YOLO folders as tools and habits leave them: keypoints, extra numbers, lost label files."""

import numpy as np
import pytest
from PIL import Image

from visionloop.datasets.detection.yolo import inspect_yolo, read_yolo
from visionloop.datasets.io.layout import DataLayoutError

BOXES = [(0.25, 0.75, 0.1, 0.2), (0.8, 0.7, 0.3, 0.2), (0.3, 0.2, 0.05, 0.3)]
YAML = "names: [cat]\ntrain: images/train\n"


@pytest.fixture
def yolo(tmp_path):
    """Write images of 100 x 100 px and texts; the path of data.yaml."""

    def write(texts, images=("a.jpg",), yaml=YAML):
        for name in images:
            path = tmp_path / "images" / "train" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((100, 100, 3), dtype=np.uint8)).save(path)
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "data.yaml").write_text(yaml)
        return tmp_path / "data.yaml"

    return write


def pixels(boxes):
    return np.round(
        [[100 * (x - w / 2), 100 * (y - h / 2), 100 * w, 100 * h] for x, y, w, h in boxes], 6
    ).tolist()


def lines(boxes, *more):
    return "".join(f"0 {' '.join(map(str, (*box, *more)))}\n" for box in boxes)


def with_keypoints(boxes, count, visible=None):
    """Lines with keypoints inside of each box."""
    text = ""
    for x, y, width, height in boxes:
        keypoints = []
        for k in range(count):
            keypoints += [x + width * (k / count - 0.4), y + height * (0.3 - k / count / 2)]
            keypoints += [] if visible is None else [visible]
        text += lines([(x, y, width, height)], *keypoints)
    return text


def read(yaml_file):
    index, problems = inspect_yolo(yaml_file, "train")
    return np.round(index.boxes, 6).tolist(), [row for row in problems if row[0] != "warning"]


@pytest.mark.parametrize(("count", "visible"), [(1, None), (4, None), (17, 2), (2, 1), (5, 0)])
def test_keypoints_behind_the_box_are_dropped_when_kpt_shape_names_them(yolo, count, visible):
    numbers = 2 if visible is None else 3
    yaml = f"{YAML}kpt_shape: [{count}, {numbers}]\n"
    texts = {"labels/train/a.txt": with_keypoints(BOXES, count, visible)}
    assert read(yolo(texts, yaml=yaml)) == (pixels(BOXES), [])
    texts = {"labels/train/a.txt": lines(BOXES)}
    assert read(yolo(texts, yaml=yaml)) == (pixels(BOXES), [])


def test_a_line_that_does_not_fit_kpt_shape_is_never_an_outline(yolo):
    texts = {"labels/train/a.txt": "0 0.1 0.1 0.5 0.1 0.5 0.5\n"}
    with pytest.raises(DataLayoutError, match=r"7 numbers, expected are 5 .* or 13 with keypoints"):
        read_yolo(yolo(texts, yaml=f"{YAML}kpt_shape: [4, 2]\n"), "train")


@pytest.mark.parametrize("shape", ["4", "[4]", "[4, 5]", "[-1, 2]", "[a, 2]", "[4, 2, 1]"])
def test_a_wrong_kpt_shape_is_named(yolo, shape):
    yaml_file = yolo({"labels/train/a.txt": ""}, yaml=f"{YAML}kpt_shape: {shape}\n")
    with pytest.raises(DataLayoutError, match=r"kpt_shape is .*expected \[keypoints, 2 or 3\]"):
        read_yolo(yaml_file, "train")


@pytest.mark.parametrize(
    ("count", "visible", "shape"), [(1, None, "1, 2"), (4, None, "4, 2"), (4, 1, "4, 3")]
)
def test_keypoints_without_kpt_shape_are_ambiguous(yolo, count, visible, shape):
    texts = {"labels/train/a.txt": with_keypoints(BOXES, count, visible)}
    columns = 5 + count * (2 if visible is None else 3)
    _, ((kind, _, why),) = read(yolo(texts))
    assert kind == "error" and f"3 lines of {columns} numbers are ambiguous" in why
    assert f"add kpt_shape: [{shape}] for keypoints or kpt_shape: [0, 2] for outlines" in why
    assert read(yolo(texts, yaml=f"{YAML}kpt_shape: [0, 2]\n"))[1] == []


def test_visibilities_are_recognized_in_the_message(yolo):
    texts = {"labels/train/a.txt": with_keypoints(BOXES, 17, 2)}
    with pytest.raises(DataLayoutError, match=r"add kpt_shape: \[17, 3\] to data\.yaml"):
        read_yolo(yolo(texts), "train")
    texts = {"labels/train/a.txt": with_keypoints(BOXES, 4, 2)}
    with pytest.raises(DataLayoutError, match=r"2 is no share .* add kpt_shape: \[4, 3\]"):
        read_yolo(yolo(texts), "train")


def test_rotated_boxes_and_outlines_of_one_length_stay_outlines(yolo):
    generator = np.random.default_rng(0)
    for corners in (3, 4, 5, 8):
        text = ""
        for _ in range(60):
            center, radius = generator.uniform(0.1, 0.9, 2), generator.uniform(0.01, 0.1)
            start = generator.uniform(0, 2 * np.pi)
            angles = start + np.linspace(0, 2 * np.pi, corners, endpoint=False)
            outline = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            text += f"0 {' '.join(f'{value:.5f}' for value in outline.ravel())}\n"
        boxes, problems = read(yolo({"labels/train/a.txt": text}))
        assert len(boxes) == 60 and problems == []


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ((0.93,), "6 numbers, .*a confidence behind the box must be removed"),
        ((0.93, 7), "7 is no share .*a confidence and the number of a track behind the box"),
    ],
)
def test_predictions_as_labels_are_named(yolo, more, why):
    with pytest.raises(DataLayoutError, match=why):
        read_yolo(yolo({"labels/train/a.txt": lines(BOXES, *more)}), "train")


def test_tracks_that_are_all_the_first_are_no_triangles(yolo):
    texts = {"labels/train/a.txt": lines(BOXES, 0.93, 1) * 3}
    with pytest.raises(DataLayoutError, match=r"all end in 0 or 1: remove .* number of a track"):
        read_yolo(yolo(texts), "train")


def test_two_images_with_one_label_file_are_named(yolo):
    yaml_file = yolo({"labels/train/a.txt": lines(BOXES)}, ("a.jpg", "a.png", "b.jpg"))
    with pytest.raises(DataLayoutError) as caught:
        read_yolo(yaml_file, "train")
    assert "images/train/a.jpg and images/train/a.png: have one label file" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["labels/train/a.txt", "labels/train/a.jpg.txt", "images/train/a.txt"]
)
def test_a_label_file_is_found_under_its_other_names(yolo, name):
    boxes, problems = read(yolo({name: lines(BOXES)}))
    assert boxes == pixels(BOXES) and problems == []


def test_label_files_in_two_places_are_read_with_a_note(yolo):
    texts = {"labels/train/a.txt": lines(BOXES), "images/train/b.txt": lines(BOXES[:1])}
    index = read_yolo(yolo(texts, ("a.jpg", "b.jpg")), "train")
    assert len(index.boxes) == 4
    assert index.notes == (
        "1 of 2 label files lie beside their images, not in labels/: images/train/b.txt",
    )


def test_many_images_without_a_label_file_are_a_note_with_number_share_and_name(yolo):
    images = [f"{k:02}.jpg" for k in range(10)]
    texts = {"labels/train/00.txt": lines(BOXES), "labels/train/x.txt": ""}
    index = read_yolo(yolo(texts, images), "train")
    assert index.notes == (
        "9 of 10 images (90 %) have no label file and count as images without boxes: "
        "images/train/01.jpg, images/train/02.jpg, ...; expected labels/train/01.txt; "
        "texts of no image there: x.txt",
    )
    texts |= {f"labels/train/{k:02}.txt": "" for k in range(1, 9)}
    assert read_yolo(yolo(texts, images), "train").notes == ()


@pytest.mark.parametrize(
    "entry",
    [
        "images\\train",
        "..\\images\\train",
        "D:\\data\\set\\images\\train",
        "/mnt/bob/set/images/train",
        "../../set/images/train",
        "Images/Train",
    ],
)
def test_a_folder_as_another_machine_called_it_is_found(yolo, entry):
    yaml_file = yolo({"labels/train/a.txt": lines(BOXES)}, yaml=f"names: [cat]\ntrain: {entry}\n")
    assert read(yaml_file) == (pixels(BOXES), [])


@pytest.mark.parametrize(
    "line",
    [
        "/content/set/images/train/a.jpg",
        "C:\\set\\images\\train\\a.jpg",
        "images/train/a.jpg",
        "data/images/train/a.jpg",
    ],
)
def test_a_list_of_another_machine_names_the_same_images(yolo, line):
    texts = {"lists/train.txt": f"{line}\n", "labels/train/a.txt": lines(BOXES)}
    yaml_file = yolo(texts, yaml="names: [cat]\ntrain: lists/train.txt\n")
    assert read(yaml_file) == (pixels(BOXES), [])


def test_a_folder_elsewhere_that_exists_is_refused(yolo, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("other") / "images" / "train"
    elsewhere.mkdir(parents=True)
    yaml_file = yolo(
        {"labels/train/a.txt": lines(BOXES)}, yaml=f"names: [cat]\ntrain: {elsewhere}\n"
    )
    with pytest.raises(DataLayoutError, match="leads out of"):
        read_yolo(yaml_file, "train")


def test_names_of_classes_lose_their_line_breaks_and_ids_may_be_text(yolo):
    yaml = 'names: {"0": "cat\\n", "1": dog}\ntrain: images/train\n'
    index = read_yolo(yolo({"labels/train/a.txt": lines(BOXES)}, yaml=yaml), "train")
    assert index.classes == ("cat", "dog")
