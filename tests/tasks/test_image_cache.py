"""`--cache`, `--cache-memory` and `--scaled-decode`: no bit of a run depends on the cache."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from visionloop.datasets.cache.store_files import cache_folder
from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.config.options import fields_of
from visionloop.engine.data.loader import TrainingData
from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.testing.short_runs import CONFIG, runs_differ, train_steps
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.detection.task import DetectionTask
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.super_resolution.config import SuperResolutionConfig

CONFIGS = (ClassificationConfig, DetectionConfig, SemanticConfig, SuperResolutionConfig)
CACHES = ("none", "ram", "disk")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    """Return a folder of JPEGs large enough for a reduced decoding at 16 px."""
    generator = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 2)):
        for name in ("ant", "bee"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(number):
                coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                coarse.resize((90, 70 + i), Image.Resampling.BICUBIC).save(
                    tmp_path / "data" / split / name / f"{i}.jpg"
                )
    return tmp_path / "data"


def classifier(data, **settings):
    config = ClassificationConfig(
        data=str(data),
        model="tiny",
        from_scratch=True,
        image_size=16,
        drop_path=0.0,
        rand_augment_ops=1,
    )
    return ClassificationTask(replace(config, **settings))


def first_batches(task, workers):
    """Return the pixel_values of three steps, as the engine makes them."""
    config = replace(CONFIG, workers=workers, steps=3)
    data = TrainingData(
        task, task.build_datasets()[0], config, World(0, 0, 1, torch.device("cpu")), 0
    )
    try:
        return torch.cat([data.fetch(lambda: False)[0]["pixel_values"] for _ in range(3)])
    finally:
        data.close()


def test_every_task_has_the_same_values_and_a_resumed_run_may_change_them():
    for config_class in CONFIGS:
        field, choices = fields_of(config_class)["cache"]
        assert set(choices) <= set(CACHES) and "none" in choices and not field.metadata["fixed"]
    for config_class in (ClassificationConfig, DetectionConfig):
        assert fields_of(config_class)["scaled_decode"][0].metadata["fixed"]


@pytest.mark.parametrize("cache", CACHES)
def test_workers_and_caches_change_no_pixel(data, cache):
    expected = first_batches(classifier(data, cache="none"), 0)
    assert torch.equal(first_batches(classifier(data, cache=cache), 2), expected)
    assert not torch.equal(
        first_batches(classifier(data, cache=cache, scaled_decode=False), 0), expected
    )


def test_a_run_resumed_with_another_cache_ends_with_the_same_bytes(data, tmp_path):
    train_steps(classifier(data, cache="none"), tmp_path / "straight")
    for stop_after, cache in ((2, "disk"), (3, "ram")):
        train_steps(classifier(data, cache=cache), tmp_path / "stopped", stop_after=stop_after)
    train_steps(classifier(data, cache="disk"), tmp_path / "stopped")
    assert runs_differ(tmp_path / "straight", tmp_path / "stopped") is None


def test_images_of_a_changed_file_are_not_trained_on(data):
    first_batches(classifier(data, cache="disk"), 0)
    for path in (data / "train" / "ant").iterdir():
        Image.new("RGB", (90, 70)).save(path)
    assert torch.equal(
        first_batches(classifier(data, cache="disk"), 0),
        first_batches(classifier(data, cache="none"), 0),
    )


def test_cache_disk_writes_training_images_alone(data):
    classifier(data, cache="ram").build_datasets()
    assert not cache_folder().exists()
    classifier(data, cache="disk").build_datasets()
    assert len(list(cache_folder().rglob("*.json"))) == 12
    (folder,) = cache_folder().iterdir()
    assert folder.name.endswith("-min-side-31px")


def test_detection_caches_its_training_images_the_same_way(tmp_path):
    write_detection(tmp_path, 0, images={"train": 3, "val": 1})

    def made(**settings):
        config = DetectionConfig(data=str(tmp_path), model="tiny", from_scratch=True, image_size=32)
        train, val = DetectionTask(replace(config, **settings)).build_datasets()
        assert val.images.min_side is None
        return train.images

    plain, stored = made(cache="none"), made(cache="disk")
    assert (
        plain.min_side == made(cache="ram").min_side == int(32 / 0.3)
        and made(scaled_decode=False).min_side is None
    )
    assert all(torch.equal(plain(i)[0], stored(i)[0]) for i in range(3))


def test_a_cache_that_cannot_be_written_is_a_user_error(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"^--cache: .*--cache none") as caught:
        classifier(data, cache="disk").build_datasets()
    assert caught.value.field == "cache" and caught.value.code == "no_cache"


def test_memory_is_asked_for_only_where_it_is_the_cache():
    assert SemanticConfig(cache_memory=0.5).memory_bytes == 2**29
    assert SemanticConfig(cache="none").memory_bytes == 0
