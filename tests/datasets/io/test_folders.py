"""Walks through folders: names that systems add, links, and files that are no images."""

import os

import pytest

from visionloop.datasets.io.folders import (
    conversion_hint,
    count_suffixes,
    passed_over_warning,
    walk_folder,
)
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, require_split


def files_of(folder, **options):
    """Return the paths of all files of a walk, relative to the folder."""
    return [
        os.path.relpath(os.path.join(level, name), folder)
        for level, names in walk_folder(folder, **options)
        for name in names
    ]


def write(folder, *names):
    """Write empty files, with the folders that they lie in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_walk_is_sorted_and_leaves_out_what_systems_add(tmp_path):
    added = ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found", "#recycle"]
    write(tmp_path, "b/1.jpg", "a/2.jpg", "a.jpg", "Thumbs.db", "._a.jpg", "a/desktop.ini")
    write(tmp_path, *(f"{name}/{level}x.jpg" for name in added for level in ("", "ants/")))
    write(tmp_path, *(f"a/{name}/x.jpg" for name in added))
    assert files_of(tmp_path) == ["a.jpg", "a/2.jpg", "b/1.jpg"]
    assert not is_hidden("lost") and not is_hidden("thumbs") and is_hidden("THUMBS.DB")


def test_linked_folders_are_followed_and_no_link_leads_back(tmp_path):
    write(tmp_path, "real/1.jpg", "top/deep/2.jpg")
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "top" / "again").symlink_to(tmp_path / "real")
    (tmp_path / "top" / "deep" / "up").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "above").symlink_to(tmp_path)
    (tmp_path / "real" / "back").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "self").symlink_to("self")
    assert files_of(tmp_path / "top") == ["self", "again/1.jpg", "deep/2.jpg", "linked/1.jpg"]


def test_what_is_neither_file_nor_folder_is_left_out(tmp_path):
    write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").symlink_to("gone.jpg")
    assert files_of(tmp_path) == ["a.jpg", "c.jpg"]


def test_a_walk_that_begins_at_a_link_follows_it(tmp_path):
    write(tmp_path, "real/deep/1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert files_of(tmp_path / "link") == ["deep/1.jpg"]
    assert files_of(tmp_path / "link", without=[str(tmp_path / "link" / "deep")]) == []


def test_a_folder_that_cannot_be_listed_is_an_error_with_its_name(tmp_path):
    with pytest.raises(DataLayoutError, match=r"gone: cannot be listed \(No such file"):
        files_of(tmp_path / "gone")


def test_files_that_are_passed_over_are_counted_by_suffix_with_a_command_for_them():
    counts = count_suffixes(["a.HEIC", "b.heic", "c.avif", "README", "notes.txt", "x.json"])
    text = passed_over_warning(counts, "my data", [".jpg"])
    assert "2 .heic, 1 without suffix, 1 .avif; supported are .jpg" in text
    assert text.endswith("find 'my data' -iname '*.heic' -exec magick mogrify -format jpg {} +"), (
        "names with spaces are quoted"
    )
    assert passed_over_warning(count_suffixes(["notes.txt", "a.json", "a.xml"]), "data", []) == ""
    assert passed_over_warning({}, "data", []) == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.mp4", "ffmpeg"),
        ("a.zip", "extract"),
        ("a", "suffix"),
        ("a.NEF", "mogrify -format png"),
        ("a.foo", ""),
    ],
)
def test_what_to_do_follows_the_kind_of_file(name, hint):
    text = conversion_hint(count_suffixes([name]), "data", ".png")
    assert hint in text and bool(text) == bool(hint)


def test_names_with_backslashes_are_explained_by_a_zip_of_windows(tmp_path):
    write(tmp_path, "train\\ants\\0.jpg")
    with pytest.raises(DataLayoutError, match=r"come from a zip of Windows: extract it again"):
        require_split(tmp_path, "train")
