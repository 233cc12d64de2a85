"""Sample data: real layouts, equal bytes for an equal seed, correct shapes."""

import math

import numpy as np
import pytest

from visionloop.datasets.classification.image_folder import scan
from visionloop.datasets.io.images import read_image
from visionloop.datasets.synthetic.shapes import OUTLINES, shape_mask
from visionloop.datasets.synthetic.textures import TEXTURES, load_texture, random_patch
from visionloop.datasets.synthetic.writers import SPLITS, WRITERS, write_classification


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_classification(folder, seed=0, images={"train": 48, "val": 24})
    return folder


def test_classification_is_written_as_folders_of_balanced_classes(written):
    train = scan(written / "train")
    val = scan(written / "val", train.classes)
    assert train.classes == tuple(sorted(OUTLINES))
    for index, count in ((train, 48), (val, 24)):
        assert len(index) == count and set(np.bincount(index.labels)) == {count // len(OUTLINES)}
    sizes_hw = [read_image(train.path(i)).shape[1:] for i in range(48)]
    assert (
        all(64 <= side <= 96 for size_hw in sizes_hw for side in size_hw)
        and len(set(sizes_hw)) > 24
    )


def test_the_default_splits_into_equal_classes():
    assert all(count % len(OUTLINES) == 0 for count in SPLITS.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        WRITERS["classification"](tmp_path / name, seed, images={"train": 48, "val": 24})
    first, same, other = (
        contents(written),
        contents(tmp_path / "same"),
        contents(tmp_path / "other"),
    )
    assert same == first
    assert other.keys() == first.keys() and not set(other.values()) & set(first.values())


def test_no_two_images_are_the_same(written):
    images = list(contents(written).values())
    assert len(set(images)) == len(images)


def test_an_image_does_not_depend_on_how_many_there_are(written, tmp_path):
    write_classification(tmp_path, seed=0, images={"train": 12, "val": 4})
    assert contents(tmp_path).items() <= contents(written).items()


@pytest.mark.parametrize("kind", OUTLINES)
def test_a_shape_keeps_its_area_wherever_and_however_rotated(kind):
    areas = [
        shape_mask(kind, 80, 90, center_xy=(x, 41.3), radius=25, angle=angle).sum()
        for x, angle in ((40, 0.0), (45.4, 0.7), (50.2, math.pi), (33.3, 4.0))
    ]
    assert max(areas) - min(areas) < 0.05 * min(areas)
    assert 0.15 * math.pi * 25**2 < min(areas) < 1.05 * math.pi * 25**2


def test_the_areas_are_those_of_geometry():
    def area(kind):
        return shape_mask(kind, 120, 120, center_xy=(60, 60), radius=50, angle=0.3).sum() / 50**2

    assert area("ring") == pytest.approx(0.75 * math.pi, rel=0.02)
    assert area("square") == pytest.approx(2, rel=0.03)
    assert area("triangle") == pytest.approx(3 * math.sqrt(3) / 4, rel=0.04)


@pytest.mark.parametrize("name", TEXTURES)
def test_every_texture_is_in_the_installed_wheel(name):
    assert min(load_texture(name).size) >= 256


def test_a_patch_has_the_size_asked_for_even_beyond_the_textures():
    generator = np.random.default_rng(0)
    for size_hw in ((64, 96), (17, 300), (700, 40)):
        patch = random_patch(generator, *size_hw)
        assert patch.shape == (*size_hw, 3) and patch.dtype == np.uint8


def test_a_crop_as_high_as_its_texture_survives_rounding():
    assert 300 / 292 * 292 > 300 and load_texture("chelsea.png").height == 300
    for seed in range(60):  # one in eleven takes that texture
        assert random_patch(np.random.default_rng(seed), 292, 200).shape == (292, 200, 3)
