"""Runs with `--augment`: the same on any number of processes and workers, and after a stop."""

from dataclasses import replace

import pytest
from augmented_detection import make_augmented_task

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.distributed import join_world
from visionloop.engine.testing.check_task import ranks, resume
from visionloop.engine.testing.short_runs import CONFIG

FUNCTION = """
import torch
from torchvision.transforms import v2

FLIP = v2.RandomHorizontalFlip(0.5)


def augment(sample, generator):
    sample["image"] = sample["image"] // int(torch.randint(1, 4, (), generator=generator))
    return FLIP(sample)
"""


@pytest.fixture(autouse=True)
def small_data(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    write_detection(tmp_path / "data", 0, images={"train": 16, "val": 5})
    (tmp_path / "own.py").write_text(FUNCTION)
    monkeypatch.setenv("SMALL_DETECTION_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SMALL_AUGMENT", f"{tmp_path / 'own.py'}:augment")


@pytest.mark.slow
@pytest.mark.parametrize("check", [resume, ranks], ids=lambda check: check.__name__)
def test_a_run_with_a_function_keeps_the_contract(check, tmp_path):
    check(make_augmented_task, tmp_path / "runs")


def test_batches_are_the_same_with_and_without_workers():
    def batches(workers):
        task = make_augmented_task()
        train_set, _ = task.build_datasets()
        config = replace(CONFIG, workers=workers, micro_batch=4, steps=3)
        data = TrainingData(task, train_set, config, join_world("cpu"), start_step=0)
        try:
            return [batch for _ in range(3) for batch in data.fetch(lambda: False)]
        finally:
            data.close()

    for one, other in zip(batches(0), batches(2), strict=True):
        assert one["sample_ids"].equal(other["sample_ids"])
        assert one["pixel_values"].equal(other["pixel_values"])
        assert one["boxes"].values.equal(other["boxes"].values)
