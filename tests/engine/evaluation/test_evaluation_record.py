"""Records of evaluations: written whole, the same after a stop, with the right samples."""

import errno
import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toy_task import ToyConfig, ToyMetric, ToyTask

from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.evaluation.record import (
    Evaluation,
    class_table_of,
    confusion_of,
    curve_of,
    cut_records,
    make_record,
    write_record,
)
from visionloop.engine.evaluation.samples import (
    EvalSample,
    fixed_samples,
    select_samples,
)
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.engine.testing.short_runs import logged, on_ranks
from visionloop.engine.train import train

SETTINGS = dict(
    data="toy",
    model="toy",
    steps=6,
    batch_size=8,
    micro_batch=4,
    lr=1e-2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=2,
    save_every=2,
    keep=9,
)
FIELDS = [
    *("schema", "step", "epoch", "scores", "raw_scores", "intervals", "reference", "classes"),
    *("confusion", "curves", "sample_score", "fixed", "worst"),
]


def read_record(path):
    """The record as other languages read it: no NaN, no Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is no json")

    return json.loads((path / "record.json").read_text(), parse_constant=refuse)


def folders(output):
    return sorted((output / "evaluations").iterdir())


def files_of(output):
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


class ReportingToy(ToyTask):
    """With every reporting hook, and numbers that JSON does not have."""

    def per_class_scores(self, metric, picks=None):
        return {
            "left": {"accuracy": 0.25, "images": len(metric)},
            "right": {"accuracy": float("nan"), "images": 0},
        }

    def reference_scores(self, metric):
        return {"always left": float("inf")}

    def confusion(self, metric):
        return ("left", "right"), np.array([[1, 2], [3, len(metric)]]), "images"

    def curves(self, metric):
        lines = [{"name": "left", "x": np.array([0.0, 0.5, 1.0]), "y": [1 / 3, float("nan"), 0]}]
        return [{"title": "recall", "x": "recall", "y": "precision", "lines": lines}]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The folder of a finished run of ReportingToy."""
    output = tmp_path_factory.mktemp("finished_run")
    train(ReportingToy, output=str(output), **SETTINGS)
    return output


# what a record holds --------------------


def test_every_evaluation_has_a_whole_record_with_the_scores_of_the_log(finished_run):
    records = [read_record(folder) for folder in folders(finished_run)]
    assert [list(record) for record in records] == [FIELDS] * 3
    evals = [row for row in logged(finished_run) if row["kind"] == "eval"]
    assert [(row["step"], row["epoch"], row["metrics"], row["metrics_raw"]) for row in evals] == [
        (record["step"], record["epoch"], record["scores"], record["raw_scores"])
        for record in records
    ]
    low, high = records[-1]["intervals"]["val_loss"]
    assert low <= records[-1]["scores"]["val_loss"] <= high
    assert not list((finished_run / "evaluations").glob(".*")), "nothing half-written stays"


def test_the_record_holds_the_results_of_the_hooks_and_null_for_nan_and_inf(finished_run):
    record = read_record(folders(finished_run)[-1])
    assert record["reference"] == {"always left": None}
    assert record["classes"]["columns"] == [
        {"key": "accuracy", "format": "percent"},
        {"key": "images", "format": "integer"},
    ]
    assert record["classes"]["rows"] == [
        {"name": "left", "values": [0.25, 23]},
        {"name": "right", "values": [None, 0]},
    ]
    assert record["confusion"] == {
        "classes": ["left", "right"],
        "counts": [[1, 2], [3, 23]],
        "unit": "images",
    }
    assert record["curves"][0]["lines"] == [
        {"name": "left", "x": [0.0, 0.5, 1.0], "y": [0.33333, None, 0.0]}
    ]
    assert record["sample_score"] == {
        "label": "loss",
        "format": "float",
        "higher_is_better": False,
        "description": "cross-entropy",
    }


def test_images_stand_beside_the_record_and_are_all_there_are(finished_run):
    for folder in folders(finished_run):
        record = read_record(folder)
        images = [sample["image"] for sample in record["fixed"] + record["worst"]]
        assert {path.name for path in folder.iterdir()} == {"record.json", *filter(None, images)}
    assert images == [f"{kind}_{i:02}.jpg" for kind in ("fixed", "worst") for i in range(8)]
    with Image.open(folder / "worst_00.jpg") as image:
        assert image.format == "JPEG" and image.size == (8, 8)


def test_a_task_without_hooks_has_a_record_too(tmp_path):
    class Silent(ToyTask):
        sample_score = None
        draw_samples, draw_gallery, sample_scores = (
            Task.draw_samples,
            Task.draw_gallery,
            Task.sample_scores,
        )

    train(Silent, output=str(tmp_path), **SETTINGS | {"ema": False})
    record = read_record(folders(tmp_path)[-1])
    assert list(record) == FIELDS and record["raw_scores"] is None and record["worst"] == []
    assert (
        record["classes"] is record["confusion"] is record["sample_score"] is None
        and record["curves"] == []
    )
    assert record["fixed"][0] == {"name": "val/1.png", "image": None, "score": None}
    assert [path.name for path in folders(tmp_path)[-1].iterdir()] == ["record.json"]


def test_a_confusion_of_many_classes_is_left_out():
    class Confused:
        def __init__(self, number):
            self.number = number

        def confusion(self, metric):
            return (
                [str(i) for i in range(self.number)],
                np.zeros((self.number, self.number), dtype=np.int64),
                "images",
            )

    assert (
        len(confusion_of(Confused(200), None)["counts"]) == 200
        and confusion_of(Confused(201), None) is None
    )


def test_a_column_is_of_integers_when_all_its_numbers_are():
    assert class_table_of({}, "percent") is None
    table = class_table_of({"a": {"AP": 1, "n": 2}, "b": {"AP": 0.5, "n": 3}}, "percent")
    assert [column["format"] for column in table["columns"]] == ["percent", "integer"]


# samples --------------------


def test_the_fixed_samples_are_the_same_at_every_evaluation(finished_run):
    names = [
        [sample["name"] for sample in read_record(folder)["fixed"]]
        for folder in folders(finished_run)
    ]
    assert names[0] == names[1] == names[2] and len(set(names[0])) == 8


def test_the_worst_are_those_with_the_worst_scores_of_all(finished_run):
    task = ToyTask(ToyConfig(data="toy", model="toy"))
    _, val = task.build_datasets()
    torch.manual_seed(3)
    metric = evaluate_dataset(task, task.build_model(), val, batch_size=5)
    selected = select_samples(task, metric, val)
    losses = metric.rows[:, 2]
    worst, fixed = selected["worst"], selected["fixed"]
    assert [sample.index for sample in worst] == np.argsort(-losses, kind="stable")[:8].tolist()
    assert [sample.score for sample in worst] == sorted(losses.tolist(), reverse=True)[:8]
    fixed_losses = losses[[sample.index for sample in fixed]].tolist()
    assert [sample.score for sample in fixed] == fixed_losses
    scores = [sample["score"] for sample in read_record(folders(finished_run)[-1])["worst"]]
    assert scores == sorted(scores, reverse=True)


# what must not change --------------------


def test_drawing_changes_no_bit_of_the_training(tmp_path):
    class Drawing(ToyTask):
        def draw_samples(self, batch, predictions):
            torch.rand(5), np.random.rand()
            return super().draw_samples(batch, predictions)

    class Silent(ToyTask):
        draw_samples = Task.draw_samples

    files_of_runs = []
    for task_class in (Drawing, Silent):
        output = tmp_path / task_class.__name__
        train(task_class, output=str(output), batch_norm=True, **SETTINGS)
        files_of_runs.append(
            {
                name: content
                for name, content in files_of(output).items()
                if name.startswith(("checkpoints", "best"))
            }
        )
    assert len(files_of_runs[0]) > 8 and files_of_runs[0] == files_of_runs[1]


def two_ranks(output):
    train(ReportingToy, output=output, **SETTINGS)


def test_two_processes_write_the_record_of_one(finished_run, tmp_path):
    on_ranks(2, two_ranks, str(tmp_path), context="fork")
    for mine, others in zip(folders(finished_run), folders(tmp_path), strict=True):
        one, two = read_record(mine), read_record(others)
        for kind in ("fixed", "worst"):
            names = [[sample["name"] for sample in record[kind]] for record in (one, two)]
            assert names[0] == names[1]
        assert (
            two["scores"] == pytest.approx(one["scores"], rel=1e-4)
            and one["confusion"] == two["confusion"]
        )


def test_a_stop_while_samples_are_drawn_leaves_the_bytes_of_a_straight_run(finished_run, tmp_path):
    stop = StopFlag()

    class Stopped(ReportingToy):
        drawn = 0

        def draw_samples(self, batch, predictions):
            Stopped.drawn += 1
            stop.requested = Stopped.drawn == 19  # in the second evaluation with images
            return super().draw_samples(batch, predictions)

    assert train(Stopped, output=str(tmp_path), stop=stop, **SETTINGS).state == "stopped"
    at_stop = [folder.name for folder in folders(tmp_path)]
    assert len(at_stop) < 3, "dropped where it was"
    train(ReportingToy, output=str(tmp_path), **SETTINGS)
    assert files_of(tmp_path / "evaluations") == files_of(finished_run / "evaluations")


def test_a_resumed_run_writes_the_records_after_its_checkpoint_again(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run/checkpoints" / f"step_{step:08d}", ignore_errors=True)
    assert [folder.name for folder in sorted((tmp_path / "run/checkpoints").iterdir())] == [
        "step_00000002"
    ]
    (tmp_path / "run/evaluations/step_00000006/worst_00.jpg").write_bytes(b"of another past")
    train(ReportingToy, output=str(tmp_path / "run"), **SETTINGS)
    assert files_of(tmp_path / "run/evaluations") == files_of(finished_run / "evaluations")


def test_records_after_the_last_evaluation_of_the_checkpoint_are_removed(tmp_path):
    for name in ("step_00000002", "step_00000004", "step_00000006", ".step_00000006.writing"):
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "record.json").write_text("{}")
    cut_records(tmp_path, 4)
    assert [folder.name for folder in folders(tmp_path)] == ["step_00000002", "step_00000004"]
    cut_records(tmp_path / "no run", 0)


# what may go wrong --------------------


def test_an_image_that_has_become_unreadable_is_left_out(tmp_path):
    class Vanishing(ToyTask):
        def sample_scores(self, metric):  # called once the whole set has been evaluated
            self.val.unreadable = (fixed_samples(23)[2],)
            return super().sample_scores(metric)

        def build_datasets(self):
            train_set, self.val = super().build_datasets()
            return train_set, self.val

    train(Vanishing, output=str(tmp_path), **SETTINGS | {"eval_every": 0, "ema": False})
    images = [sample["image"] for sample in read_record(folders(tmp_path)[0])["fixed"]]
    assert images[2] is None and images.count(None) == 1


@pytest.fixture
def record():
    task, metric = ReportingToy(ToyConfig(data="toy", model="toy")), ToyMetric()
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    samples = {"fixed": [EvalSample(0, "a.png", 0.5, image)], "worst": []}
    evaluation = Evaluation(
        step=3,
        epoch=0,
        scores={"accuracy": math.nan},
        raw_scores=None,
        intervals={},
        reference={},
        per_class=task.per_class_scores(metric),
        samples=samples,
    )
    return make_record(task, metric, evaluation), samples


def test_a_record_that_exists_is_replaced_whole(record, tmp_path):
    for _ in range(2):
        assert write_record(tmp_path, *record) is None
        (tmp_path / "evaluations/step_00000003/old.jpg").touch()
    assert write_record(tmp_path, *record) is None
    assert sorted(path.name for path in (tmp_path / "evaluations/step_00000003").iterdir()) == [
        "fixed_00.jpg",
        "record.json",
    ]


def test_a_full_disk_loses_the_record_alone(record, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(os, "rename", full)
    warning = write_record(tmp_path, *record)
    assert "step_00000003: cannot write (No space left on device)" in warning
    assert "the run continues" in warning
    assert list((tmp_path / "evaluations").iterdir()) == []


def test_another_defect_in_writing_is_no_full_disk(record, tmp_path):
    (tmp_path / "evaluations").write_text("a file where the folder belongs")
    with pytest.raises(OSError, match="evaluations"):
        write_record(tmp_path, *record)


def test_a_curve_is_rounded_to_the_digits_that_can_be_seen():
    curve = {"title": "t", "x": "x", "y": "y", "lines": [{"name": "n", "x": [1 / 3], "y": [2]}]}
    assert curve_of(curve)["lines"] == [{"name": "n", "x": [0.33333], "y": [2.0]}] and curve[
        "lines"
    ][0]["x"] == [1 / 3]
