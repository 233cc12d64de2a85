"""Training images from files, memory and disk: the same samples, never those of a changed file."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from visionloop.datasets.cache import decoded as decoded_module
from visionloop.datasets.cache.decoded import DecodedImages, open_image_cache
from visionloop.datasets.cache.store_files import cache_folder
from visionloop.datasets.classification.image_folder import ImageFolderDataset, scan
from visionloop.datasets.classification.transforms import ClassificationTrainPreset
from visionloop.datasets.detection.dataset import DetectionDataset
from visionloop.datasets.detection.layout import require_detection_split
from visionloop.datasets.detection.transforms import DetectionTrainPreset
from visionloop.datasets.io.images import UnreadableImage
from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.seeding import seed_host

PRESET = ClassificationTrainPreset(size=16, randaugment_ops=1, erase=0.5)
MIB = 2**20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes: reducible JPEGs, one of them rotated, and a PNG; the cache is beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for number, name in enumerate(("a/0.jpg", "a/1.jpg", "b/2.png", "b/3.jpg")):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        coarse.resize((160, 120 + 8 * number), Image.Resampling.BICUBIC).save(
            tmp_path / "train" / name, exif=exif
        )
    return tmp_path / "train"


def samples(dataset, epochs=2):
    """All samples of so many epochs, each under the engine's kind of seed."""
    made = []
    for epoch in range(epochs):
        for i in range(len(dataset)):
            seed_host(0, epoch, i)
            made.append(dataset[i])
    return made


def same(first, second):
    """Bit-equal samples, which are dicts of tensors."""
    pairs = zip(first, second, strict=True)
    return all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs
    )


def kept_in_three_ways(index, min_side):
    return {
        "none": DecodedImages(index, min_side),
        "ram": DecodedImages(index, min_side, 10 * MIB),
        "little ram": DecodedImages(index, min_side, 100_000),
        "disk": open_image_cache(index, min_side),
        "disk again": open_image_cache(index, min_side),
    }


@pytest.mark.parametrize("min_side", [None, PRESET.min_side])
def test_where_images_are_cached_changes_no_bit_of_a_sample(folder, min_side):
    index = scan(folder)
    made = {
        way: samples(ImageFolderDataset(index, PRESET, images))
        for way, images in kept_in_three_ways(index, min_side).items()
    }
    assert all(same(made["none"], others) for others in made.values())
    assert same(made["none"], samples(ImageFolderDataset(index, PRESET))) == (min_side is None)


@pytest.mark.parametrize("min_side", [None, 16])
def test_a_detectors_samples_are_the_same_too(tmp_path, monkeypatch, min_side):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_detection(tmp_path, 0, images={"train": 4, "val": 1})
    index = require_detection_split(tmp_path, "train")
    made = {
        way: samples(DetectionDataset(index, DetectionTrainPreset(16), images=images))
        for way, images in kept_in_three_ways(index, min_side).items()
    }
    assert all(same(made["none"], others) for others in made.values())


def test_what_is_cached_in_memory_is_decoded_once(folder, monkeypatch):
    decoded = []
    read = decoded_module.read_reduced_image
    monkeypatch.setattr(
        decoded_module,
        "read_reduced_image",
        lambda path, side: decoded.append(path) or read(path, side),
    )
    samples(
        ImageFolderDataset(scan(folder), PRESET, DecodedImages(scan(folder), 30, 10 * MIB)),
        epochs=3,
    )
    assert len(decoded) == 4


def test_scaled_and_whole_images_lie_in_folders_of_their_own(folder):
    index = scan(folder)
    stores = [open_image_cache(index, min_side).store for min_side in (None, 30, 31, 30)]
    assert len({store.folder for store in stores}) == 3 and stores[1].folder.name.endswith(
        "-min-side-30px"
    )
    assert (
        stores[0].size_hw(0) == (120, 160)
        and stores[1].size_hw(0) == (30, 40)
        and stores[2].size_hw(0) == (60, 80)
    )
    assert all(store.full_hw.tolist() == stores[0].sizes_hw.tolist() for store in stores)
    assert stores[1].size_hw(2) == (136, 160)  # a PNG


@pytest.mark.parametrize("min_side", [None, 30])
def test_a_file_that_changed_is_decoded_again(folder, min_side):
    index = scan(folder)
    open_image_cache(index, min_side)
    (folder / "a/1.jpg").write_bytes((folder / "a/0.jpg").read_bytes())
    store = open_image_cache(index, min_side)
    assert torch.equal(store(1)[0], store(0)[0])
    fresh = DecodedImages(index, min_side)
    assert all(torch.equal(store(i)[0], fresh(i)[0]) for i in range(4))


def test_a_truncated_file_is_named_however_images_are_cached(folder):
    data = (folder / "a/1.jpg").read_bytes()
    (folder / "a/1.jpg").write_bytes(data[: len(data) // 2])
    index = scan(folder)
    for images in kept_in_three_ways(index, 30).values():
        assert len(images(0)) == 2
        with pytest.raises(UnreadableImage, match=r"a/1\.jpg: truncated"):
            images(1)
    stored = open_image_cache(index, 30)
    (folder / "a/1.jpg").write_bytes(data)
    with pytest.raises(
        UnreadableImage, match=r"a/1\.jpg: could not be read when the cache was made; start again"
    ):
        stored(1)
    assert len(open_image_cache(index, 30)(1)) == 2


def test_a_subset_keeps_its_order_and_its_images(folder):
    index = scan(folder)
    for images in kept_in_three_ways(index, 30).values():
        part = ImageFolderDataset(index, PRESET, images).subset([3, 0])
        assert torch.equal(part.images(0)[0], images(3)[0]) and torch.equal(
            part.images(1)[0], images(0)[0]
        )
        assert part.images(0)[1].tolist() == [160, 144]


def test_images_travel_to_a_worker_without_the_cache(folder):
    index = scan(folder)
    for images in (DecodedImages(index, 30, 10 * MIB), open_image_cache(index, 30)):
        whole = samples(ImageFolderDataset(index, PRESET, images))
        assert len(pickle.dumps(images)) < 10_000
        assert same(
            whole, samples(ImageFolderDataset(index, PRESET, pickle.loads(pickle.dumps(images))))
        )


def test_the_json_of_a_smaller_copy_holds_the_size_of_the_whole(folder):
    open_image_cache(scan(folder), 30)
    entries = [json.loads(path.read_text()) for path in cache_folder().rglob("*.json")]
    assert {entry["source"]: entry["full_hw"] for entry in entries} == {
        "a/0.jpg": [120, 160],
        "a/1.jpg": [128, 160],
        "b/2.png": [136, 160],
        "b/3.jpg": [160, 144],
    }


def test_a_copy_that_vanishes_or_is_cut_in_mid_run_is_named(folder):
    stored = open_image_cache(scan(folder), 30)
    raw_files = [stored.store.folder / name.decode() for name in stored.store.raw_files]
    raw_files[0].unlink()
    raw_files[1].write_bytes(b"short")
    for i in (0, 1):
        with pytest.raises(
            UnreadableImage,
            match=rf"{raw_files[i].name}: the copy in the cache cannot be read .*start again",
        ):
            stored(i)
    assert len(stored(3)) == 2
