"""Models that instance and panoptic segmentation start from, and those that they evaluate."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from small_segments import CLASSES, small_task, write_scenes
from transformers import AutoModel, Dinov2Config

from visionloop.engine.config.resolve import resolve_auto
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.testing.short_runs import seeded_model
from visionloop.engine.train import resolve_settings, train
from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD, save_folder
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.model import load_model
from visionloop.tasks.segmentation.panoptic.task import PanopticTask
from visionloop.tasks.segmentation.segments.things import ADE20K_STUFF
from visionloop.tasks.segmentation.semantic.task import SemanticTask

TASKS = {"instance": InstanceTask, "panoptic": PanopticTask}
OURS = {"instance": ["car", "dog"], "panoptic": ["car", "dog", "grass", "sky"]}
ONE_STEP = {"steps": 1, "batch_size": 2, "workers": 0, "threads": 1, "device": "cpu",
            "precision": "fp32"}  # fmt: skip
PLAIN = "facebook/dinov2-with-registers-large"
each_kind = pytest.mark.parametrize("kind", TASKS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), images={"train": 4, "val": 4})


def coco_names(count):
    """Names of so many classes: those of the scenes among the first, and among the last."""
    names = [f"class {i}" for i in range(count)]
    names[5], names[7], names[-4], names[-2] = "car", "dog", "sky", "grass"
    return names


@pytest.fixture
def release(tmp_path, tiny_module):
    """release(count) -> a folder as the hub has it: no is_thing, written by transformers."""

    def save(count, name="release"):
        module = transformers.EomtForUniversalSegmentation(tiny_module(coco_names(count)).config)
        module.save_pretrained(tmp_path / name)
        processor = transformers.EomtImageProcessor(
            size={"shortest_edge": 32, "longest_edge": 32}, do_pad=True
        )
        processor.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def trained(task_class, scenes, model, output, **settings):
    """Train for a step; return best/ and its config.json."""
    result = train(task_class, data=str(scenes), model=str(model), output=str(output),
                   **ONE_STEP | settings)  # fmt: skip
    assert result.state == "finished"
    return output / "best", json.loads((output / "best" / "config.json").read_text())


def is_thing_of(names):
    return [CLASSES[name][2] for name in names]


# fine-tuning --------------------


@each_kind
@pytest.mark.parametrize("count", [133, 12])
def test_a_release_is_fine_tuned_on_other_classes(kind, count, scenes, release, tmp_path):
    start = release(count)
    best, config = trained(TASKS[kind], scenes, start, tmp_path / "run", lr=0)
    assert list(config["id2label"].values()) == OURS[kind]
    assert config["is_thing"] == is_thing_of(OURS[kind])
    before, after = (load_file(folder / "model.safetensors") for folder in (start, best))
    rows = [coco_names(count).index(name) for name in OURS[kind]]
    new = {name for name in before if not torch.equal(before[name], after[name])}
    assert new <= {"class_predictor.weight", "class_predictor.bias", "criterion.empty_weight",
                   "attn_mask_probs"}  # fmt: skip
    # named classes keep their rows, and "no object" is the last one
    expected = before["class_predictor.weight"][[*rows, count]]
    assert torch.equal(after["class_predictor.weight"], expected)


@each_kind
def test_a_semantic_run_of_ours_is_a_start(kind, scenes, save_tiny, tmp_path):
    start = save_tiny(["sky", "car", "tree"])
    best, config = trained(TASKS[kind], scenes, start, tmp_path / "run")
    assert config["is_thing"] == is_thing_of(OURS[kind])
    processor = json.loads((best / "preprocessor_config.json").read_text())
    assert processor["do_pad"] and not processor["do_split_image"]
    task, module = TASKS[kind].load_trained(best, data=str(scenes))
    assert task.classes == tuple(OURS[kind]) and module.config.num_queries == 8


@each_kind
def test_a_plain_vit_is_a_start(kind, scenes, tmp_path):
    vit = Dinov2Config(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32,
                       patch_size=8, mlp_ratio=2)  # fmt: skip
    AutoModel.from_config(vit).save_pretrained(tmp_path / "vit")
    _, config = trained(TASKS[kind], scenes, tmp_path / "vit", tmp_path / "run", num_queries=9)
    assert config["num_queries"] == 9 and config["is_thing"] == is_thing_of(OURS[kind])


def test_a_semantic_model_that_starts_from_segments_has_no_things(scenes, tmp_path):
    folder, task = tmp_path / "panoptic", small_task("panoptic", scenes)
    module = seeded_model(task)
    task.save(module, module.state_dict(), folder)
    assert json.loads((folder / "config.json").read_text())["is_thing"] == [1, 1, 0, 0]
    for names in (["road", "sky"], OURS["panoptic"]):
        config = SemanticTask.config_class(model=str(folder))
        semantic = SemanticTask(config, names)
        assert not hasattr(semantic.build_model().config, "is_thing")


# folders --------------------


def test_things_and_stuff_survive_saving_and_loading(scenes, tmp_path):
    task = small_task("panoptic", scenes)
    module = seeded_model(task)
    task.save(module, module.state_dict(), tmp_path / "folder")
    again, loaded = PanopticTask.load_trained(tmp_path / "folder")
    assert again.is_thing == task.is_thing == (True, True, False, False)
    assert again.build_metric().is_thing.tolist() == [True, True, False, False]
    again.export(loaded, tmp_path / "export")
    theirs = transformers.AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "export")
    assert theirs.config.is_thing == [1, 1, 0, 0]
    weights = module.state_dict()
    assert theirs.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize(("count", "stuff"), [(133, set(range(80, 133))), (150, ADE20K_STUFF)])
def test_released_models_of_coco_and_ade20k_have_their_things(count, stuff, release, scenes):
    names = coco_names(count)
    task, module = PanopticTask.load_trained(release(count), data=str(scenes), score=0.0)
    assert task.is_thing == tuple(i not in stuff for i in range(count))
    assert len(ADE20K_STUFF) == 50 and task.classes == tuple(names)
    dataset = task.build_eval_dataset("val")
    assert dataset.classes == task.classes, "labels of the data are the ids of the model"
    scores = evaluate_dataset(task, module, dataset, batch_size=4).compute()
    assert scores["val_loss"] > 0 and 0 <= scores["pq"] <= 1


def test_an_instance_model_trained_elsewhere_is_scored_by_the_names_of_its_classes(
    scenes, tiny_module, tmp_path
):
    module = transformers.EomtForUniversalSegmentation(tiny_module(["dog", "tree", "car"]).config)
    module.save_pretrained(tmp_path)
    task, ours = InstanceTask.load_trained(tmp_path, data=str(scenes))
    dataset = task.build_eval_dataset("train")
    labels = {int(label) for sample in dataset for label in sample["ground_truth"]["labels"]}
    assert task.classes == ("dog", "tree", "car") and labels <= {0, 2} and labels
    scores = evaluate_dataset(task, ours, dataset, batch_size=4).compute()
    assert 0 <= scores["mAP"] <= 1 and scores["val_loss"] > 0
    (tmp_path / "other").mkdir()
    tiny_module(["dog"]).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="car"):
        InstanceTask.load_trained(tmp_path / "other", data=str(scenes))[0].build_eval_dataset("val")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (None, "config.json has no is_thing, expected a list of 3 numbers"),
        ([1, 0], r"config.json has is_thing \[1, 0\], expected a list of 3 numbers"),
        ([1, 0, 2], r"config.json has is_thing \[1, 0, 2\], expected a list of 3 numbers"),
        ("x", "config.json has is_thing x, expected a list of 3 numbers"),
    ],
)
def test_a_panoptic_model_without_things_is_an_error_of_one_line(
    flags, message, tiny_module, tmp_path
):
    module = tiny_module()
    save_folder(module, module.state_dict(), tmp_path, 32, IMAGENET_MEAN, IMAGENET_STD,
                whole_images=True)  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | ({"is_thing": flags} if flags else {}))
    )
    with pytest.raises(UserError, match=message) as error:
        PanopticTask.load_trained(tmp_path)
    assert str(error.value).startswith(f"--model {tmp_path}: ") and "\n" not in str(error.value)
    assert InstanceTask.load_trained(tmp_path)[0].classes == ("sky", "road", "tree")


@each_kind
@pytest.mark.parametrize("count", [3, 133, 150])
def test_a_semantic_model_is_no_model_of_segments(kind, count, save_tiny):
    folder = save_tiny(coco_names(count) if count > 3 else ["car", "sky", "dog"])
    assert load_model(folder).config.num_labels == count
    with pytest.raises(UserError, match=r"a semantic segmenter .*; `train` starts from such"):
        TASKS[kind].load_trained(folder)


def test_a_model_of_segments_is_no_semantic_and_a_panoptic_one_no_instance_model(
    tiny_module, tmp_path
):
    module = tiny_module()
    module.config.is_thing = [1, 0, 1]
    save_folder(module, module.state_dict(), tmp_path, 32, IMAGENET_MEAN, IMAGENET_STD,
                whole_images=True)  # fmt: skip
    with pytest.raises(UserError, match=r"a model of segments .*; `train` starts from such"):
        SemanticTask.load_trained(tmp_path)
    with pytest.raises(UserError, match=r"a panoptic segmenter .*; `train` starts from such"):
        InstanceTask.load_trained(tmp_path)
    assert PanopticTask.load_trained(tmp_path)[0].is_thing == (True, False, True)


# recipes --------------------


def resolved(task_class, steps, **flags):
    settings = resolve_settings(task_class, {"steps": steps, **flags})
    settings = resolve_auto(settings, 100, "cpu", {}, task_class.resolve_defaults)
    return {name: setting.value for name, setting in settings.items()}


@each_kind
def test_models_of_released_size_have_the_authors_recipe(kind):
    settings = resolve_settings(TASKS[kind], {"model": PLAIN})
    values = {name: setting.value for name, setting in settings.items()}
    assert (values["epochs"], values["scale_min"], values["scale_max"]) == (12, 0.1, 2)
    assert (values["color"], values["lr"], values["layer_decay"]) == (0, 1e-4, 0.8)
    assert (values["batch_size"], values["clip_grad"], values["ema"]) == (16, 0.01, False)
    assert values["score"] == (0.8 if kind == "panoptic" else 0.5)


@each_kind
def test_tiny_keeps_half_to_double_size(kind):
    values = resolved(TASKS[kind], 400, model="tiny", from_scratch=True)
    assert (values["scale_min"], values["scale_max"], values["lr"]) == (0.5, 2, 1e-3)
    assert values["init"] == "mimetic" and values["score"] == 0.5


@each_kind
def test_a_new_model_has_640_px_and_200_queries_and_a_trained_one_its_own(
    kind, scenes, release, tmp_path
):
    vit = Dinov2Config(image_size=518, hidden_size=8, num_hidden_layers=3, num_attention_heads=1)
    AutoModel.from_config(vit).save_pretrained(tmp_path / "vit")

    def sizes(**settings):
        config = TASKS[kind].config_class(data=str(scenes), **settings)
        config = TASKS[kind](config).model_config
        return config.image_size, config.num_queries

    assert sizes(model="eomt-small", from_scratch=True) == (640, 200)
    assert sizes(model=str(tmp_path / "vit")) == (640, 200)
    assert sizes(model=str(tmp_path / "vit"), image_size=256, num_queries=60) == (256, 60)
    assert sizes(model=str(release(12))) == (32, 8)
    assert sizes(model="tiny", from_scratch=True) == (96, 24)
