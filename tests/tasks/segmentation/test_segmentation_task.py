"""The segmentation task in the engine: learning, saving, stopping, and unusual images."""

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from segmentation_files import write_pair, write_segmentation_data
from small_segmentation import QUIET, SmallTask

from visionloop.datasets.segmentation.layout import DataLayoutError
from visionloop.datasets.synthetic.segmentation import write_segmentation
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.prepare import freeze
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.testing.short_runs import (
    CONFIG,
    STEPS,
    logged,
    runs_differ,
    seeded_model,
    spec_of,
    train_steps,
)
from visionloop.engine.train import run_training, train
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.segmentation.semantic.task import SemanticTask

COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.uint8)
# a training that takes a second; scored at the end
SHORT = replace(CONFIG, steps=4, eval_every=0, save_every=0, batch_size=4, micro_batch=2, ema=False)
EMPTY, WHOLE = np.full((20, 24), 255, dtype=np.uint8), np.full((20, 24), 1, dtype=np.uint8)


def small_task(data, **settings):
    return SmallTask(replace(QUIET, data=str(data), **settings))


def eval_batch(task, dataset, numbers):
    return task.collate_eval([dataset[i] | {"sample_id": torch.tensor(i)} for i in numbers])


def scores_of(task, module, dataset, batch_size=4):
    return evaluate_dataset(task, module, dataset, batch_size=batch_size).compute()


def losses_in(output):
    return [row["loss"] for row in logged(output) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return sample data: images of every size."""
    folder = tmp_path_factory.mktemp("sample")
    write_segmentation(folder, 0, images={"train": 8, "val": 5})
    return folder


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Return colored blocks of 8 px in images of 32 px: one window, and coarse masks are exact."""
    folder, generator = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    (folder / "classes.json").write_text(json.dumps({"classes": ["red", "green", "blue"]}))
    for split in ("train", "val"):
        for number in range(4):
            ids = np.kron(generator.integers(0, 3, (4, 4)), np.ones((8, 8))).astype(np.uint8)
            write_pair(folder, split, str(number), ids, COLORS[ids])
    return folder


@pytest.fixture(scope="module")
def learned(blocks):
    """Return (task, module, first and last loss) of an overfitted batch, partly masked at last."""
    task = small_task(blocks, mask_annealing="0-120,60-60")
    module, dataset = seeded_model(task), task.build_eval_dataset("train")
    batch, losses = eval_batch(task, dataset, range(4)), []
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05)
    for step in range(61):
        task.before_step(module, step, 61)
        losses.append(task.loss(module, batch, task.count_normalizers([batch]))["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.1)
        optimizer.step()
    return task, module, [float(losses[i].detach()) for i in (0, -1)]


# learning --------------------


def test_one_batch_is_overfitted(learned):
    task, module, (first, last) = learned
    assert first > 10 and last < 0.02 * first
    scores = scores_of(task, module, task.build_eval_dataset("train"))
    assert scores["miou"] > 0.95 and scores["val_loss"] < 0.05


def test_training_on_sample_data_lowers_the_loss(data, tmp_path):
    task = small_task(data, points=12_544, mask_annealing="auto")
    train_steps(
        task,
        tmp_path,
        config=replace(SHORT, steps=40, batch_size=8, micro_batch=8, lr=2e-3, clip_grad=0.1),
    )
    losses = losses_in(tmp_path)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    terms = [row for row in logged(tmp_path) if row["kind"] == "train"][-1]
    assert terms["loss"] == pytest.approx(
        sum(terms[f"loss_{name}"] for name in ("class", "mask", "dice")), rel=1e-4
    )


def test_a_saved_model_has_the_same_scores_and_mask_probabilities(learned, blocks, tmp_path):
    task, module, _ = learned
    assert 0 < module.mask_probs[0] < 1 and module.mask_probs[1] == 0
    task.save(module, module.state_dict(), tmp_path)
    again, loaded = SemanticTask.load_trained(tmp_path, data=str(blocks), points=0)
    assert loaded.mask_probs == module.mask_probs and not loaded.training
    assert again.classes == task.classes and again.image_size == 32
    assert scores_of(again, loaded, again.build_eval_dataset("val")) == scores_of(
        task, module, task.build_eval_dataset("val")
    )
    other = seeded_model(task, seed=1)
    task.load(other, tmp_path)
    assert other.mask_probs == module.mask_probs
    assert scores_of(task, other, task.build_eval_dataset("val")) == scores_of(
        task, module, task.build_eval_dataset("val")
    )


@pytest.mark.parametrize(("flags", "expected"), [({}, 0.0), ({"mask_annealing": "on"}, 1.0)])
def test_a_short_run_from_a_trained_folder_has_no_masks_unless_asked(
    blocks, save_tiny, tmp_path, flags, expected
):
    folder = save_tiny(["red", "green", "blue"])
    settings = {"steps": 2, "batch_size": 4, "workers": 0, "threads": 1, "device": "cpu"}
    result = train(
        SemanticTask,
        data=str(blocks),
        model=str(folder),
        output=str(tmp_path / "run"),
        **settings,
        **flags,
    )
    written = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"][
        "mask_annealing"
    ]
    assert written == (
        {"value": "on", "source": "flag"} if flags else {"value": "off", "source": "auto"}
    )
    assert (
        load_file(result.output / "best" / "model.safetensors")["attn_mask_probs"].tolist()
        == [expected] * 2
    )


def test_every_level_has_its_score_with_score_levels(learned, blocks, tmp_path):
    task, module, _ = learned
    task.save(module, module.state_dict(), tmp_path)
    asked, loaded = SemanticTask.load_trained(tmp_path, data=str(blocks), score_levels=True)
    assert [spec.key for spec in asked.metrics[-2:]] == ["miou_level_0", "miou_level_1"]
    scores = scores_of(asked, loaded, asked.build_eval_dataset("train"))
    assert scores["miou"] == scores_of(task, module, task.build_eval_dataset("train"))["miou"]
    assert 0 < scores["miou_level_0"] <= 1 and 0 < scores["miou_level_1"] <= 1


# data --------------------


def test_training_sees_squares_and_evaluation_whole_images(data):
    task = small_task(data)
    train, val = task.build_datasets()
    batch = task.collate([train[i] | {"sample_id": torch.tensor(i)} for i in range(3)], 0, 0)
    assert (
        batch["pixel_values"].shape == (3, 3, 32, 32) and batch["pixel_values"].dtype == torch.uint8
    )
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in task.pixel_statistics)
    torch.testing.assert_close(
        task.to_input(batch), (batch["pixel_values"] / 255 - mean) / std, atol=1e-5, rtol=1e-5
    )
    batch = eval_batch(task, val, range(5))
    assert torch.equal(task.to_input(batch), task.normalize(batch["fitted"]))
    assert {min(image.shape[1:]) for image in batch["pixel_values"]} == {32}
    assert torch.isfinite(
        task.loss(seeded_model(task), batch, task.count_normalizers([batch]))["loss"]
    )


def test_a_share_set_aside_is_what_evaluate_reads_later(data, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "train").symlink_to(data / kind / "train")
    (tmp_path / "classes.json").symlink_to(data / "classes.json")
    task = small_task(tmp_path, val_split=0.25)
    train, val = task.build_datasets()
    assert len(train) + len(val) == 8 and len(val) > 0
    assert task.build_eval_dataset("val").fingerprint() == val.fingerprint() != train.fingerprint()
    assert task.build_eval_dataset("train").fingerprint() == train.fingerprint()


def test_classes_of_an_evaluated_folder_follow_the_model_by_name(save_tiny, tmp_path):
    data = write_segmentation_data(tmp_path / "data", images=1, classes=("road", "sky"))
    task, _ = SemanticTask.load_trained(save_tiny(["sky", "tree", "road"]), data=str(data))
    mine = task.build_eval_dataset("val")[0]["ids"]
    theirs = small_task(data).build_eval_dataset("val")[0]["ids"]
    assert torch.equal(mine, torch.tensor([2, 0] + [255] * 254, dtype=torch.uint8)[theirs.long()])
    task, _ = SemanticTask.load_trained(save_tiny(["sky"], name="other"), data=str(data))
    with pytest.raises((UserError, DataLayoutError), match="road"):
        task.build_eval_dataset("val")


# unusual images --------------------


@pytest.fixture
def odd(tmp_path):
    """Return a folder with images of ignored pixels alone, one class, a line and a strip."""
    folder = write_segmentation_data(tmp_path / "odd", images=1)
    for split in ("train", "val"):
        write_pair(folder, split, "empty", EMPTY)
        write_pair(folder, split, "whole", WHOLE)
        write_pair(folder, split, "row", np.arange(12, dtype=np.uint8)[None] % 3)
        write_pair(folder, split, "column", np.arange(9, dtype=np.uint8)[:, None] % 2)
        write_pair(folder, split, "strip", np.tile(WHOLE[:5, :1], (1, 70)))
        write_pair(folder, split, "pixel", WHOLE[:1, :1])
    return folder


@pytest.mark.parametrize(
    "settings", [{}, {"points": 50, "mask_annealing": "auto"}, {"points": 50, "mask_ignore": True}]
)
def test_odd_images_are_trained_on_and_evaluated(odd, tmp_path, settings):
    result = train_steps(small_task(odd, **settings), tmp_path / "run", config=SHORT)
    assert result.state == "finished" and all(map(math.isfinite, losses_in(tmp_path / "run")))
    assert all(
        math.isfinite(result.scores[name]) for name in ("miou", "pixel_accuracy", "val_loss")
    )


def test_predictions_have_the_size_of_the_file(odd):
    task = small_task(odd)
    module, val = seeded_model(task), task.build_eval_dataset("val")
    batch = eval_batch(task, val, range(len(val)))
    with torch.no_grad():
        predictions = task.predict(module.eval(), batch)
    assert [ids.shape for ids in predictions["ids"]] == [ids.shape for ids in batch["ids"]]
    assert {(1, 12), (9, 1), (5, 70), (1, 1)} < {tuple(ids.shape) for ids in predictions["ids"]}
    assert torch.isfinite(predictions["losses"]).all() and len(predictions["losses"]) == len(val)


def test_a_validation_set_without_a_valid_pixel_ends_without_a_score(tmp_path):
    folder = write_segmentation_data(tmp_path / "data", images=1)
    write_pair(folder, "val", "val00", EMPTY)
    result = train_steps(small_task(folder), tmp_path / "run", config=SHORT)
    assert result.state == "finished" and math.isnan(result.scores["miou"])
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def few_queries(data, count):
    config = SemanticConfig(
        data=str(data),
        model="tiny",
        from_scratch=True,
        image_size=32,
        points=50,
        num_queries=count,
    )
    return SemanticTask(config)


def test_more_classes_than_queries_train_with_one_warning(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = train_steps(few_queries(data, 2), tmp_path, config=replace(SHORT, steps=2))
    (record,) = caplog.records
    assert record.getMessage() == (
        "--num-queries 2: fewer than the 6 classes; in an image with more than 2 of them, some are"
        " not learned"
    )
    assert result.state == "finished" and all(map(math.isfinite, losses_in(tmp_path)))


def test_as_many_queries_as_classes_are_enough(data, caplog):
    with caplog.at_level(logging.WARNING):
        few_queries(data, 6).build_model()
    assert not caplog.records


def test_only_as_many_masks_count_as_there_are_queries(data):
    batches = [{"labels": [torch.arange(6), torch.arange(1)]}, {"labels": [torch.arange(0)]}]
    weight = 0.1
    assert few_queries(data, 2).count_normalizers(batches) == {
        "masks": 3,
        "class_weight": pytest.approx(3 + weight * 3),
    }
    assert few_queries(data, 9).count_normalizers(batches) == {
        "masks": 7,
        "class_weight": pytest.approx(7 + weight * 20),
    }


# frozen and compiled parts --------------------


def test_a_frozen_backbone_keeps_every_bit_and_the_query_blocks_learn(data, tmp_path):
    task = small_task(data, freeze="backbone", points=50)
    train_steps(task, tmp_path, config=SHORT)
    before = seeded_model(task).state_dict()
    after = load_file(tmp_path / "checkpoints" / "step_00000004" / "model.safetensors")
    unchanged = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    backbone = {name for name in before if name.startswith(("embeddings.", "layers.0."))}
    assert unchanged == backbone | {"attn_mask_probs", "criterion.empty_weight"}


def test_the_backbone_ends_where_the_queries_begin(data, tiny_module):
    task = small_task(data, freeze="backbone")
    for num_blocks in (1, 2, 3):
        module = tiny_module(num_blocks=num_blocks)
        freeze(task, module)
        trained = {
            name.split(".")[1]
            for name, parameter in module.layers.named_parameters(prefix="layers")
            if parameter.requires_grad
        }
        assert trained == {str(i) for i in range(3 - num_blocks, 3)}
        assert not any(parameter.requires_grad for parameter in module.embeddings.parameters())
        assert module.query.weight.requires_grad and module.layernorm.weight.requires_grad


def test_compiling_takes_blocks_and_heads_and_changes_no_name(data, tiny_module):
    module = tiny_module()
    names = list(module.state_dict())
    assert small_task(data).compile(module) is module and list(module.state_dict()) == names
    compiled = [
        name for name, layer in module.named_modules() if layer._compiled_call_impl is not None
    ]
    assert sorted(compiled) == ["heads", "layers.0", "layers.1", "layers.2"]


# stopping --------------------


def test_a_stop_leaves_a_windowed_evaluation_at_a_batch_border(data):
    task = small_task(data)
    module, val = seeded_model(task), task.build_eval_dataset("val")
    module.layers[0].eval()  # as a frozen block is
    done = []
    assert (
        evaluate_dataset(
            task, module, val, batch_size=2, stop=lambda: len(done) == 1, advance=done.append
        )
        is None
    )
    assert done == [2]
    assert module.training and not module.layers[0].training and module.layers[1].training
    assert len(evaluate_dataset(task, module, val, batch_size=2, advance=done.append)) == 5


class StoppedInEvaluation(SmallTask):
    """A stop is requested during the second batch of the first evaluation."""

    flag, calls = None, 0

    def predict(self, model, batch):
        self.calls += 1
        self.flag.requested = self.flag.requested or self.calls == 2
        return super().predict(model, batch)


def test_an_evaluation_that_a_stop_dropped_is_done_first_and_changes_no_byte(data, tmp_path):
    config = replace(QUIET, data=str(data), points=50, mask_annealing="auto")
    settings = replace(CONFIG, eval_batch_size=1)
    task = StoppedInEvaluation(config)
    task.flag = StopFlag()
    (tmp_path / "stopped").mkdir()
    spec = spec_of(task, tmp_path / "stopped", config=settings)
    result = run_training(spec, start=None, stop=task.flag)
    assert (result.state, result.step, task.calls) == ("stopped", 3, 2) and not result.scores
    state = json.loads(
        (tmp_path / "stopped" / "checkpoints" / "step_00000003" / "state.json").read_text()
    )
    assert state["step"] == 3 and state["evaluated_at"] == 0
    for name in ("stopped", "straight"):
        assert train_steps(SmallTask(config), tmp_path / name, config=settings).step == STEPS
    assert runs_differ(tmp_path / "straight", tmp_path / "stopped") is None
