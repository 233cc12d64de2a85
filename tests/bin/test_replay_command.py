"""`replay` repeats a step: it computes what the run computed, and does not change the run."""

import hashlib
import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toy_task import ToyTask

from visionloop.bin import classification
from visionloop.bin.commands.replay import run_replay
from visionloop.datasets.synthetic.writers import WRITERS, write_classification
from visionloop.engine.checkpoints.folder import step_folder_name
from visionloop.engine.errors import UserError
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask

commands = classification.commands  # what the fixture `command` runs

SHORT = dict(
    model="tiny",
    from_scratch=True,
    log_every=1,
    save_every=1,
    eval_every=0,
    keep=99,
    workers=0,
    threads=1,
    device="cpu",
    precision="fp32",
)
TOY = dict(batch_size=8, micro_batch=4, lr=1e-2, steps=6, batch_norm=True) | {
    name: value for name, value in SHORT.items() if name not in ("model", "from_scratch")
}


def logged(run, step):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "train" and row["step"] == step]
    return row


def bytes_below(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_classification(folder, 0, {"train": 20, "val": 4})
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Five steps of 6 in micro-batches of 3 or 2, with mixing and dropped paths."""
    output = tmp_path_factory.mktemp("runs") / "run"
    more = dict(batch_size=6, micro_batch=3, mixup=0.8, drop_path=0.5, clip_grad=0.1)
    train(ClassificationTask, data=str(data), output=str(output), steps=5, **SHORT | more)
    return output


@pytest.mark.parametrize("step", [1, 3, 5])
def test_loss_and_gradient_are_those_that_the_run_logged_bit_for_bit(
    command, run, data, step, tmp_path
):
    before = bytes_below(run)
    code, printed, errors = command(
        "replay", "--run", run, "--step", step, "--output", tmp_path / "out", "--json"
    )
    report, row = json.loads(printed), logged(run, step)
    assert code == 0 and errors == ""
    assert report["losses"]["loss"] == row["loss"] and report["gradient_norm"] == row["grad_norm"]
    assert report["weights"]["step"] == step - 1 and report["weights"]["exact"]
    squares = sum(norm**2 for norm in report["gradient_norms"].values())
    assert len(report["gradient_norms"]) > 1 and squares**0.5 == pytest.approx(
        report["gradient_norm"], rel=1e-5
    )
    assert [row["micro_batch"] for row in report["samples"]] == [0, 0, 0, 1, 1, 1]
    assert all(str(data / "train") in row["name"] for row in report["samples"])
    assert (
        json.loads((tmp_path / "out" / "replay.json").read_text()) == report
        and bytes_below(run) == before
    )


def test_a_step_that_ran_out_of_memory_is_replayed_in_its_smaller_micro_batches(
    command, data, tmp_path, monkeypatch
):
    loss = ClassificationTask.loss

    def scarce_loss(task, model, batch, normalizers):
        if batch.step == 2 and len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(task, model, batch, normalizers)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "loss", scarce_loss)
        more = dict(batch_size=6, micro_batch=3, drop_path=0.5)
        train(ClassificationTask, data=str(data), output=str(output), steps=4, **SHORT | more)
    for step, number in ((2, 2), (3, 6), (4, 6)):
        folder = tmp_path / f"step_{step}"
        _, printed, _ = command(
            "replay", "--run", output, "--step", step, "--output", folder, "--json"
        )
        report, row = json.loads(printed.splitlines()[-1]), logged(output, step)
        assert len({sample["micro_batch"] for sample in report["samples"]}) == number
        assert (report["losses"]["loss"], report["gradient_norm"]) == (
            row["loss"],
            row["grad_norm"],
        )


def test_the_sheet_shows_every_sample_and_the_lines_name_it(command, run, tmp_path):
    code, printed, _ = command("replay", "--run", run, "--step", 2, "--output", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert code == 0 and report["images"] == ["images_1.png"]
    sheet = np.array(Image.open(tmp_path / "out" / "images_1.png"))
    assert sheet.std() > 20 and sheet.shape[0] > 300 and sheet.shape[1] > 300
    lines = printed.splitlines()
    assert (
        sum(line.split()[-1] in {row["name"] for row in report["samples"]} for line in lines) == 6
    )
    assert "loss " + f"{report['losses']['loss']:.6g}  (logged: the same)" in lines


def test_without_the_checkpoint_before_it_the_nearest_earlier_whole_one_is_used_and_said(
    command, run, tmp_path
):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / step_folder_name(4))
    (copy / "checkpoints" / step_folder_name(3) / "model.safetensors").write_bytes(b"")
    code, printed, errors = command(
        "replay", "--run", copy, "--step", 5, "--output", tmp_path / "out"
    )
    assert (
        code == 0 and f"{copy}/checkpoints/step_00000003: damaged, an earlier one is used" in errors
    )
    assert (
        f"weights: {copy}/checkpoints/step_00000002; the run had later ones at this step, of 4 "
        "steps" in printed.splitlines()
    )
    report = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert report["losses"]["loss"] != report["logged"]["loss"] == logged(run, 5)["loss"]


def test_what_cannot_be_replayed_is_one_line(command, run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    foreign, out = tmp_path / "foreign", tmp_path / "out"
    foreign.mkdir()
    (foreign / "thesis.txt").touch()
    cases = {
        f"--step 0: expected 1 to 5, the steps of {run}": (run, 0, out),
        f"--step 6: expected 1 to 5, the steps of {run}": (run, 6, out),
        f"--run {data}: is not the folder of a run (it has no settings.json of visionloop)": (
            data,
            1,
            out,
        ),
        f"--output {run / 'new'}: is a folder in the run, which is not changed; choose another": (
            run,
            1,
            run / "new",
        ),
        f"--output {foreign}: not empty and not written by this command (no replay.json in it)": (
            run,
            1,
            foreign,
        ),
    }
    for message, (folder, step, output) in cases.items():
        code, _, errors = command("replay", "--run", folder, "--step", step, "--output", output)
        assert (code, errors) == (2, f"error: {message}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign"]


def test_data_that_changed_is_refused(command, run, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    moved = shutil.copytree(run, tmp_path / "run")
    settings = (moved / "settings.json").read_text()
    (moved / "settings.json").write_text(
        settings.replace(json.dumps(str(data)), json.dumps(str(copy)))
    )
    assert (
        command("replay", "--run", moved, "--step", 1, "--output", tmp_path / "same")[0] == 0
    )  # a copy is the same data
    next((copy / "train").rglob("*.jpg")).unlink()
    code, _, errors = command("replay", "--run", moved, "--step", 1, "--output", tmp_path / "out")
    assert (
        code == 2
        and errors.startswith(f"error: --data {copy}: the training samples are not those")
        and errors.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "classification",
        "detection",
        "segmentation",
        "instance_segmentation",
        "panoptic_segmentation",
        "super_resolution",
    ],
)
def test_every_task_replays_its_steps_bit_for_bit(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task_class = importlib.import_module(f"visionloop.bin.{name}").load_task_class()
    (tmp_path / "data").mkdir()
    WRITERS[name](tmp_path / "data", 0, {"train": 6, "val": 2})
    small = {
        "detection": {"image_size": 96},
        "segmentation": {"image_size": 64},
        "instance_segmentation": {"image_size": 64},
        "panoptic_segmentation": {"image_size": 64},
        "super_resolution": {"patch_size": 16},
    }.get(name, {})
    output = tmp_path / "run"
    train(
        task_class,
        data=str(tmp_path / "data"),
        output=str(output),
        steps=3,
        batch_size=4,
        micro_batch=2,
        **SHORT | small,
    )
    capsys.readouterr()
    for step in (1, 3):
        run_replay(
            task_class,
            run=output,
            step=step,
            output=tmp_path / f"out_{step}",
            device=None,
            as_json=True,
        )
        report, row = json.loads(capsys.readouterr().out), logged(output, step)
        assert report["losses"] == {name: row[name] for name in report["losses"]} and len(
            report["losses"]
        ) > (name != "classification")
        assert report["gradient_norm"] == row["grad_norm"] and report["weights"]["exact"]
        assert [
            np.array(Image.open(tmp_path / f"out_{step}" / sheet)).std() > 10
            for sheet in report["images"]
        ] == [True]


# on the toy, whose steps can be made to fail --------------------


@pytest.fixture
def replay(tmp_path, capsys):
    """replay(task class, step, **settings) -> (report, lines) of a step of the run in `run`.

    The run may end with non-finite steps.
    """

    def make(task_class, step, **settings):
        output = tmp_path / "run"
        if not output.exists():
            try:
                train(task_class, output=str(output), **TOY | settings)
            except UserError as error:
                assert error.code == "nonfinite_steps"
        capsys.readouterr()
        run_replay(
            task_class, run=output, step=step, output=tmp_path / "out", device="cpu", as_json=False
        )
        return json.loads(
            (tmp_path / "out" / "replay.json").read_text()
        ), capsys.readouterr().out.splitlines()

    return make


def test_a_nonfinite_step_is_nonfinite_again_from_the_weights_it_started_from(replay):
    report, lines = replay(ToyTask, 3, poison="2,3,4,5", max_nonfinite_steps=2, save_every=0)
    assert (
        report["weights"] == report["weights"] | {"step": 2, "exact": True}
        and report["losses"]["loss"] is None
    )
    assert (
        "loss inf  (logged: the same)" in lines and "gradient norm nan  (logged: the same)" in lines
    )


def test_fp16_is_replayed_with_the_scale_of_its_checkpoint(replay, tmp_path):
    report, _ = replay(ToyTask, 4, precision="fp16", poison="0,1")
    row = logged(tmp_path / "run", 4)
    assert (report["losses"]["loss"], report["gradient_norm"]) == (row["loss"], row["grad_norm"])


class GoesBack(ToyTask):
    """Takes its best weights so far before step 5, which those of step 4 are not."""

    def reload_best_at(self, steps):
        return 4


def test_where_the_run_went_back_to_its_best_weights_so_does_the_replay(replay, tmp_path):
    report, _ = replay(GoesBack, 5, eval_every=1, lr=3.0)
    assert report["weights"]["exact"] and report["weights"]["step"] < 4
    assert report["losses"]["loss"] == logged(tmp_path / "run", 5)["loss"]
    shutil.rmtree(report["weights"]["folder"])
    report, _ = replay(GoesBack, 5)
    assert not report["weights"]["exact"] and report["weights"]["step"] == 4


def test_micro_batches_are_those_of_the_processes_that_the_run_was_started_on(replay, tmp_path):
    report, _ = replay(ToyTask, 2)
    settings, environment = (
        json.loads((tmp_path / "run" / f"{name}.json").read_text())
        for name in ("settings", "environment")
    )
    settings["settings"]["micro_batch"]["value"] = (
        8  # on two processes each has four: the same micro-batches
    )
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    alone, _ = replay(ToyTask, 2)
    assert alone["losses"] != report["losses"]  # other noise
    (tmp_path / "run" / "environment.json").write_text(json.dumps(environment | {"processes": 2}))
    assert replay(ToyTask, 2)[0] == report


class Worn(ToyTask):
    """Two images that could be read while it was trained."""

    def build_datasets(self):
        train_set, val = super().build_datasets()
        train_set.unreadable = self.unreadable
        return train_set, val

    unreadable = ()


def test_all_samples_that_cannot_be_read_are_named(replay, tmp_path, monkeypatch):
    ids = [row["id"] for row in replay(Worn, 2)[0]["samples"]]
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(Worn, "unreadable", (ids[1], ids[6]))
    with pytest.raises(UserError, match="2 of 8 samples of step 2 cannot be read") as caught:
        replay(Worn, 2)
    assert str(caught.value).endswith(
        f": train/{ids[1]}.png: broken on purpose; train/{ids[6]}.png: broken on purpose"
    )
    assert not (tmp_path / "out").exists()


def test_skipped_samples_are_named_and_replaced(replay, tmp_path):
    gone = 17
    report, lines = replay(
        ToyTask, 1, unreadable=str(gone), skip_unreadable=True, batch_size=40, micro_batch=40
    )
    assert report["skipped"] == [f"train/{gone}.png"] and gone not in [
        row["id"] for row in report["samples"]
    ]
    assert f"unreadable samples, replaced by the next: train/{gone}.png" in lines
    assert report["losses"]["loss"] == logged(tmp_path / "run", 1)["loss"]


def train_sharded(output, settings):
    train(ToyTask, output=output, shard="full", **TOY | settings)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_of_a_sharded_run_is_replayed_by_one_process_from_its_shards(
    replay, tmp_path, processes
):
    output = tmp_path / "run"
    on_ranks(processes, train_sharded, str(output), {"steps": 4}, context="fork")
    folder = output / "checkpoints" / step_folder_name(3)
    assert (folder / f"weights-00001-of-0000{processes}.safetensors").exists()
    # processes that were forked know their number from their own environment
    environment = json.loads((output / "environment.json").read_text())
    assert environment["processes"] == processes
    report, lines = replay(ToyTask, 4)
    row = logged(output, 4)
    assert report["weights"]["folder"] == str(folder) and report["weights"]["exact"]
    near = 0 if processes == 1 else 1e-5  # sums in another order
    assert report["losses"]["loss"] == pytest.approx(row["loss"], rel=near)
    assert report["gradient_norm"] == pytest.approx(row["grad_norm"], rel=near)
    assert ("(logged: the same)" in " ".join(lines)) >= (processes == 1)
    (folder / "weights-00001-of-00001.safetensors").unlink(missing_ok=True)
    (folder / "state.json").write_text("{}")
    assert not replay(ToyTask, 4)[0]["weights"]["exact"]  # a damaged one is not used
