"""The disk cache of decoded images: equal pixels, decoded once and again after a change."""

import json
import multiprocessing
import os
import pickle
import shutil
import time

import numpy as np
import pytest
from super_resolution_files import some_image, write_image

from visionloop.datasets.cache import store as store_module
from visionloop.datasets.cache import store_files
from visionloop.datasets.cache.store import (
    ImageStore,
    StoreSpec,
    free_bytes,
    missing_bytes,
    open_stores,
)
from visionloop.datasets.cache.store_files import UNFINISHED, CacheError, cache_folder
from visionloop.datasets.io.images import DECODING, UnreadableImage, read_size
from visionloop.datasets.super_resolution.downscale import decode

NAMES = ["a.png", "below/b.png", "c.png"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with NAMES; the cache lies beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "source" / name, some_image(name, 20 + number, 30))
    return tmp_path / "source"


def contents(source, names=NAMES, kind="HR", make=decode):
    return StoreSpec(kind, str(source), list(names), make, read_size)


def open_one(source, **more):
    (store,) = open_stores([contents(source, **more)])
    return store


def never(path):
    raise AssertionError(f"{path} was decoded")


def same_as_files(store, source, names=NAMES):
    return all(
        np.array_equal(store.image(i), decode(source / name)) for i, name in enumerate(names)
    )


def files_of(store):
    return {
        path.name: path.stat().st_ino
        for path in store.folder.iterdir()
        if not path.name.startswith(".")
    }


def test_images_come_back_as_decoded_and_are_read_only(source):
    store = open_one(source)
    assert same_as_files(store, source) and [store.size_hw(i) for i in range(3)] == [
        (20, 30),
        (21, 30),
        (22, 30),
    ]
    assert all(i in store for i in range(3))
    with pytest.raises(ValueError, match="read-only"):
        store.image(0)[0, 0] = 0


def test_each_is_decoded_once_and_found_again(source):
    before = files_of(open_one(source))
    store = open_one(source, make=never)
    assert same_as_files(store, source) and files_of(store) == before and len(before) == 6


def test_the_json_names_what_an_image_was_made_from(source):
    store = open_one(source)
    entries = [json.loads(path.read_text()) for path in store.folder.glob("*.json")]
    (entry,) = [entry for entry in entries if entry["source"] == "below/b.png"]
    status = os.stat(source / "below/b.png")
    assert (entry["bytes"], entry["mtime_ns"]) == (status.st_size, status.st_mtime_ns) and (
        entry["height"],
        entry["width"],
    ) == (21, 30)


def test_a_changed_file_is_decoded_again_and_that_one_alone(source):
    before = files_of(open_one(source))
    write_image(source / "c.png", some_image("other", 10, 11))
    changed = []
    store = open_one(source, make=lambda path: changed.append(path) or decode(path))
    assert changed == [str(source / "c.png")] and same_as_files(store, source)
    assert (
        len(files_of(store)) == 6 and len(set(files_of(store)) & set(before)) == 5
    )  # the old raw file is gone


def test_images_that_another_version_decoded_are_decoded_again(source, monkeypatch):
    """Two versions may give different pixels of the same file."""
    with monkeypatch.context() as patch:
        patch.setattr(store_files, "DECODING", DECODING - 1)
        before = open_one(source)
        assert same_as_files(open_one(source, make=never), source)
    changed = []
    after = open_one(source, make=lambda path: changed.append(path) or decode(path))
    assert len(changed) == len(NAMES) and same_as_files(after, source)
    assert not set(before.raw_files) & set(after.raw_files)
    entry = json.loads(next(after.folder.glob("*.json")).read_text())
    assert entry["decoding"] == DECODING


def test_a_touched_file_of_the_same_size_counts_as_changed(source):
    open_one(source)
    status = os.stat(source / "a.png")
    os.utime(source / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    with pytest.raises(AssertionError, match=r"a\.png was decoded"):
        open_one(source, make=never)


def test_a_copy_that_was_cut_or_deleted_is_decoded_again(source):
    store = open_one(source)
    raws = sorted(store.folder.glob("*.raw"))
    os.truncate(raws[0], 100)
    raws[1].unlink()
    assert same_as_files(open_one(source), source)


def test_kinds_and_folders_do_not_meet(source, tmp_path):
    shutil.copytree(source, tmp_path / "other")
    stores = [open_one(source), open_one(source, kind="LR_x2"), open_one(tmp_path / "other")]
    assert len({store.folder for store in stores}) == 3
    (tmp_path / "link").symlink_to(source)
    assert open_one(tmp_path / "link", make=never).folder == stores[0].folder


def test_more_images_of_the_same_folder_join_those_that_are_there(source):
    open_one(source, names=NAMES[:1])
    decoded = []
    store = open_one(source, make=lambda path: decoded.append(path) or decode(path))
    assert len(decoded) == 2 and same_as_files(store, source)


def test_an_image_that_cannot_be_read_is_left_out_until_it_can(source):
    (source / "a.png").write_bytes(b"")
    store = open_one(source, names=[*NAMES, "missing.png"])
    assert [i in store for i in range(4)] == [False, True, True, False]
    assert np.array_equal(store.image(1), decode(source / NAMES[1]))
    write_image(source / "a.png", some_image("a", 20, 30))
    assert same_as_files(open_one(source), source)


def test_what_an_interrupted_process_left_is_not_taken_and_goes(source):
    folder = contents(source).store_folder
    folder.mkdir(parents=True)
    left_over = folder / f"0123.raw{UNFINISHED}"
    left_over.write_bytes(b"half")
    assert same_as_files(open_one(source), source) and not left_over.exists()


def test_an_interruption_leaves_what_was_whole(source):
    def stop_at_c(path):
        if path.endswith("c.png"):
            raise KeyboardInterrupt
        return decode(path)

    with pytest.raises(KeyboardInterrupt):
        open_one(source, make=stop_at_c)
    decoded = []
    open_one(source, make=lambda path: decoded.append(path) or decode(path))
    assert decoded == [str(source / "c.png")]


def slowly_decode(path):
    with open(os.path.join(os.path.dirname(os.path.dirname(path)), "log"), "a") as log:
        log.write(path + "\n")
    time.sleep(0.02)  # so that the processes do meet
    return decode(path)


def open_and_compare(source, results):
    store = open_one(source, names=NAMES[::2], make=slowly_decode)
    results.put(same_as_files(store, source, NAMES[::2]))


def test_processes_at_once_share_the_work_and_all_get_the_images(source, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=open_and_compare, args=(source, results)) for _ in range(3)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert outcomes == [True] * 3 and len((tmp_path / "log").read_text().splitlines()) == 2


def test_room_is_asked_for_before_anything_is_written(source, monkeypatch):
    assert missing_bytes(contents(source)) == 3 * 30 * (20 + 21 + 22)
    monkeypatch.setattr(store_module, "free_bytes", lambda: 3 * 30 * 63 - 1)
    with pytest.raises(
        CacheError, match=r"images: 0\.00 GiB of decoded images do not fit, .* --cache none$"
    ):
        open_one(source, make=never)
    assert not cache_folder().exists()


def test_what_is_there_already_needs_no_room(source):
    open_one(source)
    write_image(source / "d.png", some_image("d", 5, 7))
    assert (
        missing_bytes(contents(source)) == 0
        and missing_bytes(contents(source, [*NAMES, "d.png", "gone.png"])) == 3 * 5 * 7
    )
    assert free_bytes() > 0


def test_a_cache_that_cannot_be_written_says_what_to_do(source, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(
        CacheError,
        match=r"cannot be written .*set XDG_CACHE_HOME to a folder elsewhere.*--cache none",
    ):
        open_one(source)


def test_the_data_folder_may_be_read_only(source):
    for folder in (source, source / "below"):
        folder.chmod(0o500)
    try:
        assert same_as_files(open_one(source), source)
    finally:
        for folder in (source, source / "below"):
            folder.chmod(0o700)


def test_a_copy_that_vanishes_in_mid_run_is_named(source):
    store = open_one(source)
    for raw in store.folder.glob("*.raw"):
        raw.unlink()
    with pytest.raises(
        UnreadableImage, match=r"the copy in the cache cannot be read .* start again"
    ):
        store.image(0)


def test_a_store_travels_without_its_maps_and_a_subset_keeps_its_order(source):
    store = open_one(source)
    store.image(0)
    assert len(pickle.dumps(store)) < 2000
    assert same_as_files(pickle.loads(pickle.dumps(store)), source)
    part = store.subset([2, 0])
    assert np.array_equal(part.image(0), store.image(2)) and np.array_equal(
        part.image(1), store.image(0)
    )


def test_few_maps_are_open_at_a_time(source, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_MAPS", 2)
    store = open_one(source)
    first = store.image(0)
    copy = first.copy()
    for i in (1, 2, 1):
        store.image(i)
    assert (
        set(store._maps) == {1, 2} and np.array_equal(first, copy) and same_as_files(store, source)
    )


def test_an_empty_list_is_a_store_of_nothing(source):
    store = open_one(source, names=[])
    assert (
        isinstance(store, ImageStore)
        and store.sizes_hw.shape == (0, 2)
        and not cache_folder().exists()
    )


def test_the_cache_lies_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache/visionloop/images"
