"""The hooks of the task: data, input, overfitting and recipes."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from visionloop.engine.batch import Normalizers
from visionloop.engine.config.options import resolve
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.errors import UserError
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.recipes import recipe
from visionloop.tasks.classification.task import ClassificationTask


def make_task(data, **settings):
    return ClassificationTask(
        ClassificationConfig(data=str(data), **({"model": "tiny"} | settings))
    )


def batch_of(task, dataset, indices):
    return task.collate([dataset[i] | {"sample_id": torch.tensor(i)} for i in indices], 0, 0)


def test_the_input_is_normalized_on_the_device(data):
    task = make_task(data)
    batch = batch_of(task, task.build_datasets()[1], [0, 1])
    assert batch["pixel_values"].dtype == torch.uint8
    assert torch.allclose(task.to_input(batch), batch["pixel_values"] / 127.5 - 1, atol=1e-6)


def test_the_tiny_model_overfits_one_batch(data):
    task = make_task(data, image_size=32, crop_scale_min=1.0, hflip=False)
    torch.manual_seed(0)
    module, train = task.build_model(), task.build_datasets()[0]
    batch = batch_of(task, train, range(0, 24, 2))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(40):
        loss = task.loss(module, batch, task.count_normalizers([batch]))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_mixing_stops_with_the_run_and_the_loss_is_plain_again(data):
    task = make_task(data, mixup=0.8, cutmix=1.0, mixup_off=0.5)
    module, batch = (
        task.build_model().eval(),
        batch_of(task, task.build_datasets()[1], range(0, 12, 3)),
    )
    plain = F.cross_entropy(module(pixel_values=task.to_input(batch)).logits, batch["labels"])
    task.before_step(module, 0, 10)
    torch.manual_seed(0)
    assert not torch.allclose(
        task.loss(module, batch, Normalizers({"samples": 4.0}))["loss"], plain, atol=1e-4
    )
    task.before_step(module, 5, 10)
    assert torch.allclose(task.loss(module, batch, Normalizers({"samples": 4.0}))["loss"], plain)
    assert task.min_micro_batch_size(module) == 2
    assert make_task(data).min_micro_batch_size(module) == 1


def test_without_a_val_folder_a_share_is_set_aside_class_by_class(data, write_images, tmp_path):
    write_images(tmp_path / "one" / "train", ("a", "b"), 10)
    with pytest.raises(UserError, match=r"--val-split 0\.2"):
        make_task(tmp_path / "one").build_datasets()
    train, val = make_task(tmp_path / "one", val_split=0.2).build_datasets()
    assert np.bincount(train.labels).tolist() == [8, 8] and np.bincount(val.labels).tolist() == [
        2,
        2,
    ]
    assert not {train.name(i) for i in range(16)} & {val.name(i) for i in range(4)}
    again = make_task(tmp_path / "one", val_split=0.2).build_eval_dataset("val")
    assert again.fingerprint() == val.fingerprint()
    with pytest.raises(UserError, match="has a validation split"):
        make_task(data, val_split=0.2).build_datasets()


def test_labels_of_an_evaluated_folder_follow_the_model_by_name(data, save_model, tiny_config):
    folder = save_model(tiny_config, ("cat", "dog", "ant", "bee"))
    task, _ = ClassificationTask.load_trained(folder, data=str(data))
    dataset = task.build_eval_dataset("val")
    assert {
        dataset.name(i).split("/")[-2]: int(dataset[i]["label"]) for i in range(len(dataset))
    } == {"cat": 0, "ant": 2, "bee": 3}


def test_a_class_that_the_model_lacks_is_one_clear_line(data, save_model, tiny_config):
    task, _ = ClassificationTask.load_trained(
        save_model(tiny_config, ("ant", "bee")), data=str(data)
    )
    with pytest.raises(UserError, match="cat: not one of the 2 known classes"):
        task.build_eval_dataset("val")


def test_descriptions_name_the_five_best_in_order(data):
    task = ClassificationTask(ClassificationConfig(model="tiny"), [f"class {i}" for i in range(7)])
    logits = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6]])
    (row,) = task.describe_predictions({}, {"logits": logits}, ["x.jpg"])
    assert row["file"] == "x.jpg" and row["label"] == "class 6"
    assert [best["id"] for best in row["top5"]] == [6, 5, 4, 3, 2]
    assert row["score"] == pytest.approx(logits.softmax(1)[0, 6].item(), abs=1e-6)


def values(**settings):
    classes = (ClassificationConfig, TrainConfig)
    return {
        name: setting.value for name, setting in resolve(classes, settings, recipe=recipe).items()
    }


def test_the_kind_of_start_picks_the_preset():
    assert values(model="tiny")["preset"] == "scratch"
    assert values(model="vit-base", from_scratch=True)["preset"] == "scratch"
    assert values(model="vit-base")["preset"] == "finetune"
    assert values()["model"] == "tiny" and values()["from_scratch"]


def test_finetuning_scales_the_learning_rate_with_the_batch_and_decays_by_layer():
    base, large = (
        values(model="google/vit-base-patch16-224", batch_size=256),
        values(model="google/vit-large-patch16-224"),
    )
    assert base["lr"] == pytest.approx(5e-4) and base["layer_decay"] == 0.65
    assert large["lr"] == pytest.approx(5e-4 / 8) and large["layer_decay"] == 0.75


def test_a_flag_beats_the_preset_and_an_unknown_preset_is_named():
    assert values(model="tiny", lr=0.5)["lr"] == 0.5
    with pytest.raises(UserError, match="quick, finetune, scratch"):
        values(preset="fast")


def test_presets_name_settings_that_exist():
    names = {
        field.name
        for cls in (ClassificationConfig, TrainConfig)
        for field in dataclasses.fields(cls)
    }
    for preset in ("quick", "finetune", "scratch"):
        chosen = {
            "model": "tiny",
            "from_scratch": False,
            "augment_only": False,
            "preset": preset,
            "batch_size": 32,
            "data": None,
            "steps": 50,
            "epochs": None,
        }
        assert recipe(chosen).keys() <= names


def test_mixing_comes_with_ten_thousand_images(tmp_path):
    folder = tmp_path / "many" / "train" / "a"
    folder.mkdir(parents=True)
    for i in range(10_000):
        (folder / f"{i}.jpg").touch()
    assert values(model="vit-base", data=str(tmp_path / "many"))["mixup"] == 0.8
    (folder / "0.jpg").unlink()
    assert values(model="vit-base", data=str(tmp_path / "many"))["mixup"] == 0


def test_a_model_type_without_an_initialization_of_our_own_trains_from_scratch_with_transformers(
    save_model,
):
    from transformers import ResNetConfig

    folder = save_model(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    )
    values = {
        "model": str(folder),
        "from_scratch": True,
        "augment_only": False,
        "preset": None,
        "epochs": 1.0,
        "steps": None,
        "batch_size": 32,
        "data": None,
    }
    assert ClassificationTask.recipe(values)["init"] == "transformers"
    assert ClassificationTask.recipe(values | {"model": "tiny"})["init"] == "mimetic"
