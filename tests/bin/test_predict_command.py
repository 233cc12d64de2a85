"""`predict` is stopped, killed, resumed and shared among processes.

The folder is that of one undisturbed process, byte for byte.
"""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from predict_runs import (
    files_of,
    forked,
    interrupted,
    kill,
    largest_difference,
    load_task_class,
    predict,
    rows_differ,
    write_mixed,
    write_model,
)

from visionloop.bin.commands.predict_files import LINES, SHEET, save_image, write_sheets
from visionloop.bin.commands.predict_resume import UnfinishedPredictions
from visionloop.engine.errors import FINISHED, STOPPED, USER_ERROR, UserError
from visionloop.engine.predict import num_batches, read_batches
from visionloop.tasks.input_images import find_images
from visionloop.tasks.saved_predictions import PngNames

TASKS = ("classification", "detection", "segmentation", "super_resolution")
# of random weights no query is sure of its class, nor of its pixels
SETTINGS = {
    "instance_segmentation": {"score": 0.2},
    "panoptic_segmentation": {"score": 0.0, "overlap": 0.0},
}


@pytest.fixture(autouse=True)
def one_thread():
    """Forked processes have one, and sums of another number of threads are other sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seven images and a file that is none: four batches of two."""
    folder = write_mixed(tmp_path_factory.mktemp("images") / "in")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """undisturbed(task name) -> (task class, {"model", "input_path"}, files of the output)."""
    made = {}

    def make(task_name):
        if task_name not in made:
            folder, task_class = tmp_path_factory.mktemp(task_name), load_task_class(task_name)
            given = {"model": write_model(task_name, folder), "input_path": images}
            given["settings"] = SETTINGS.get(task_name, {})
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            assert (
                predict(task_class, output=folder / "whole", **given) == USER_ERROR
            )  # for the broken image
            torch.set_num_threads(threads)
            files = files_of(folder / "whole")
            assert rows_differ(map(json.loads, files[LINES].splitlines())), "else nothing is proven"
            made[task_name] = task_class, given, files
        return made[task_name]

    return make


def crash():
    raise RuntimeError("a defect")


@pytest.mark.parametrize("task_name", [*TASKS, *SETTINGS])
def test_a_stopped_and_a_crashed_run_resume_to_the_same_bytes(
    undisturbed, task_name, tmp_path, capsys
):
    task_class, given, files = undisturbed(task_name)
    capsys.readouterr()
    output = tmp_path / "out"
    assert (
        predict(
            interrupted(task_class, 0, kill(signal.SIGTERM)), output=output, as_json=True, **given
        )
        == STOPPED
    )
    printed, errors = capsys.readouterr()
    assert printed.encode() == b"".join(files[LINES].splitlines(keepends=True)[:2])
    assert (
        f"stopped: 2 of 8 images are done, in {output}.part; the same command resumes" in errors
        and not output.exists()
    )
    with pytest.raises(RuntimeError, match="a defect"):
        predict(interrupted(task_class, 1, crash), output=output, **given)
    capsys.readouterr()
    watching = interrupted(task_class, 1, lambda: None)
    assert predict(watching, output=output, as_json=True, **given) == USER_ERROR
    printed, errors = capsys.readouterr()
    assert watching.calls == 2 and "resuming: 4 of 8 images are done" in errors
    assert printed.encode() == files[LINES]  # all lines, also those of earlier starts
    assert (
        f"predicted 7 of 8 images: {output / LINES}, {output / 'contact_sheet.png'}\n" in errors
        and errors.count("error: ") == 1
    )
    assert files_of(output) == files
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_process_loses_no_batch_that_was_predicted(undisturbed, tmp_path, workers):
    task_class, given, files = undisturbed("segmentation")
    log, output = tmp_path / "log", tmp_path / "out"
    codes, _ = forked(
        task_class,
        1,
        log,
        acts=[(2, kill(signal.SIGKILL))],
        output=output,
        workers=workers,
        **given,
    )
    assert codes == [-signal.SIGKILL]
    codes, text = forked(task_class, 1, log, output=output, workers=workers, **given)
    assert codes == [USER_ERROR] and "resuming: 4 of 8 images are done" in text
    assert files_of(output) == files


def test_any_number_of_processes_gives_the_same_folder_and_may_change_between_starts(
    undisturbed, tmp_path
):
    task_class, given, files = undisturbed("segmentation")
    codes, text = forked(
        task_class, 3, tmp_path / "three.log", output=tmp_path / "three", as_json=True, **given
    )
    assert codes == [USER_ERROR, FINISHED, FINISHED], text
    assert files_of(tmp_path / "three") == files
    assert [line for line in text.splitlines() if line.startswith("{")] == files[
        LINES
    ].decode().splitlines()
    # one of two is killed in its first batch: the other predicts the rest, says so, and one process
    # ends it
    log, output = tmp_path / "log", tmp_path / "out"
    codes, text = forked(
        task_class, 2, log, acts=[None, (0, kill(signal.SIGKILL))], output=output, **given
    )
    assert codes == [STOPPED, -signal.SIGKILL], text
    assert (
        "error: another process is gone or does not respond (" in text
        and "the same command resumes" in text
    )
    codes, text = forked(task_class, 1, log, output=output, **given)
    assert codes == [USER_ERROR], text
    assert files_of(output) == files and not output.with_name("out.part").exists()


def test_several_processes_stop_together_and_refuse_together(undisturbed, tmp_path):
    task_class, given, files = undisturbed("segmentation")
    log, output = tmp_path / "log", tmp_path / "out"
    acts = [(0, kill(signal.SIGTERM))] * 2
    codes, text = forked(task_class, 2, log, acts=acts, output=output, **given)
    assert codes == [STOPPED, STOPPED] and text.count("the same command resumes") == 1
    codes, text = forked(task_class, 2, tmp_path / "other", output=output, batch_size=3, **given)
    assert codes == [USER_ERROR, USER_ERROR] and "error: " in text and "error (process 1): " in text
    assert "unfinished predictions with another --batch-size" in text
    codes, text = forked(task_class, 2, log, output=output, **given)
    assert codes == [USER_ERROR, FINISHED] and files_of(output) == files


def test_other_predictions_do_not_resume_in_the_same_unfinished_folder(
    undisturbed, tmp_path, images
):
    task_class, given, _ = undisturbed("classification")
    output = tmp_path / "out"
    assert (
        predict(interrupted(task_class, 1, kill(signal.SIGTERM)), output=output, **given) == STOPPED
    )
    unfinished = files_of(tmp_path)
    shutil.copytree(given["model"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "x", "1": "y"}, "label2id": {"x": 0, "y": 1}})
    )
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "one_more.png").write_bytes((images / "1.jpg").read_bytes())
    others = [
        ({"model": tmp_path / "model"}, "--model"),
        ({"input_path": tmp_path / "images"}, "--input"),
        ({"batch_size": 3}, "--batch-size"),
        ({"explanations": ("attention",)}, "kind of drawing"),
        ({"batch_size": 3, "model": tmp_path / "model"}, "--model, --batch-size"),
    ]
    for changes, name in others:
        why = rf"--output .*out: .*out\.part holds unfinished predictions with another {name}; "
        why += "repeat that command to resume them, or remove this folder"
        with pytest.raises(UserError, match=why):
            predict(task_class, output=output, **given | changes)
    shutil.rmtree(tmp_path / "model"), shutil.rmtree(tmp_path / "images")
    assert files_of(tmp_path) == unfinished
    # a copy of the images elsewhere is the same input
    shutil.copytree(images, tmp_path / "copied")
    assert (
        predict(task_class, output=output, **given | {"input_path": tmp_path / "copied"})
        == USER_ERROR
    )


def test_a_foreign_folder_in_the_place_of_the_unfinished_one_is_left_alone(undisturbed, tmp_path):
    task_class, given, _ = undisturbed("classification")
    (tmp_path / "out.part" / "predictions").mkdir(parents=True)
    (tmp_path / "out.part" / "predictions" / "mine.txt").write_text("keep")
    with pytest.raises(
        UserError,
        match=r"out\.part is in the way: it holds no unfinished predictions of this command",
    ):
        predict(task_class, output=tmp_path / "out", **given)
    assert files_of(tmp_path) == {"out.part/predictions/mine.txt": b"keep"}


def test_earlier_predictions_stay_until_the_new_ones_are_complete(undisturbed, tmp_path):
    task_class, given, files = undisturbed("classification")
    output = tmp_path / "out"
    output.mkdir()
    (output / LINES).write_text("earlier\n")
    assert (
        predict(interrupted(task_class, 1, kill(signal.SIGTERM)), output=output, **given) == STOPPED
    )
    assert files_of(output) == {LINES: b"earlier\n"}
    assert predict(task_class, output=output, **given) == USER_ERROR
    assert files_of(output) == files


def test_predictions_may_be_written_among_the_images(undisturbed, images, tmp_path):
    task_class, given, files = undisturbed("segmentation")
    shutil.copytree(images, tmp_path / "in")
    given, output = given | {"input_path": tmp_path / "in"}, tmp_path / "in" / "out"
    assert (
        predict(interrupted(task_class, 1, kill(signal.SIGTERM)), output=output, **given) == STOPPED
    )
    for _ in range(2):
        assert predict(task_class, output=output, **given) == USER_ERROR
        assert files_of(output) == files


def complete_batch(tmp_path, inputs):
    """UnfinishedPredictions of one batch, which is done and joined, beside earlier predictions."""
    unfinished = UnfinishedPredictions(tmp_path / "out", inputs, 1)
    assert unfinished.begin() == [0]
    unfinished.write(0, [{"file": "a"}])
    unfinished.join_lines()
    unfinished.output.mkdir()
    (unfinished.output / LINES).write_text("earlier\n")
    unfinished.release()
    return unfinished


@pytest.mark.parametrize(
    "cut", ["earlier moved", "earlier half removed", "new moved", "new moved and half removed"]
)
def test_moving_the_predictions_to_their_place_may_be_cut_short_anywhere(tmp_path, cut):
    unfinished = complete_batch(tmp_path, {"model": "m"})
    if cut.startswith("earlier"):
        unfinished.output.rename(unfinished.folder / "replaced")
        if cut.endswith("removed"):
            (unfinished.folder / "replaced" / LINES).unlink()
    else:
        shutil.rmtree(unfinished.output)
        unfinished.predictions.rename(unfinished.output)
        if cut.endswith("removed"):
            shutil.rmtree(unfinished.batches)
    again = UnfinishedPredictions(tmp_path / "out", {"model": "m"}, 1)
    assert again.begin() == [] and again.is_in_place != cut.startswith("earlier")
    again.finish()
    assert files_of(tmp_path) == {f"out/{LINES}": b'{"file": "a"}\n'}


def test_other_predictions_start_again_beside_those_that_are_in_their_place(tmp_path):
    unfinished = complete_batch(tmp_path, {"model": "m"})
    shutil.rmtree(unfinished.output)
    unfinished.predictions.rename(unfinished.output)
    other = UnfinishedPredictions(tmp_path / "out", {"model": "another"}, 1)
    assert other.begin() == [0]
    other.release()
    assert (tmp_path / "out" / LINES).exists()


def _hold(folder, held, done):
    from visionloop.engine.checkpoints.lock import RunLock

    lock = RunLock(folder)
    held.set()
    done.wait(60)
    lock.release()


def test_two_commands_do_not_work_in_one_folder(tmp_path):
    fork = multiprocessing.get_context("fork")
    held, done = fork.Event(), fork.Event()
    unfinished = UnfinishedPredictions(tmp_path / "out", {"model": "m"}, 1)
    other = fork.Process(target=_hold, args=(unfinished.folder, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=r"out\.part: another process is running there"):
        unfinished.begin()
    done.set()
    other.join()


def test_predictions_without_images_are_the_same(undisturbed, tmp_path):
    for task_name, own in (
        ("classification", set()),
        ("detection", {"coco_results.json"}),
        ("segmentation", {"ids", "colors"}),
    ):
        task_class, given, files = undisturbed(task_name)
        output = tmp_path / task_name
        assert predict(task_class, output=output, images=False, **given) == USER_ERROR
        assert {path.name for path in output.iterdir()} == {LINES, *own}
        assert files_of(output).items() <= files.items()


def test_a_folder_of_unreadable_files_alone_is_predicted_too(undisturbed, tmp_path):
    task_class, given, _ = undisturbed("classification")
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(b"nothing")
    assert predict(task_class, given["model"], tmp_path / "in", tmp_path / "out") == USER_ERROR
    assert [
        row["file"] for row in map(json.loads, (tmp_path / "out" / LINES).read_text().splitlines())
    ] == ["a.jpg", "b.png", "c.png"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LINES]


def resident_mib():
    """Memory of this process that is its own, not files'."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_thousands_of_images_need_no_more_memory_than_the_first_hundreds(
    undisturbed, images, tmp_path
):
    """A batch is 16 images; the drawn ones alone, 37 x 145 px each, would be 31 MiB at the end."""
    task_class, given, _ = undisturbed("classification")
    (tmp_path / "in").mkdir()
    for i in range(2000):
        os.link(images / "deep" / "0.png", tmp_path / "in" / f"{i:04d}.png")
    memory = []

    class Watched(task_class):
        def predict(self, module, batch):
            memory.append(resident_mib())
            return super().predict(module, batch)

    assert (
        predict(Watched, given["model"], tmp_path / "in", tmp_path / "out", batch_size=16)
        == FINISHED
    )
    assert len(memory) == 125 and max(memory[-10:]) - max(memory[:10]) < 8


LARGEST = {
    "logits": 1e-4,
    "scores": 1e-4,
    "boxes": 1e-2,
    "labels": 0,
    "ids": 0,
    "images": 1,
}  # boxes: pixels, of images of 150


def predictions_of(task, module, root, names, batch_size):
    """{key: [array of each image]} of the predictions for the list, in batches of this size."""
    arrays = {}
    for read in read_batches(
        task, root, names, batch_size=batch_size, numbers=range(num_batches(len(names), batch_size))
    ):
        with torch.no_grad():
            predictions = task.predict(module, read.batch)
        for key in predictions.keys() & LARGEST:
            arrays.setdefault(key, []).extend(one.float().numpy() for one in predictions[key])
    return arrays


@pytest.mark.parametrize("task_name", TASKS)
def test_images_of_any_sizes_are_predicted_alike_in_batches_of_any_size(
    undisturbed, images, task_name
):
    task_class, given, _ = undisturbed(task_name)
    task, module = task_class.load_trained(given["model"])
    names = [name for name in find_images(images)[1] if name != "broken.jpg"]
    alone = predictions_of(task, module, images, names, 1)
    assert alone and all(len(values) == len(names) for values in alone.values())
    for batch_size in (3, 8):
        together = predictions_of(task, module, images, names, batch_size)
        for key, values in alone.items():
            assert largest_difference(values, together[key]) <= LARGEST[key], (key, batch_size)


def test_files_of_one_stem_get_png_names_of_their_own():
    names = PngNames(["a.jpg", "a.png", "b.jpg", "d/b.jpg", "c.jpg", "c.jpg.jpg"])
    png_names = [
        names.of(name) for name in ("a.jpg", "a.png", "b.jpg", "d/b.jpg", "c.jpg", "c.jpg.jpg")
    ]
    assert png_names == ["a.jpg.png", "a.png.png", "b.png", "d/b.png", "c.png", "c.jpg.jpg.png"]


def test_a_contact_sheet_shows_each_image_above_its_name(tmp_path):
    sheets, green = [], (20, 200, 60)
    for name in ("a.png", "deep/b.png"):
        folder = tmp_path / name
        save_image(folder / "images" / name, np.full((40, 200, 3), green, dtype=np.uint8))
        (folder / LINES).write_text(json.dumps({"file": name}) + "\n")
        write_sheets(folder, ["images"], 200)
        with Image.open(folder / SHEET) as sheet:
            sheets.append(np.array(sheet))
    first, second = sheets
    image_rows = np.flatnonzero((first == green).all(axis=2).any(axis=1))
    name_rows = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert len(image_rows) == 40 and image_rows.max() < name_rows.min()
