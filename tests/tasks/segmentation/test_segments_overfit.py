"""The samples of `check --overfit`: whole padded images, which can be learned."""

import pytest
import torch
from segments_files import small_instances, write_instances, write_panoptic

from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.instance.config import InstanceConfig
from visionloop.tasks.segmentation.instance.task import InstanceTask
from visionloop.tasks.segmentation.panoptic.config import PanopticConfig
from visionloop.tasks.segmentation.panoptic.task import PanopticTask
from visionloop.tasks.segmentation.segments.data import image_targets


def small_task(folder, task_class, config_class, num_queries):
    config = config_class(
        data=str(folder),
        model="tiny",
        from_scratch=True,
        image_size=32,
        num_queries=num_queries,
        val_split=0.1,
    )
    return task_class(config)


def samples_of(task):
    dataset = task.build_eval_dataset("train")
    return [dataset[i] | {"sample_id": torch.tensor(i)} for i in range(len(dataset))]


@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_training_and_scores_see_the_same_segments(tmp_path, kind):
    if kind == "instance":
        write_instances(tmp_path)
        task = small_task(tmp_path, InstanceTask, InstanceConfig, 8)
    else:
        write_panoptic(tmp_path)
        task = small_task(tmp_path, PanopticTask, PanopticConfig, 8)
    trained, scored = task.overfit_samples(samples_of(task))
    assert len(trained) == len(scored) > 0
    batch = task.collate(trained, 0, 0)
    for sample, targets in zip(scored, image_targets(batch), strict=True):
        truth = sample["ground_truth"]
        assert sorted(targets.labels.tolist()) == sorted(truth["labels"][~truth["crowd"]].tolist())
        shares = targets.masks.float().mean(dim=(1, 2)).sum().item()
        scale = (32 / sample["size"].max().item()) ** 2 / 32**2
        areas = truth["areas"][~truth["crowd"]].sum()
        assert shares == pytest.approx(areas * scale, rel=0.1)


def test_images_without_a_segment_cannot_be_overfitted(tmp_path):
    write_instances(
        tmp_path, small_instances() | {"annotations": small_instances()["annotations"][:1]}
    )
    task = small_task(tmp_path, InstanceTask, InstanceConfig, 8)
    empty = [sample for sample in samples_of(task) if not len(sample["segments"])]
    assert empty
    with pytest.raises(UserError, match="no segment is visible") as caught:
        task.overfit_samples(empty)
    assert caught.value.field == "overfit"


def test_more_segments_than_queries_cannot_be_overfitted(tmp_path):
    write_instances(tmp_path)
    task = small_task(tmp_path, InstanceTask, InstanceConfig, 1)
    full = [sample for sample in samples_of(task) if len(sample["segments"]) == 2]
    with pytest.raises(UserError, match=r"1 queries .* of the 2 segments; set --num-queries 2"):
        task.overfit_samples(full[:1])
