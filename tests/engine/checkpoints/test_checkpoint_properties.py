"""Damage of any kind, anywhere in a checkpoint: it is detected, and the older one is used."""

import hashlib
import json
import shutil
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import (
    latest_valid,
    problems,
    step_folder_name,
    write_folder,
)
from visionloop.engine.checkpoints.manifest import MANIFEST, sha256
from visionloop.engine.checkpoints.writer import save_tensors

FILES = (
    "ema.safetensors",
    "config.json",
    "labels/names.txt",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
)


def fill(step):
    """Fills a folder with files of the kinds and names that a run writes."""

    def write(folder):
        weights = {"weight": torch.full((3, 2), float(step)), "bias": torch.zeros(1)}
        save_tensors(folder / "model.safetensors", weights)
        save_tensors(folder / "ema.safetensors", weights)
        save_tensors(
            folder / "optimizer.safetensors",
            {"weight/exp_avg": torch.ones(3, 2), "weight/step": torch.tensor(float(step))},
        )
        write_json(folder / "config.json", {"model_type": "toy"})
        write_json(
            folder / "state.json",
            {"step": step, "scores": {"accuracy": 0.5}, "micro_batches": [[0, 8]]},
        )
        (folder / "labels").mkdir()
        (folder / "labels" / "names.txt").write_text("cat\ndog\n")

    return write


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two valid ones, of steps 4 and 8."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (4, 8):
        write_folder(folder / step_folder_name(step), fill(step))
    assert sorted(
        json.loads((folder / step_folder_name(8) / MANIFEST).read_text())["files"]
    ) == sorted(FILES)
    return folder


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "step_00000005"
    write_folder(folder, fill(5))
    return folder


def every_file(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def written(path, content):
    """The file with other content, until the end of the block."""
    good = path.read_bytes()
    try:
        path.write_bytes(content)
        yield
    finally:
        path.write_bytes(good)


def flip(content, bit):
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def assert_passed_over(checkpoints):
    warnings = []
    assert latest_valid(checkpoints, warnings.append) == checkpoints / step_folder_name(4)
    assert len(warnings) == 1 and "\n" not in warnings[0] and step_folder_name(8) in warnings[0]


def test_a_written_folder_is_whole_and_its_manifest_lists_every_file(whole_folder):
    assert problems(whole_folder) == []
    files = json.loads((whole_folder / "manifest.json").read_text())["files"]
    assert sorted(files) == sorted(FILES)
    assert [path.name for path in whole_folder.parent.iterdir()] == [whole_folder.name], (
        "nothing temporary is left beside it"
    )


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_anywhere_is_detected(whole_folder, data):
    path = data.draw(
        st.sampled_from([path for path in every_file(whole_folder) if path.name != "manifest.json"])
    )
    good = path.read_bytes()
    place, other = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(good[:place] + bytes([good[place] ^ other]) + good[place + 1 :])
        assert problems(whole_folder) == [
            f"{path.relative_to(whole_folder)}: content changed (SHA-256 differs)"
        ]
    finally:
        path.write_bytes(good)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_in_the_manifest_is_detected_or_changes_nothing_it_says(whole_folder, data):
    path = whole_folder / "manifest.json"
    good = path.read_bytes()
    place, other = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(good[:place] + bytes([good[place] ^ other]) + good[place + 1 :])
        if not problems(whole_folder):
            assert json.loads(path.read_text())["files"] == json.loads(good)["files"]
    finally:
        path.write_bytes(good)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncation_anywhere_is_detected(whole_folder, data):
    path = data.draw(st.sampled_from(every_file(whole_folder)))
    good = path.read_bytes()
    # the manifest's last byte is a line feed that says nothing
    length = data.draw(st.integers(0, len(good) - 1 - (path.name == "manifest.json")))
    try:
        path.write_bytes(good[:length])
        assert problems(whole_folder)
    finally:
        path.write_bytes(good)


def test_a_file_that_is_missing_or_longer_is_detected(whole_folder, tmp_path):
    for path in every_file(whole_folder):
        folder = tmp_path / path.name
        shutil.copytree(whole_folder, folder)
        (folder / path.relative_to(whole_folder)).unlink()
        assert len(problems(folder)) == 1 and "missing" in problems(folder)[0]
        if path.name != "manifest.json":
            (folder / path.relative_to(whole_folder)).write_bytes(path.read_bytes() + b"\0")
            assert len(problems(folder)) == 1 and "bytes, expected" in problems(folder)[0]


NO_MANIFEST = [
    "",
    "{",
    "[]",
    "5",
    "null",
    "{}",
    '{"files": 5}',
    '{"files": {"a": 1}}',
    '{"files": {"a": {"size": 1}}}',
    "\xff",
]


@pytest.mark.parametrize("text", NO_MANIFEST)
def test_a_manifest_that_is_none_is_a_problem_and_no_crash(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    assert problems(tmp_path) == ["manifest.json: missing or unreadable"]


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    assert problems(tmp_path / "absent")


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(FILES), data=st.data())
def test_any_flipped_bit_makes_the_run_resume_from_the_older_one(checkpoints, name, data):
    path = checkpoints / step_folder_name(8) / name
    content = path.read_bytes()
    with written(path, flip(content, data.draw(st.integers(0, 8 * len(content) - 1)))):
        assert_passed_over(checkpoints)
    assert latest_valid(checkpoints) == checkpoints / step_folder_name(8)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_of_the_manifest_is_detected_unless_its_content_is_equal(checkpoints, data):
    """Blanks may change, and how a letter is written."""
    path = checkpoints / step_folder_name(8) / MANIFEST
    content = path.read_bytes()
    changed = flip(content, data.draw(st.integers(0, 8 * len(content) - 1)))
    with written(path, changed):
        if problems(path.parent):
            assert_passed_over(checkpoints)
        else:
            assert json.loads(changed) == json.loads(content)


@pytest.mark.parametrize("name", [*FILES, "everything"])
def test_a_manifest_that_no_longer_names_a_file_is_damaged(checkpoints, name):
    path = checkpoints / step_folder_name(8) / MANIFEST
    content = json.loads(path.read_text())
    content["files"] = {
        file: entry for file, entry in content["files"].items() if name not in (file, "everything")
    }
    with written(path, json.dumps(content).encode()):
        assert_passed_over(checkpoints)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/hostname", "labels/../../outside.txt", "a\0b", "n" * 300]
)
def test_a_manifest_that_names_a_file_elsewhere_or_none_at_all_is_damaged(tmp_path, name):
    write_folder(tmp_path / "step_00000008", fill(8))
    (tmp_path / "outside.txt").write_text("not ours")
    path = tmp_path / "step_00000008" / MANIFEST
    files = {name: {"size": 8, "sha256": sha256(tmp_path / "outside.txt")}}
    write_json(
        path,
        {
            "schema": 1,
            "files": files,
            "sha256": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
        },
    )
    assert len(problems(path.parent)) == 1


def test_a_manifest_nested_without_end_is_a_problem_and_no_crash(tmp_path):
    (tmp_path / MANIFEST).write_text("[" * 100_000)
    assert problems(tmp_path) == [f"{MANIFEST}: missing or unreadable"]


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from((*FILES, MANIFEST)), data=st.data())
def test_any_truncation_makes_the_run_resume_from_the_older_one(checkpoints, name, data):
    path = checkpoints / step_folder_name(8) / name
    content = path.read_bytes()
    # the manifest ends in a line feed that says nothing
    with written(path, content[: data.draw(st.integers(0, len(content) - 1 - (name == MANIFEST)))]):
        assert_passed_over(checkpoints)


@settings(max_examples=100, deadline=None)
@given(
    damaged=st.dictionaries(
        st.sampled_from(FILES),
        st.sampled_from(["flipped", "longer", "shorter", "empty", "gone", "other"]),
        min_size=1,
    ),
    data=st.data(),
)
def test_every_damaged_file_is_named_and_no_other(checkpoints, tmp_path_factory, damaged, data):
    folder = shutil.copytree(
        checkpoints / step_folder_name(8), tmp_path_factory.mktemp("copy") / step_folder_name(8)
    )
    for name, how in damaged.items():
        path = folder / name
        content = path.read_bytes()
        if how == "gone":
            path.unlink()
            continue
        path.write_bytes({
            "flipped": flip(content, data.draw(st.integers(0, 8 * len(content) - 1))),
            "longer": content + b"\0",
            "shorter": content[:-1],
            "empty": b"",
            "other": bytes(reversed(content)),  # of the same size
        }[how])  # fmt: skip
    damage = problems(folder)
    assert sorted(line.split(": ")[0] for line in damage) == sorted(damaged) and not any(
        "\n" in line for line in damage
    )


@settings(max_examples=100, deadline=None)
@given(names=st.lists(st.sampled_from(FILES), min_size=2, max_size=2, unique=True))
def test_files_that_changed_places_are_damaged(checkpoints, tmp_path_factory, names):
    folder = shutil.copytree(
        checkpoints / step_folder_name(8), tmp_path_factory.mktemp("copy") / step_folder_name(8)
    )
    one, other = (folder / name for name in names)
    content = one.read_bytes()
    is_same = content == other.read_bytes()  # weights and their EMA at the first step
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert sorted(line.split(": ")[0] for line in problems(folder)) == (
        [] if is_same else sorted(names)
    )


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60))
def test_a_manifest_of_any_bytes_is_a_problem_and_no_crash(checkpoints, content):
    with written(checkpoints / step_folder_name(8) / MANIFEST, content):
        assert_passed_over(checkpoints)
