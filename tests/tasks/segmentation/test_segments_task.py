"""Instance and panoptic tasks: targets, unusual images, and what is ignored."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from segments_files import (
    annotation,
    decode,
    rectangle,
    segment_info,
    write_instances,
    write_panoptic,
)
from small_segments import CROWD, small_task, write_scenes
from torch import nn

from visionloop.engine.batch import Normalizers
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.testing.short_runs import CONFIG, logged, seeded_model, train_steps
from visionloop.tasks.segmentation.segments.data import collate, image_targets

KINDS = ("instance", "panoptic")
each_kind = pytest.mark.parametrize("kind", KINDS)
# a training that takes a second; scored at the end
SHORT = replace(CONFIG, steps=2, eval_every=0, save_every=0, batch_size=4, micro_batch=2, ema=False)
SIDE, CELL = 64, 3  # of the image with many objects


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def batch_of(task, dataset, numbers):
    return task.collate([dataset[i] | {"sample_id": torch.tensor(i)} for i in numbers])


def eval_batch(task, dataset, numbers):
    return task.collate_eval([dataset[i] | {"sample_id": torch.tensor(i)} for i in numbers])


def normalizers_of(task, batch):
    return Normalizers(task.count_normalizers([batch]))


# targets --------------------


def sample_of(layers, segments):
    size = layers.shape[1:]
    return {
        "pixel_values": torch.zeros(3, *size, dtype=torch.uint8),
        "layers": layers,
        "segments": torch.tensor(segments).view(-1, 3),
        "ignored": torch.zeros(size, dtype=torch.uint8),
        "sample_id": torch.tensor(0),
    }


def test_segments_that_a_crop_lost_vanish_and_labels_follow():
    layers = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    layers[0, :2], layers[1, 1:3, :2] = 1, 0
    lost = [(0, 0, 5), (0, 2, 6), (1, 1, 8)]
    first = sample_of(layers, [lost[0], (0, 1, 7), lost[1], (1, 0, 3), lost[2]])
    batch = collate([first, sample_of(layers[:1] * 0 + 255, lost[:2])])
    assert batch["segments"][0].tolist() == [[0, 1], [1, 0]]
    assert batch["labels"][0].tolist() == [7, 3] and len(batch["labels"][1]) == 0
    (masks, labels, valid), (none, no_labels, _) = image_targets(batch)
    assert torch.equal(masks, torch.stack([layers[0] == 1, layers[1] == 0])) and valid.all()
    assert (masks[0] & masks[1]).any(), "segments of two layers overlap"
    assert none.shape == (0, 4, 4) and no_labels.shape == (0,) and labels.tolist() == [7, 3]


@each_kind
def test_every_target_of_training_has_a_pixel_and_a_class(scenes, kind):
    task = small_task(kind, scenes, scale_min=0.1)
    train, _ = task.build_datasets()
    torch.manual_seed(0)
    for number in range(16):
        ((masks, labels, _),) = image_targets(batch_of(task, train, [number]))
        assert masks.flatten(1).any(1).all() and len(masks) == len(labels)
        assert set(labels.tolist()) <= set(range(len(task.classes)))


@each_kind
def test_crowds_are_never_targets_and_their_pixels_are_ignored(scenes, kind):
    """So are void, which a json of instances does not have, and padding."""
    task = small_task(kind, scenes)
    val = task.build_eval_dataset("train")
    crowds = [i for i in range(len(val)) if val[i]["ground_truth"]["crowd"].any()]
    assert crowds == [2, 6, 10, 14]
    for number in crowds:
        truth = val[number]["ground_truth"]
        if kind == "panoptic":
            (crowd,) = np.flatnonzero(truth["crowd"]) + 1
            crowd_mask = truth["segment_map"].numpy() == crowd
            void = (truth["segment_map"] == 0).numpy()
        else:
            crowd_mask = decode(truth["rles"], 32, 40)[truth["crowd"]][0]
            void = np.zeros_like(crowd_mask)
        batch = eval_batch(task, val, [number])
        ((masks, labels, valid),) = image_targets(batch)
        # 40 x 32 px in 32 x 26 of 32 x 32: every pixel of the square is that of one in the image
        rows, columns = (np.arange(32) * 1.25).astype(int).clip(max=31), np.arange(32) * 40 // 32
        assert len(masks) == len(labels) == (~truth["crowd"]).sum()
        inside = torch.from_numpy(crowd_mask[rows][:, columns])[:26]
        core = inside[1:, 1:] & inside[:-1, :-1]  # rounding moves borders by a pixel
        assert core.sum() > 10 and not (masks.any(0)[1:26, 1:] & core).any()
        assert not (valid[1:26, 1:] & core).any() and not valid[26:].any()
        assert valid[:26, 31].any() == (not void.any())


def test_a_panoptic_folder_gives_the_instance_task_its_things(tmp_path):
    write_scenes(tmp_path)
    for path in tmp_path.glob("instances_*.json"):
        path.unlink()
    task = small_task("instance", tmp_path)
    assert task.classes == ("car", "dog")
    truth = task.build_eval_dataset("train")[2]["ground_truth"]
    assert len(truth["rles"]) == 4 and truth["crowd"].sum() == 1
    masks = decode(truth["rles"], 32, 40)
    assert masks[truth["crowd"]][0].sum() == 6 * 8


# numbers of segments --------------------


def write_many(folder, kind, count):
    """Write one image with `count` objects of CELL px, and one with two, as both splits."""
    side = SIDE // CELL
    cells = [(CELL * (i % side), CELL * (i // side)) for i in range(side * side)]
    images = [{"id": i + 1, "file_name": f"{i}.png", "width": SIDE, "height": SIDE}
              for i in range(2)]  # fmt: skip
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]
    rows, infos, maps = [], [[], []], np.zeros((2, SIDE, SIDE), dtype=int)
    for image, number in enumerate((count, 2)):
        for i, (left, top) in enumerate(cells[:number]):
            outline = [rectangle(left, top, CELL, CELL)]
            rows.append(annotation(len(rows) + 1, image + 1, 1 + i % 2, outline))
            maps[image, top : top + CELL, left : left + CELL] = i + 1
        infos[image] = [segment_info(i + 1, 1 + i % 2, maps[image]) for i in range(number)]
    for split in ("train", "val"):
        if kind == "instance":
            content = {"images": images, "annotations": rows, "categories": categories}
            write_instances(folder, content, f"{split}.json", split)
            continue
        content = {
            "images": images,
            "annotations": [
                {"image_id": i + 1, "file_name": f"{i}.png", "segments_info": infos[i]}
                for i in range(2)
            ],
            "categories": [row | {"isthing": 1} for row in categories],
        }
        write_panoptic(folder, content, {f"{i}.png": maps[i] for i in range(2)}, split)
    return folder


def perfect(kind, batch):
    """Predictions that are the ground truth of a batch."""
    truths = batch["ground_truth"]
    labels = [torch.from_numpy(truth["labels"]) for truth in truths]
    predictions = {"labels": labels, "scores": [torch.ones(len(each)) for each in labels]}
    key = "rles" if kind == "instance" else "segment_map"
    name = "rles" if kind == "instance" else "segment_maps"
    return predictions | {name: [truth[key] for truth in truths]}


@each_kind
@pytest.mark.parametrize("count", [0, 1, 254, 300])
def test_an_image_may_have_any_number_of_segments(kind, count, tmp_path):
    task = small_task(kind, write_many(tmp_path, kind, count), image_size=SIDE, num_queries=16)
    dataset = task.build_eval_dataset("val")
    batch = eval_batch(task, dataset, [0, 1])
    assert [len(labels) for labels in batch["labels"]] == [count, 2]
    (masks, labels, _), _ = image_targets(batch)
    assert masks.flatten(1).sum(1).tolist() == [CELL**2] * count and not (masks.sum(0) > 1).any()
    assert labels.bincount(minlength=2).tolist() == [(count + 1) // 2, count // 2]
    # more segments than queries: 16 of them are matched
    normalizers = normalizers_of(task, batch)
    matched = min(count, 16) + 2
    assert normalizers["masks"] == matched
    assert normalizers["class_weight"] == pytest.approx(matched + 0.1 * (32 - matched))
    losses = task.loss(seeded_model(task), batch, normalizers)
    assert all(map(torch.isfinite, losses.values()))
    metric = task.build_metric()
    metric.update(perfect(kind, batch), batch)
    scores = metric.compute()
    if kind == "panoptic":
        assert (scores["pq"], scores["sq"], scores["rq"]) == (1, 1, 1)
    elif count <= 200:  # 100 of each class
        assert scores["mAP"] == pytest.approx(1) and scores["AR100"] == 1
    else:  # the best 100 of an image and class count
        classes = [(count + 1) // 2, count // 2]
        recall = np.mean([101 / (1 + number) for number in classes])
        assert scores["AR100"] == pytest.approx(recall) and 0 < scores["mAP"] < 1


@each_kind
def test_images_with_more_segments_than_queries_train_and_are_scored(kind, tmp_path):
    task = small_task(kind, write_many(tmp_path / "data", kind, 300), points=50)
    (note,) = [line for line in task.notes() if "queries" in line]
    assert note.endswith("some are not learned there; set --num-queries")
    result = train_steps(task, tmp_path / "run", config=SHORT)
    rows = [row for row in logged(tmp_path / "run") if row["kind"] == "train"]
    assert result.state == "finished" and len(rows) == 2
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert math.isfinite(result.scores["val_loss"])


# ignored pixels --------------------


class Fixed(nn.Module):
    """A network that predicts the same for every batch, at the resolution of the image."""

    mask_probs = (0.0,)

    def __init__(self, mask_logits, class_logits):
        super().__init__()
        self.outputs = mask_logits, class_logits

    def forward(self, pixels, draws=None):
        return self.outputs


@each_kind
def test_mask_ignore_leaves_crowds_void_and_padding_out_of_the_mask_losses_alone(scenes, kind):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 8, 32, 32, generator=generator)
    tasks = {flag: small_task(kind, scenes, mask_ignore=flag) for flag in (False, True)}
    classes = torch.randn(1, 1, 8, len(tasks[True].classes) + 1, generator=generator)
    batch = eval_batch(tasks[True], tasks[True].build_eval_dataset("train"), [2])
    ignored = batch["ignored"][0]
    assert 0 < ignored.sum() < ignored.numel()

    def loss(flag, mask_logits, batch=batch):
        task = tasks[flag]
        return task.loss(Fixed(mask_logits, classes), batch, normalizers_of(task, batch))

    other = torch.where(ignored, 3 * torch.randn(logits.shape, generator=generator), logits)
    assert loss(True, logits)["loss"] == pytest.approx(float(loss(True, other)["loss"]), rel=1e-6)
    assert loss(False, logits)["loss"] != pytest.approx(float(loss(False, other)["loss"]), rel=1e-3)
    whole = batch.replace(ignored=torch.zeros_like(batch["ignored"]))
    for name, value in loss(True, logits, whole).items():
        assert torch.equal(value, loss(False, logits, whole)[name]), name


# scores --------------------


@each_kind
def test_validation_losses_and_scores_depend_on_no_batch(scenes, kind):
    task = small_task(kind, scenes, points=40, mask_annealing="auto")
    module, val = seeded_model(task), task.build_eval_dataset("val")
    module.mask_probs = [0.5, 0.25]
    scores = [
        evaluate_dataset(task, module, val, batch_size=size).compute() for size in (1, 3, len(val))
    ]
    assert math.isfinite(scores[0]["val_loss"])
    # kernels of another batch size round in another order; another draw of masks differs in 1 %
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=1e-6, nan_ok=True)


def test_pq_at_half_is_the_pq_of_an_evaluation_with_that_score(scenes):
    """Of queries that predict the ground truth every second one has a probability of 0.7 only."""
    tasks = [small_task("panoptic", scenes, score=score) for score in (0.5, 0.9)]
    batch = eval_batch(tasks[0], tasks[0].build_eval_dataset("train"), [2])
    ((masks, labels, _),) = image_targets(batch)
    certainty = torch.tensor([0.99, 0.7])[torch.arange(len(labels)) % 2]
    probabilities = torch.zeros(len(labels), len(tasks[0].classes) + 1)
    probabilities[torch.arange(len(labels)), labels] = certainty
    probabilities[:, -1] = 1 - certainty
    network = Fixed(20 * (masks[None, None].float() - 0.5), probabilities.log()[None, None])
    scores = []
    for task in tasks:
        metric = task.build_metric()
        metric.update(task.predict(network, batch), batch)
        scores.append(metric.compute())
    half, high = scores
    assert half["pq"] == high["pq_at_half"] > high["pq"] + 0.1 and "pq_at_half" not in half


def test_the_void_of_a_prediction_is_no_segment_and_the_crowd_no_miss(scenes):
    task = small_task("panoptic", scenes)
    batch = eval_batch(task, task.build_eval_dataset("train"), [2])
    (truth,) = batch["ground_truth"]
    (crowd,) = np.flatnonzero(truth["crowd"])
    assert crowd == len(truth["crowd"]) - 1 and CROWD > 2**16
    # without the crowd, whose pixels become void
    segment_map = torch.where(truth["segment_map"] == crowd + 1, 0, truth["segment_map"])
    predictions = {"segment_maps": [segment_map], "labels": [torch.tensor(truth["labels"][:-1])]}
    metric = task.build_metric()
    metric.update(predictions, batch)
    assert metric.compute()["pq"] == 1
