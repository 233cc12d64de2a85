"""A start with other data than the run began with says what changed and what to do."""

import pytest

from visionloop.engine.checkpoints.dataset_record import (
    RECORD,
    require_same_data,
    write_dataset_record,
)
from visionloop.engine.errors import UserError


class Images:
    """A dataset of names below a data folder, whose fingerprint is all of its content."""

    def __init__(self, names, classes=("a", "b"), sizes="", data="data"):
        self.names, self.classes, self.sizes, self.data = names, classes, sizes, data

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return f"{self.data}/train/{self.names[index]}"

    def fingerprint(self):
        return repr((self.names, self.classes, self.sizes))


FIRST = Images(["a/0.jpg", "a/1.jpg", "b/0.jpg"])


@pytest.mark.parametrize(
    ("second", "change"),
    [
        (
            Images(["a/0.jpg", "a/1.jpg", "b/0.jpg", "c/0.jpg"], ("a", "b", "c")),
            r"3 classes, there were 2 \(1 new: c\); 4 images, there were 3; 1 new, the first is "
            r"train/c/0\.jpg;",
        ),
        (Images(["a/0.jpg", "b/0.jpg"]), r"2 images, there were 3; 1 missing, .* train/a/1\.jpg;"),
        (Images(["b/0.jpg", "a/0.jpg", "a/1.jpg"]), r": the order of the images, first at .*b/0"),
        (Images(FIRST.names, ("b", "a")), r"2 classes, there were 2 \(in another order\)"),
        (Images(FIRST.names, sizes="1"), r": the same 3 names; labels, annotations or file sizes"),
        (Images(["caf\udce9.jpg", *FIRST.names]), "1 new, the first is train/caf"),
    ],
)
def test_what_changed_is_said_with_numbers_and_the_first_name(tmp_path, second, change):
    write_dataset_record(tmp_path, FIRST, "data", FIRST.fingerprint())
    with pytest.raises(UserError, match=rf"^--data data: .*{change}.*--output") as raised:
        check(tmp_path, second)
    assert "\n" not in str(raised.value) and raised.value.code == "changed_data"


def check(run, dataset, data="data"):
    """Compare a dataset with that of a run, whose fingerprint was that of FIRST."""
    require_same_data(
        FIRST.fingerprint(),
        dataset.fingerprint(),
        dataset,
        data=data,
        run=run,
        checkpoint=run / "checkpoints/step_1",
    )


def test_the_same_data_elsewhere_is_no_change_and_the_record_has_the_same_bytes(tmp_path):
    write_dataset_record(tmp_path, FIRST, "data", FIRST.fingerprint())
    before = (tmp_path / RECORD).read_bytes()
    moved = Images(FIRST.names, data="/other/place")
    check(tmp_path, moved, "/other/place")
    (tmp_path / RECORD).unlink()
    write_dataset_record(tmp_path, moved, "/other/place", moved.fingerprint())
    assert (tmp_path / RECORD).read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b half", b"no gzip"])
def test_without_a_readable_record_the_number_of_images_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(UserError, match="2 images now; what there was is not on record"):
        check(tmp_path, Images(["a/0.jpg", "b/0.jpg"]))
    write_dataset_record(tmp_path, FIRST, "data", FIRST.fingerprint())  # in its place


def test_a_million_names_are_small(tmp_path):
    names = [f"n{i // 1300:08}/n{i // 1300:08}_{i}.JPEG" for i in range(20_000)]
    images = Images(names)
    write_dataset_record(tmp_path, images, "data", images.fingerprint())
    assert (tmp_path / RECORD).stat().st_size < 8 * len(names)
