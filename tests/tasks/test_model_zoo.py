"""The model zoo: names of `--model`, settings of the recipes, published numbers and sources."""

import pytest
import torch

from visionloop.bin.model_zoo.listing import MODEL_ZOOS, find_model
from visionloop.engine.train import resolve_settings
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.detection.task import DetectionTask
from visionloop.tasks.huggingface.hub import ModelNames
from visionloop.tasks.model_zoo import CHOSEN
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.panoptic.task import PanopticTask
from visionloop.tasks.segmentation.semantic.task import SemanticTask
from visionloop.tasks.super_resolution.task import SuperResolutionTask

KEYS = [
    "display_name",
    "description",
    "framework",
    "task_type",
    "model_id",
    "params",
    "input_size",
    "upscale_factor",
    "pretrained_available",
    "recommended_batch_size",
    "recommended_lr",
    "tags",
    "priority",
    "architecture",
    "performance",
    "use_cases",
    "aliases",
    "weights_license",
    "sources",
]
NUMBERS = (
    "params",
    "input_size",
    "upscale_factor",
    "recommended_batch_size",
    "recommended_lr",
    "performance",
)
TASKS = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SemanticTask,
    "instance_segmentation": InstanceTask,
    "panoptic_segmentation": PanopticTask,
    "super_resolution": SuperResolutionTask,
}
CHOSEN_IDS = {
    "image_classification": "google/vit-base-patch16-224",
    "object_detection": "ustc-community/dfine-xlarge-coco",
    "semantic_segmentation": "tue-mps/ade20k_semantic_eomt_large_512",
    "instance_segmentation": "tue-mps/coco_instance_eomt_large_640",
    "panoptic_segmentation": "tue-mps/coco_panoptic_eomt_large_640",
    "super_resolution": "caidas/swin2SR-classical-sr-x2-64",
}
# millions of weights by other sources: timm's results for the ViTs, D-FINE's and EoMT's networks as
# transformers builds them
PUBLISHED = {
    "google/vit-base-patch16-224": 86.6,
    "facebook/deit-tiny-patch16-224": 5.72,
    "ustc-community/dfine-nano-coco": 3.77,
    "ustc-community/dfine-small-coco": 10.31,
    "ustc-community/dfine-medium-coco": 19.56,
    "ustc-community/dfine-large-coco": 31.24,
    "ustc-community/dfine-xlarge-coco": 62.62,
    "ustc-community/dfine-xlarge-obj365": 63.21,
    "tue-mps/coco_panoptic_eomt_small_640_2x": 24.0,
    "tue-mps/coco_panoptic_eomt_base_640_2x": 93.7,
    "tue-mps/ade20k_semantic_eomt_large_512": 316.0,
    "tue-mps/coco_panoptic_eomt_large_640": 316.7,
    "tue-mps/coco_panoptic_eomt_giant_640": 1163.6,
    "caidas/swin2SR-classical-sr-x2-64": 12.09,
    "caidas/swin2SR-classical-sr-x4-64": 12.24,
    "caidas/swin2SR-lightweight-x2-64": 1.005,
    "caidas/swin2SR-compressed-sr-x4-48": 12.25,
    "caidas/swin2SR-realworld-sr-x4-64-bsrgan-psnr": 12.06,
}
OLD_NAMES = {
    "ustc-community/dfine_x_coco": "ustc-community/dfine-xlarge-coco",
    "tue-mps/eomt-vit-large": "tue-mps/ade20k_semantic_eomt_large_512",
    "caidas/swin2sr-classicalsr-x2-64": "caidas/swin2SR-classical-sr-x2-64",
}
each_zoo = pytest.mark.parametrize("zoo", MODEL_ZOOS, ids=[zoo.command for zoo in MODEL_ZOOS])


@each_zoo
def test_a_row_has_exactly_the_keys_that_platforms_read(zoo):
    for model in zoo.models:
        row = zoo.row(model)
        assert list(row) == KEYS
        assert row["framework"] == "huggingface" and row["task_type"] == zoo.value
        assert all(
            set(case) == {"title", "description", "dataset", "metrics"} for case in row["use_cases"]
        )
        assert all(set(case["metrics"]) == {"before", "after"} for case in row["use_cases"])


@each_zoo
def test_the_chosen_model_is_the_first_and_the_only_one_of_its_priority(zoo):
    assert [model.model_id for model in zoo.models if model.priority == CHOSEN] == [
        CHOSEN_IDS[zoo.value]
    ]
    assert zoo.models[0].model_id == CHOSEN_IDS[zoo.value]


@each_zoo
def test_the_zoo_and_the_model_option_have_the_same_names(zoo, monkeypatch, tmp_path):
    """The model that `--model NAME` fetches, or builds without weights, is that of `find`."""
    model_names, fetched = zoo.model_names, []
    monkeypatch.setattr(
        ModelNames,
        "fetch",
        lambda self, name, hub_id, weights=True: fetched.append(hub_id) or tmp_path,
    )
    rows = [zoo.row(model) for model in zoo.models]
    named = {name: row["model_id"] for row in rows for name in (row["model_id"], *row["aliases"])}
    assert len(named) == sum(1 + len(row["aliases"]) for row in rows), "a name of two rows"
    accepted = {
        *model_names.architectures,
        *model_names.pretrained,
        *model_names.pretrained.values(),
        *model_names.aliases,
    }
    assert set(named) == accepted | set(model_names.architecture_of)
    for name, model_id in named.items():
        source = model_names.find(name, from_scratch=False)
        assert (
            (fetched.pop() if source.weights else source.name)
            == model_id
            == zoo.find(name).model_id
        )
    assert zoo.find("no/such-model") is None


@pytest.mark.parametrize(("old", "model_id"), OLD_NAMES.items())
def test_names_of_old_guides_lead_to_the_released_weights(old, model_id):
    assert find_model(old)[1].model_id == model_id
    assert {zoo.find(old).model_id for zoo in MODEL_ZOOS if zoo.find(old)} == {model_id}


@each_zoo
def test_no_number_is_without_a_source_and_no_source_without_a_key(zoo):
    for model in zoo.models:
        row = zoo.row(model)
        sourced = {key for key in NUMBERS if row[key] is not None}
        sourced |= {"weights_license"} if row["weights_license"] else set()
        sourced |= (
            {"use_cases"}
            if any(
                case["metrics"]["before"] or case["metrics"]["after"] for case in row["use_cases"]
            )
            else set()
        )
        assert sourced <= {key for key, text in row["sources"].items() if text}, model.model_id
        assert set(row["sources"]) <= set(KEYS)


@each_zoo
def test_shares_are_between_0_and_1(zoo):
    for model in zoo.models:
        scores = list((model.performance or {}).values())
        scores += [
            results for case in model.use_cases for results in (case.before, case.after) if results
        ]
        for name, value in [pair for results in scores for pair in results.items()]:
            assert 20 < value < 60 if name == "psnr" else 0 < value < 1, (model.model_id, name)


@each_zoo
def test_only_what_can_be_downloaded_has_scores_and_a_license(zoo):
    for model in zoo.models:
        released = zoo.is_released(model)
        assert released == ("/" in model.model_id) == zoo.row(model)["pretrained_available"]
        assert released or (model.performance is None and model.weights_license is None)


@each_zoo
def test_recommended_settings_are_those_that_train_would_take(zoo):
    for model in zoo.models:
        settings, row = (
            resolve_settings(TASKS[zoo.command], {"model": model.model_id}, None),
            zoo.row(model),
        )
        assert (row["recommended_batch_size"], row["recommended_lr"]) == (
            settings["batch_size"].value,
            settings["lr"].value,
        )


@pytest.mark.parametrize("name", ["vit-tiny", "vit-small", "vit-base"])
def test_an_alias_of_a_vit_trains_like_its_hub_id(name):
    zoo = MODEL_ZOOS[0]
    by_alias, by_id = (
        resolve_settings(ClassificationTask, {"model": model}, None)
        for model in (name, zoo.find(name).model_id)
    )
    assert {key: setting for key, setting in by_alias.items() if key != "model"} == {
        key: setting for key, setting in by_id.items() if key != "model"
    }


@pytest.mark.parametrize(("model_id", "millions"), PUBLISHED.items())
def test_the_parameter_count_is_the_published_one_within_a_percent(model_id, millions):
    counts = {
        model.params for zoo in MODEL_ZOOS for model in zoo.models if model.model_id == model_id
    }
    assert len(counts) == 1, "tasks that share a model differ"
    assert counts.pop() == pytest.approx(millions * 1e6, rel=0.01)


@each_zoo
def test_the_network_of_a_row_has_its_size_scale_and_classes(zoo):
    for model in zoo.models:
        with torch.device("meta"):
            config = zoo.build_network(model).config
        if zoo.command == "super_resolution":
            assert (config.upscale, config.image_size) == (model.upscale_factor, model.input_size)
        elif zoo.command != "detection":  # D-FINE's network works at any size
            assert config.image_size == model.input_size
        if model.classes:
            assert config.num_labels == model.classes
        assert (model.upscale_factor is None) == (zoo.command != "super_resolution")


@each_zoo
def test_the_scores_of_a_zoo_are_metrics_of_its_task(zoo):
    keys = [spec.key for spec in zoo.metrics]
    assert zoo.primary_metric in keys and tuple(TASKS[zoo.command].metrics) == zoo.metrics
    own = [
        scores
        for model in zoo.models
        for case in model.use_cases
        for scores in (case.before, case.after)
        if scores
    ]
    assert {key for scores in own for key in scores} <= set(keys)
