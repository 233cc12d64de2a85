"""The command that writes sample data, as a user runs it."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.bin.sample_data import main
from visionloop.datasets.segmentation.layout import require_segmentation_split
from visionloop.datasets.segments.layout import require_segments_split
from visionloop.datasets.super_resolution.layout import require_super_resolution_split
from visionloop.datasets.synthetic.segmentation import CLASSES, SPLITS
from visionloop.datasets.synthetic.segments import SPLITS as SEGMENTS
from visionloop.datasets.synthetic.super_resolution import SPLITS as PHOTOGRAPHS

SCRIPT = Path(__file__).resolve().parents[2] / "bin" / "sample_data.py"


@pytest.fixture
def sample_data(monkeypatch, capsys):
    """Arguments -> (exit status, stdout, stderr) of the console script."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["visionloop-sample-data", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code, *capsys.readouterr()

    return call


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "new" / "data"
    result = subprocess.run(
        [sys.executable, SCRIPT, "classification", folder],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return folder


def test_the_data_lies_in_its_folder_and_nothing_unfinished_beside_it(written):
    assert sorted(path.name for path in written.iterdir()) == ["sample_data.json", "train", "val"]
    assert [path.name for path in written.parent.iterdir()] == ["data"]


def test_running_it_again_is_reported_and_changes_nothing(written, sample_data):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    status, out, _ = sample_data("classification", written)
    assert status == 0 and "already there" in out
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_an_empty_folder_is_taken_and_the_bytes_are_the_same(written, sample_data, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, err = sample_data("classification", tmp_path / "empty", "--seed", "0")
    assert status == 0 and "wrote" in out and err == ""
    assert contents(tmp_path / "empty") == contents(written)


def test_other_sample_data_in_the_folder_is_kept(written, sample_data):
    before = contents(written)
    status, _, err = sample_data("classification", written, "--seed", "5")
    assert status == 2 and "seed 0, not 5" in err
    assert contents(written) == before


def test_a_foreign_folder_is_refused_in_one_line_and_left_alone(sample_data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    for name in ("mine", "file"):
        status, _, err = sample_data("classification", tmp_path / name)
        assert status == 2 and err.count("\n") == 1 and str(tmp_path / name) in err
    assert contents(tmp_path) == before


def test_the_masks_of_segmentation_lie_beside_their_images(sample_data, tmp_path):
    assert sample_data("segmentation", tmp_path / "data")[0] == 0
    for split, count in SPLITS.items():
        index = require_segmentation_split(tmp_path / "data", split)  # pairs them up
        assert len(index) == count and index.classes == CLASSES


def test_the_small_images_of_super_resolution_lie_beside_those_of_validation(sample_data, tmp_path):
    assert sample_data("super-resolution", tmp_path / "data")[0] == 0
    for split, count in PHOTOGRAPHS.items():
        index = require_super_resolution_split(tmp_path / "data", split, 2)  # pairs them up
        assert len(index) == count and bool(index.lr_folder) == (split == "val")
    assert sample_data("super_resolution", tmp_path / "data")[1].endswith("is already there\n")


@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_segments_are_written_under_the_short_and_the_full_name_of_their_task(
    sample_data, tmp_path, kind
):
    assert sample_data(kind, tmp_path / "data")[0] == 0
    for split, count in SEGMENTS.items():
        assert len(require_segments_split(tmp_path / "data", split, kind)) == count
    for name in (f"{kind}-segmentation", f"{kind}_segmentation"):
        assert sample_data(name, tmp_path / "data")[1].endswith("is already there\n")


def test_an_unknown_task_is_reported_in_one_line(sample_data, tmp_path):
    status, _, err = sample_data("clasification", tmp_path / "x")
    assert (
        status == 2
        and "classification, detection, instance_segmentation, panoptic_segmentation, "
        "segmentation, super_resolution"
        in err
        and err.count("\n") == 1
    )
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(sample_data, tmp_path):
    (tmp_path / "file").write_text("x")
    status, _, err = sample_data("classification", tmp_path / "file" / "data")
    assert status == 2 and err.count("\n") == 1
