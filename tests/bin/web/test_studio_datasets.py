"""Data sets below the roots of the studio: recognition, search and browsing."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from segments_files import small_instances, write_instances, write_panoptic

from visionloop.bin.model_zoo.listing import zoos_of
from visionloop.bin.web.tables import coco_files, data_sets, folders
from visionloop.bin.web.tables.data_sets import Budget
from visionloop.bin.web.tables.layouts import recognise
from visionloop.datasets.synthetic.writers import WRITERS

HOSTILE = "<img src=x onerror=alert(1)> 'é\n🎈"


@pytest.fixture
def data(root):
    return root.parent / "data"


def touch(folder, *names):
    """Make empty files: images are counted, not read."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def class_folders(folder, splits=("train", "val")):
    for split in splits:
        touch(folder / split, "cat/1.jpg", "cat/deep/2.PNG", "dog/3.jpeg", "dog/notes.txt")


def coco(folder, *splits):
    for split in splits:
        touch(folder / split, "1.jpg")
        content = {"images": [{"id": 1}], "annotations": [], "categories": [{}, {}]}
        (folder / f"{split}.json").write_text(json.dumps(content))


def only(folder):
    (data_set,) = recognise(folder, Budget(10_000, 10))
    return data_set


def test_layouts_of_one_task_are_recognised_and_counted(data):
    class_folders(data / "classes")
    coco(data / "coco", "train", "val")
    yolo = data / "yolo"
    touch(yolo, "images/train/1.jpg", "images/train/2.jpg", "images/val/3.jpg")
    (yolo / "data.yaml").write_text("names: [a, b, c]\ntrain: images/train\nval: images/val\n")
    touch(data / "masks", "images/train/1.jpg", "masks/train/1.png", "images/val/2.jpg")
    (data / "masks" / "classes.json").write_text('{"classes": ["sky", "road"]}')
    touch(data / "sr", "train/HR/1.png", "train/LR_x2/1.png", "val/HR/2.png")
    touch(data / "hr", "train/hr/1.png", "val/hr/2.png")

    def row(name):
        found = only(data / name)
        assert found.problem is None and found.is_complete
        return found.task_type, found.layout, dict(found.images), found.classes

    two = {"train": 1, "val": 1}
    assert row("classes") == (
        "image_classification",
        "class_folders",
        {"train": 3, "val": 3},
        2,
    )
    assert row("coco") == ("object_detection", "coco", two, 2)
    assert row("yolo") == ("object_detection", "yolo", {"train": 2, "val": 1}, 3)
    assert row("masks") == ("semantic_segmentation", "masks", two, 2)
    assert row("sr") == ("super_resolution", "hr_lr", two, None)
    assert row("hr") == ("super_resolution", "hr", two, None)


# outlines have boxes, and panoptic segments of things are objects
ALSO = {"instance_segmentation": ["detection"], "panoptic_segmentation": ["instance_segmentation"]}


def command_of(task_type):
    (zoo,) = zoos_of(task_type)
    return zoo.command


def rows(folder, budget=None):
    """Return {task type: (layout, images, classes)} of data sets without a problem."""
    found = recognise(folder, budget or Budget(10_000, 10))
    assert all(one.problem is None and one.is_complete for one in found), found
    return {one.task_type: (one.layout, dict(one.images), one.classes) for one in found}


def test_coco_jsons_are_data_sets_of_each_task_that_reads_them(data):
    for split in ("train", "val"):
        write_instances(data / "outlines", json_name=f"{split}.json", images=split)
        write_instances(data / "named", json_name=f"instances_{split}.json", images=split)
        write_panoptic(data / "panoptic", split=split)
        write_panoptic(data / "below", split=split, base="annotations")
        write_panoptic(data / "both", split=split)
        write_instances(
            data / "both", json_name=f"annotations/instances_{split}.json", images=split
        )

    instances = ("coco", {"train": 3, "val": 3}, 2)
    panoptic = {
        "instance_segmentation": ("coco_panoptic", {"train": 2, "val": 2}, 1),  # of things
        "panoptic_segmentation": ("coco_panoptic", {"train": 2, "val": 2}, 2),
    }
    detection = {"object_detection": instances}
    assert rows(data / "outlines") == detection | {"instance_segmentation": instances}
    assert rows(data / "named") == {"instance_segmentation": instances}  # no detector reads it
    assert rows(data / "panoptic") == panoptic
    assert rows(data / "below") == panoptic
    assert rows(data / "both") == detection | panoptic | {"instance_segmentation": instances}


def test_object_numbers_beside_masks_are_data_of_three_tasks(data):
    names = ("images/train/1.jpg", "masks/train/1.png", "instances/train/1.png", "images/val/1.jpg")
    for folder in ("things", "unmarked", "stuff"):
        touch(data / folder, *names)
    classes = {"classes": ["sky", "car", "dog"]}
    for folder, things in (("things", ["car", "dog"]), ("stuff", []), ("unmarked", None)):
        content = classes if things is None else classes | {"things": things}
        (data / folder / "classes.json").write_text(json.dumps(content))

    images = {"train": 1, "val": 1}
    semantic = {"semantic_segmentation": ("masks", images, 3)}
    instance, panoptic = "instance_segmentation", "panoptic_segmentation"
    assert rows(data / "things") == semantic | {
        instance: ("masks_instances", images, 2),
        panoptic: ("masks_instances", images, 3),
    }
    assert rows(data / "unmarked") == semantic | {instance: ("masks_instances", images, 3)}
    assert rows(data / "stuff") == semantic | {panoptic: ("masks_instances", images, 3)}


def test_a_json_is_read_once_for_all_tasks(data, monkeypatch):
    for split in ("train", "val"):
        write_instances(data, json_name=f"{split}.json", images=split)
    read, count = [], coco_files._count
    monkeypatch.setattr(coco_files, "_count", lambda path: read.append(path.name) or count(path))

    assert len(rows(data)) == 2
    assert sorted(read) == ["train.json", "val.json"]


def test_outlines_of_a_large_json_are_seen_without_reading_it(data, monkeypatch):
    content = small_instances()
    write_instances(data / "outlines", content)
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    write_instances(data / "boxes", content)
    monkeypatch.setattr(coco_files, "MAX_DESCRIPTION", 100)

    def types(name):
        found = recognise(data / name, Budget(1000, 10))
        assert not any(one.is_complete for one in found)
        return [one.task_type for one in found]

    assert types("outlines") == ["object_detection", "instance_segmentation"]
    assert types("boxes") == ["object_detection"]


def test_problems_of_panoptic_data_are_named(data):
    write_panoptic(data / "no-pngs")
    shutil.rmtree(data / "no-pngs" / "panoptic_train")
    write_panoptic(data / "broken").write_text("{")
    write_instances(data / "broken-instances", json_name="instances_train.json").write_text("{")

    def why(name):
        found = recognise(data / name, Budget(1000, 10))
        return {one.task_type: one.why for one in found}

    for name in ("no-pngs", "broken"):
        assert set(why(name)) == {"instance_segmentation", "panoptic_segmentation"}
    assert "no folder panoptic_train" in why("no-pngs")["panoptic_segmentation"]
    assert "panoptic_train.json: not a json file" in why("broken")["panoptic_segmentation"]
    assert list(why("broken-instances")) == ["instance_segmentation"]


def test_sample_data_of_every_task_is_recognised(data):
    for number, (task, write) in enumerate(WRITERS.items()):
        folder = data / task
        folder.mkdir()
        write(folder, number, images={"train": 6, "val": 3})

        commands = {command_of(one.task_type): one for one in recognise(folder, Budget(10_000, 10))}
        assert set(commands) == {task, *ALSO.get(task, ())}
        for found in commands.values():
            assert found.images == {"train": 6, "val": 3} and found.problem is None


def test_folders_without_a_layout_are_no_data_sets(data):
    touch(data / "loose", "1.jpg", "2.jpg")
    touch(data / "empty", "train/.hidden/1.jpg", "train/notes/readme.txt")
    (data / "file").touch()

    for name in ("loose", "empty", "file", "absent"):
        assert recognise(data / name, Budget(1000, 10)) == []


def test_problems_of_a_data_set_are_named(data):
    class_folders(data / "no-val", splits=("train",))
    class_folders(data / "twice", splits=("train", "val", "valid"))
    coco(data / "broken", "train", "val")
    (data / "broken" / "train.json").write_text('{"images": 3')
    coco(data / "no-lists", "train", "val")
    (data / "no-lists" / "train.json").write_text('{"images": 3, "categories": []}')
    touch(data / "no-classes", "images/train/1.jpg", "masks/train/1.png")

    problems = {name: only(data / name) for name in os.listdir(data)}
    assert problems["no-val"].problem == data_sets.NO_VALIDATION
    assert "both" in problems["twice"].why
    assert "train.json: not a json file" in problems["broken"].why
    assert "train.json: not a COCO json" in problems["no-lists"].why
    assert "classes.json: no such file" in problems["no-classes"].why
    wrong = [name for name, row in problems.items() if row.problem == data_sets.WRONG_LAYOUT]
    assert sorted(wrong) == ["broken", "no-classes", "no-lists", "twice"]


def test_counts_above_the_limit_say_that_they_are_not_complete(data):
    touch(data, *(f"train/a/{i}.jpg" for i in range(50)), "val/a/1.jpg")

    (found,) = recognise(data, Budget(20, 10))
    assert not found.is_complete
    assert 0 < found.images["train"] < 50
    assert only(data).is_complete


def test_a_link_that_leads_back_is_counted_once(data):
    class_folders(data)
    (data / "train" / "cat" / "loop").symlink_to(data / "train")

    assert only(data).images["train"] == 3


def test_the_search_finds_data_sets_at_some_depth_and_none_inside_another(get, data):
    class_folders(data / "a" / "b")
    coco(data / "a" / "b" / "train" / "cat" / "nested", "train")
    coco(data / "run" / "x", "train")
    touch(data / "run", "settings.json", "status.json")
    class_folders(data / "1" / "2" / "3" / "4" / "5")

    found = get("/datasets")
    assert [row["path"] for row in found["datasets"]] == [str(data / "a" / "b")]
    assert not found["complete"]
    assert found["datasets"][0]["images"] == 7
    assert found["datasets"][0]["splits"] == {"train": 4, "val": 3}


def test_the_search_ends_at_its_limit_and_says_so(data, monkeypatch):
    for i in range(20):
        (data / str(i)).mkdir()
    monkeypatch.setattr(folders, "MAX_FOLDERS", 10)

    assert not folders.search([data]).is_complete


def test_links_out_of_the_roots_are_neither_searched_nor_listed_nor_opened(get, data, tmp_path):
    class_folders(tmp_path / "outside")
    (data / "link").symlink_to(tmp_path / "outside")

    assert get("/datasets")["datasets"] == []
    assert get("/folders", path=str(data))["folders"] == []
    assert get("/folders", status=403, path=str(data / "link"))["code"] == "outside_roots"
    assert get("/folders", status=403, path="/")["field"] == "path"


def test_folders_are_browsed_from_the_list_of_roots(get, data):
    class_folders(data / "classes")
    (data / "empty").mkdir()

    roots = get("/folders")
    assert [row["path"] for row in roots["folders"]] == [str(data)]
    assert (roots["path"], roots["parent"]) == ("", None)
    top = get("/folders", path=str(data))
    assert [(row["name"], row["task_types"]) for row in top["folders"]] == [
        ("classes", ["image_classification"]),
        ("empty", []),
    ]
    assert top["parent"] == ""
    inside = get("/folders", path=str(data / "classes"))
    assert inside["parent"] == str(data)
    assert inside["recognised"][0]["layout"] == "class_folders"
    assert get("/folders", status=404, path=str(data / "absent"))["field"] == "path"


def test_hostile_names_are_data(get, data):
    class_folders(data / HOSTILE)
    coco(data / "b\n", "train")
    (data / "b\n" / "train.json").write_text("{")
    os.makedirs(os.path.join(os.fsencode(data), b"\xff\xfe", b"train", b"x"))
    os.symlink(b"\xff\xfe", os.path.join(os.fsencode(data), b"link"))

    rows = {row["name"]: row for row in get("/datasets")["datasets"]}
    assert set(rows) == {HOSTILE, "b\n"}
    assert "\n" not in rows["b\n"]["warning"]
    assert [row["name"] for row in get("/folders", path=str(data))["folders"]] == [
        HOSTILE,
        "b\n",
        "link",
    ]
    assert get("/folders", status=422, path=str(data / "link"))["field"] == "path"


def test_recognition_imports_no_torch(data):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from visionloop.bin.web.tables.folders import search\n"
        f"search([Path({str(data)!r})])\nprint('torch' in sys.modules)"
    )
    coco(data / "coco", "train", "val")
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "False", done.stderr
