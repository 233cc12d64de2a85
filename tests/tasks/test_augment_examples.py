"""The examples of `--augment` on the pages, each with sample data of its task."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from visionloop.datasets.segments.layers import segment_masks
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.config.options import build
from visionloop.engine.data.augmentation import verify_augmentation
from visionloop.engine.data.subsets import Subset
from visionloop.engine.seeding import SAMPLE, seed_host
from visionloop.engine.train import resolve_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "classification": "tasks/classification/README.md",
    "detection": "tasks/detection/README.md",
    "segmentation": "tasks/segmentation/semantic/README.md",
    "instance_segmentation": "tasks/segmentation/instance/README.md",
    "panoptic_segmentation": "tasks/segmentation/panoptic/README.md",
    "super_resolution": "tasks/super_resolution/README.md",
}
RULES = "datasets/augmentation/README.md"
OF_ALBUMENTATIONS = "### Albumentations\n"


def example(page, heading):
    """Return the first Python of a page after a heading."""
    text = (ROOT / page).read_text()
    return re.search(r"```python\n(.*?)```", text[text.index(heading) :], re.DOTALL)[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return data(task), a folder of six training images, written once."""
    folders = {}

    def data(task):
        if task not in folders:
            folders[task] = tmp_path_factory.mktemp(task)
            WRITERS[task](folders[task], 0, images={"train": 6, "val": 2})
        return folders[task]

    return data


@pytest.fixture
def training_set(data, tmp_path):
    """Return training_set(task, text, **settings), the samples after a file of this text."""

    def training_set(task, text="", **settings):
        task_class = importlib.import_module(f"visionloop.bin.{task}").load_task_class()
        if text:
            (tmp_path / "augment.py").write_text(text)
            settings["augment"] = f"{tmp_path / 'augment.py'}:augment"
        flags = {"data": str(data(task)), "model": "tiny", "cache": "none", **settings}
        if task == "super_resolution":
            flags["scale"] = 2
        resolved = resolve_settings(task_class, flags)
        return task_class(build(task_class.config_class, resolved)).build_datasets()[0]

    return training_set


def sample_of(dataset, index, epoch=0):
    seed_host(SAMPLE, 0, epoch, index)
    return dataset[index]


def same(one, other):
    assert one.keys() == other.keys()
    if "layers" in one:  # which number a segment has in its layer does not matter
        one, other = (
            {
                "pixel_values": sample["pixel_values"],
                "masks": segment_masks(sample["layers"], sample["segments"]),
                "labels": sample["segments"][:, 2],
                "ignored": sample["ignored"],
            }
            for sample in (one, other)
        )
    return all(
        torch.equal(one[key], other[key])
        if key != "boxes"  # float32 for the function
        else torch.allclose(one[key], other[key], atol=1e-5)
        for key in one
    )


@pytest.mark.parametrize("task", PAGES)
def test_the_example_of_the_page_changes_samples_by_its_generator_alone(task, training_set):
    text = example(PAGES[task], "## Your own augmentation")
    plain, augmented = training_set(task), training_set(task, text)
    assert "called twice for" in verify_augmentation(augmented, None, seed=0, workers=0)
    changed = [
        not same(sample_of(plain, index, epoch), sample_of(augmented, index, epoch))
        for index in range(len(plain))
        for epoch in range(2)
    ]
    assert any(changed)


@pytest.mark.parametrize("task", PAGES)
def test_a_function_that_changes_nothing_gives_the_samples_of_a_run_without_it(task, training_set):
    text = example(RULES, "# Your own augmentation")
    plain, augmented = (
        training_set(task, one, scaled_decode=False)
        if task in ("classification", "detection")
        else training_set(task, one)
        for one in ("", text)
    )
    for index in range(len(plain)):
        assert same(sample_of(plain, index), sample_of(augmented, index))


@pytest.mark.parametrize("task", PAGES)
def test_augment_only_turns_all_random_augmentation_of_the_task_off(task, training_set):
    settings = {"augment_only": True}
    if task == "super_resolution":
        settings["patch_size"] = 32
    own = training_set(task, example(RULES, "# Your own augmentation"), **settings)
    if task == "super_resolution":
        assert not own.transform.augment  # crops are random in every epoch
        return
    for index in range(len(own)):
        assert same(sample_of(own, index, epoch=0), sample_of(own, index, epoch=1))


def test_the_example_for_albumentations_is_a_function_of_its_generator(training_set):
    pytest.importorskip("albumentations", reason="Albumentations is no dependency")
    text = example(RULES, OF_ALBUMENTATIONS)
    samples = training_set("detection", text)
    assert verify_augmentation(samples, None, seed=0, workers=1)
    unseeded = re.sub(r"\n    TRANSFORM.set_random_seed.*", "", text)
    assert unseeded != text
    with pytest.raises(ValueError, match=r"transform\.set_random_seed\(generator"):
        verify_augmentation(training_set("detection", unseeded), None, seed=0, workers=0)


def test_subsets_and_splits_of_a_training_set_keep_the_function(training_set):
    samples = training_set("detection", "def augment(sample, generator):\n    return None\n")
    for part in (Subset(samples, [0]), samples.subset(torch.tensor([0]).numpy())):
        with pytest.raises(OSError, match="returned NoneType"):
            part[0]
