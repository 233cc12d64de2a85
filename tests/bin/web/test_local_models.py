"""Models that are found below the roots."""

import json

import pytest

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.tables.local_models import (
    MAX_DEPTH,
    TASK_NAMES,
    find_local_models,
    task_of,
)


def write_folder(folder, architecture="ViTForImageClassification", weights="model.safetensors"):
    """Write a model folder without content; return it."""
    folder.mkdir(parents=True)
    config = {"architectures": [architecture], "model_type": "vit", "id2label": {0: "a", 1: "b"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / weights).write_bytes(b"")
    return folder


def names(*roots):
    return sorted(model.name for model in find_local_models(roots))


def test_best_weights_of_a_run_come_with_its_name_and_score(tmp_path):
    run = tmp_path / "flowers"
    write_folder(run / "best")
    write_folder(run / "checkpoints/step-10")
    best = {"metric": "accuracy", "score": 0.75, "step": 10, "scores": {}}
    (run / "status.json").write_text(json.dumps({"state": "finished", "best": best}))
    (model,) = find_local_models([tmp_path])
    assert (model.name, model.source, model.run_id) == ("flowers", "run", run_id(run))
    assert (model.metric, model.score, model.num_classes) == ("accuracy", 0.75, 2)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("ResNetForImageClassification", "classification"),
        ("DFineForObjectDetection", "detection"),
        ("EomtForUniversalSegmentation", "segmentation"),  # or another one: see below
        ("Swin2SRForImageSuperResolution", "super_resolution"),
    ],
)
def test_the_task_is_that_of_the_architecture(tmp_path, architecture, task):
    write_folder(tmp_path / "model", architecture)
    assert [model.task for model in find_local_models([tmp_path])] == [task]


@pytest.mark.parametrize(
    ("splits_image", "is_thing", "classes", "task"),
    [
        (True, None, 150, "segmentation"),
        (True, [1, 0], 2, "segmentation"),  # trained from a panoptic model
        (False, [1, 1], 2, "instance_segmentation"),
        (False, [1, 0], 2, "panoptic_segmentation"),
        (False, None, 80, "instance_segmentation"),
        (False, None, 133, "panoptic_segmentation"),
        (False, None, 150, "panoptic_segmentation"),
    ],
)
def test_image_processor_and_things_tell_the_kind_of_segmentation(
    tmp_path, splits_image, is_thing, classes, task
):
    folder = write_folder(tmp_path / "model", "EomtForUniversalSegmentation")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {i: f"class {i}" for i in range(classes)}
    if is_thing:
        config["is_thing"] = is_thing
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.dumps({"do_split_image": splits_image})
    (folder / "preprocessor_config.json").write_text(processor)
    assert task_of(folder) == task


def test_best_weights_have_the_task_of_their_run(tmp_path):
    best = write_folder(tmp_path / "run/best", "EomtForUniversalSegmentation")
    settings = {"settings": {"task": {"value": "panoptic_segmentation", "source": "resolved"}}}
    (tmp_path / "run/settings.json").write_text(json.dumps(settings))
    assert task_of(best) == "panoptic_segmentation"
    settings["settings"]["task"]["value"] = "unknown"
    (tmp_path / "run/settings.json").write_text(json.dumps(settings))
    assert task_of(best) == "segmentation"


def test_every_task_of_the_model_zoo_has_a_name():
    assert set(TASK_NAMES) == {zoo.command for zoo in MODEL_ZOOS}


def test_models_of_other_tasks_and_pickles_are_left_out(tmp_path):
    write_folder(tmp_path / "text", "BertForMaskedLM")
    write_folder(tmp_path / "pickled", weights="pytorch_model.bin")
    write_folder(tmp_path / "sharded", weights="model.safetensors.index.json")
    write_folder(tmp_path / ".hidden")
    assert names(tmp_path) == ["sharded"]


@pytest.mark.parametrize(
    "config", ["", "[]", "[" * 100_000, '{"architectures": 3}', '{"architectures": [{}]}', "\xff"]
)
def test_a_damaged_config_is_no_model_and_no_error(tmp_path, config):
    write_folder(tmp_path / "good")
    (write_folder(tmp_path / "bad") / "config.json").write_text(config, encoding="latin-1")
    assert names(tmp_path) == ["good"]


def test_links_to_folders_and_deep_folders_are_not_followed(tmp_path):
    write_folder(tmp_path / "elsewhere/model")
    root = tmp_path / "root"
    write_folder(root / "/".join("d" * MAX_DEPTH))
    write_folder(root / "/".join("e" * (MAX_DEPTH + 1)))
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert names(root, tmp_path / "missing") == ["/".join("d" * MAX_DEPTH)]


def test_a_folder_below_two_roots_is_listed_once(tmp_path):
    write_folder(tmp_path / "inner/model")
    assert len(find_local_models([tmp_path, tmp_path / "inner"])) == 1
