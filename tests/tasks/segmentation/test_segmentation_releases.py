"""The released models of semantic, instance and panoptic segmentation, one table for each task."""

import pytest

from visionloop.tasks.model_zoo import CHOSEN, FAMILY, START, UNRELEASED
from visionloop.tasks.segmentation.architectures import ALIASES, ARCHITECTURES, MODEL_NAMES
from visionloop.tasks.segmentation.instance.model_zoo import MODEL_ZOO as INSTANCE
from visionloop.tasks.segmentation.panoptic.model_zoo import MODEL_ZOO as PANOPTIC
from visionloop.tasks.segmentation.releases import WORDS, model_tables
from visionloop.tasks.segmentation.semantic.model_zoo import MODEL_ZOO as SEMANTIC

ZOOS = {"segmentation": SEMANTIC, "instance_segmentation": INSTANCE,
        "panoptic_segmentation": PANOPTIC}  # fmt: skip
# {task: {hub id without tue-mps/: (dataset, score, side)}}: model_zoo/dinov2.md of tue-mps/eomt
PUBLISHED = {
    "segmentation": {
        "ade20k_semantic_eomt_large_512": ("ADE20K", 0.584, 512),
        "cityscapes_semantic_eomt_large_1024": ("Cityscapes", 0.842, 1024),
    },
    "instance_segmentation": {
        "coco_instance_eomt_large_640": ("COCO", 0.452, 640),
        "coco_instance_eomt_large_1280": ("COCO", 0.488, 1280),
    },
    "panoptic_segmentation": {
        "coco_panoptic_eomt_small_640_2x": ("COCO", 0.467, 640),
        "coco_panoptic_eomt_base_640_2x": ("COCO", 0.516, 640),
        "coco_panoptic_eomt_large_640": ("COCO", 0.560, 640),
        "coco_panoptic_eomt_large_1280": ("COCO", 0.583, 1280),
        "coco_panoptic_eomt_giant_640": ("COCO", 0.570, 640),
        "coco_panoptic_eomt_giant_1280": ("COCO", 0.592, 1280),
        "coco_panoptic_eomt_7b_640": ("COCO", 0.584, 640),
        "ade20k_panoptic_eomt_large_640": ("ADE20K", 0.506, 640),
        "ade20k_panoptic_eomt_large_1280": ("ADE20K", 0.517, 1280),
        "ade20k_panoptic_eomt_giant_640": ("ADE20K", 0.513, 640),
        "ade20k_panoptic_eomt_giant_1280": ("ADE20K", 0.528, 1280),
    },
}
SCORES = {"segmentation": "miou", "instance_segmentation": "mAP", "panoptic_segmentation": "pq"}
CLASSES = {
    ("ADE20K", "segmentation"): 150,
    ("Cityscapes", "segmentation"): 19,
    ("COCO", "instance_segmentation"): 80,
    ("COCO", "panoptic_segmentation"): 133,
    ("ADE20K", "panoptic_segmentation"): 150,
}
each_task = pytest.mark.parametrize("task", WORDS)


@each_task
def test_every_release_of_a_task_is_in_its_table_with_its_score(task):
    own = [model for model in ZOOS[task].models if model.priority in (CHOSEN, FAMILY)]
    assert {model.model_id.removeprefix("tue-mps/") for model in own} == set(PUBLISHED[task])
    for model in own:
        dataset, score, side = PUBLISHED[task][model.model_id.removeprefix("tue-mps/")]
        assert model.performance == {f"{dataset} validation": {SCORES[task]: score}}
        assert (model.input_size, model.classes) == (side, CLASSES[dataset, task])
        assert model.queries == (100 if task == "segmentation" else 200)


@each_task
def test_the_releases_of_the_other_tasks_are_a_start_and_come_after_its_own(task):
    priorities = [model.priority for model in ZOOS[task].models]
    assert priorities == sorted(priorities) and priorities.count(CHOSEN) == 1
    started = {model.model_id.removeprefix("tue-mps/") for model in ZOOS[task].models
               if model.priority == START}  # fmt: skip
    others = [PUBLISHED[other] for other in PUBLISHED if other != task]
    assert started == {name for names in others for name in names}
    assert all(" are a start." in model.description
               for model in ZOOS[task].models if model.priority == START)  # fmt: skip
    assert [model.model_id for model in ZOOS[task].models if model.priority == UNRELEASED] == [
        "tiny"
    ]


@each_task
def test_an_architecture_starts_from_a_release_of_the_task_where_there_is_one(task):
    """Its name stands for the first weights of its size in the table of the task."""
    own = {model.architecture_name for model in ZOOS[task].models if model.priority <= FAMILY}
    for name in own - {"tiny"}:
        assert ZOOS[task].find(name).priority <= FAMILY


@each_task
def test_all_names_of_the_releases_are_models_of_every_task(task):
    names = MODEL_NAMES[task].names()
    for published in PUBLISHED.values():
        for name in published:
            assert names[name] == names[f"tue-mps/{name}"] == f"tue-mps/{name}"
    assert {name: names[name] for name in ALIASES} == ALIASES
    assert set(ARCHITECTURES) <= set(names)


def test_differences_to_weights_that_are_not_free_are_in_no_table():
    ids = {model["model_id"] for task in WORDS for model in model_tables(task)["models"]}
    assert not [name for name in ids if "dinov3" in name]
