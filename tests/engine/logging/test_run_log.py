"""The log of a run: metrics.jsonl, status.json and TensorBoard, on the main rank alone."""

import json
import re
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_task import ToyMetric, ToyTask

from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.logging.run_log import RunLog, cut_lines
from visionloop.engine.system.profiling import Clock
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.train import train

CPU = torch.device("cpu")
MAIN, SECOND = World(0, 0, 2, CPU), World(1, 1, 2, CPU)
TOY = {
    "data": "toy",
    "model": "toy",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "workers": 0,
    "batch_size": 8,
}


def strict(text):
    """json as other languages read it: no NaN, no Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is no json")

    return json.loads(text, parse_constant=refuse)


def rows_of(output):
    return [strict(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def open_log(tmp_path):
    logs = []

    def build(world=MAIN, start_step=0):
        log = RunLog(
            tmp_path,
            world,
            ToyTask,
            steps=100,
            start_step=start_step,
            evaluated_at=start_step,
            epoch_of=lambda step: step // 10,
        )
        logs.append(log)
        return log

    yield build
    for log in logs:
        if log.status is not None:
            log.status.close()


def log_everything(log):
    clock = Clock()
    with clock.measure("compute"):
        pass
    log.training(10, {"loss": 1.5, "loss_class": 1.5}, 0.7, {"all": 1e-3}, clock, 8)
    log.scores(
        10,
        {"accuracy": 0.5, "val_loss": 0.7},
        raw={"accuracy": 0.4, "val_loss": 0.8},
        train_loss=1.5,
    )
    log.images(10, {"images": torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()})
    log.classes(10, ToyTask.metrics[0], {"left": {"accuracy": 0.5, "images": 3}})
    log.result(10, {"lr": 0.1}, {"accuracy": 0.5})
    log.time_breakdown(10, clock.time_breakdown())
    log.info("a line"), log.warn("warned"), log.flush()


def test_each_kind_of_line_has_the_fields_that_readers_rely_on(open_log, tmp_path):
    log_everything(open_log())
    train_row, eval_row, time_row = rows_of(tmp_path)
    for row, kind in ((train_row, "train"), (eval_row, "eval"), (time_row, "time_breakdown")):
        assert (row["kind"], row["step"], row["epoch"]) == (kind, 10, 1) and abs(
            row["time"] - time.time()
        ) < 60
    assert {"loss", "loss_class", "lr", "grad_norm", "step_ms"} <= set(train_row)
    assert (eval_row["train_loss"], eval_row["val_loss"]) == (1.5, 0.7)
    assert (
        eval_row["metrics"] == {"accuracy": 0.5, "val_loss": 0.7}
        and eval_row["metrics_raw"]["accuracy"] == 0.4
    )


def test_infinite_and_undefined_numbers_become_null(open_log, tmp_path):
    inf, nan = float("inf"), float("nan")
    log, clock = open_log(), Clock()
    with clock.measure("compute"):
        pass
    log.training(1, {"loss": nan, "loss_class": -inf}, inf, {"all": 0.1}, clock, 8)
    log.scores(
        1,
        {"accuracy": nan, "val_loss": inf},
        raw={"accuracy": inf, "val_loss": 1.0},
        train_loss=nan,
    )
    train_row, eval_row = rows_of(tmp_path)
    assert (
        train_row["loss"],
        train_row["loss_class"],
        train_row["grad_norm"],
        train_row["lr"],
    ) == (None, None, None, 0.1)
    assert eval_row["metrics"] == {"accuracy": None, "val_loss": None} and eval_row[
        "metrics_raw"
    ] == {"accuracy": None, "val_loss": 1.0}
    assert eval_row["train_loss"] is None and eval_row["val_loss"] is None


def test_a_share_of_nothing_is_printed_as_a_dash_and_a_loss_that_is_no_number_as_it_is(
    open_log, capsys
):
    nan = float("nan")
    open_log().scores(3, {"accuracy": nan, "val_loss": nan})
    printed = capsys.readouterr().out
    assert "accuracy -  " in printed
    assert "nan %" not in printed
    assert printed.rstrip().endswith("nan")


def test_the_score_of_a_trivial_predictor_is_printed_as_the_first_score_is(open_log, capsys):
    open_log().scores(3, {"accuracy": 0.5, "val_loss": 0.7}, reference={"always left": 0.25})
    printed = capsys.readouterr().out
    assert (
        ToyTask.metrics[0].format == "percent"
        and "accuracy 50.00 %" in printed
        and "  always left: 25.00 %\n" in printed
    )


def test_a_line_is_on_disk_as_soon_as_it_is_logged(open_log, tmp_path):
    log = open_log()
    log.scores(3, {"accuracy": 0.5, "val_loss": 0.7})
    assert len(rows_of(tmp_path)) == 1


def test_nothing_is_written_or_printed_off_the_main_rank(open_log, tmp_path, capsys):
    log = open_log(SECOND)
    log_everything(log)
    log.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ("", "")


def test_the_main_rank_writes_all_three_and_prints(open_log, tmp_path, capsys):
    log = open_log()
    log_everything(log)
    log.close()
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.jsonl",
        "status.json",
        "tensorboard",
    }
    out, err = capsys.readouterr()
    assert (
        "step 10/100  loss 1.5000" in out
        and "accuracy 50.00 %" in out
        and err == "warning: warned\n"
    )


# resuming --------------------


def lines(*rows):
    return "".join(json.dumps({"step": step, "kind": kind}) + "\n" for step, kind in rows)


LINE = st.tuples(st.integers(0, 12), st.sampled_from(["train", "eval"]))


@given(rows=st.lists(LINE, max_size=12), step=st.integers(0, 12), cut=st.integers(1, 40))
def test_lines_after_the_step_and_a_half_written_last_one_are_cut(
    tmp_path_factory, rows, step, cut
):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    half = json.dumps({"step": 0, "kind": "train", "loss": 0.25})[:cut]
    path.write_text(lines(*rows) + half)
    cut_lines(path, step, step)
    expected = lines(*((at, kind) for at, kind in rows if at <= step))
    if cut >= 40:
        return
    assert path.read_text() == expected


def test_a_last_line_that_lacks_only_its_line_feed_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines((1, "train"), (2, "train"))[:-1])
    cut_lines(path, 2, 2)
    assert path.read_text() == lines((1, "train"), (2, "train"))


def test_the_time_breakdown_of_the_interrupted_start_is_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines((1, "train"), (2, "eval"), (2, "time_breakdown")))
    cut_lines(path, 2, 2)
    assert path.read_text() == lines((1, "train"), (2, "eval"))


def test_a_run_without_a_log_starts_one(tmp_path):
    cut_lines(tmp_path / "metrics.jsonl", 5, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_log_continues_after_its_step(open_log, tmp_path):
    log = open_log()
    for step in (1, 2, 3):
        log.scores(step, {"accuracy": step / 10, "val_loss": 1.0})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"time": 1.5, "step": 3, "ep')
    log = open_log(start_step=2)
    log.scores(3, {"accuracy": 0.9, "val_loss": 1.0})
    assert [(row["step"], row["metrics"]["accuracy"]) for row in rows_of(tmp_path)] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.9),
    ]


def test_the_first_log_line_after_a_resume_has_the_time_of_its_own_steps(tmp_path):
    """Steps of an earlier start took no time in this one."""
    settings = {
        "output": str(tmp_path),
        "steps": 20,
        "log_every": 10,
        "eval_every": 0,
        "save_every": 10,
        "slow_seconds": 0.004,
    }
    train(ToyTask, **settings, **TOY)
    (tmp_path / "checkpoints" / "step_00000020" / "manifest.json").unlink()
    train(ToyTask, **settings, **TOY)
    times = {row["step"]: row["step_ms"] for row in rows_of(tmp_path) if row["kind"] == "train"}
    assert set(times) == {10, 20} and times[20] >= 8 * 4, (
        "a step takes at least its eight samples of 4 ms"
    )


# whole runs --------------------


def test_a_finished_run_is_logged_as_such_with_its_best(tmp_path, capsys):
    result = train(ToyTask, output=str(tmp_path), steps=6, log_every=2, eval_every=3, **TOY)
    status = strict((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"], status["error"]) == ("finished", 6, None)
    assert (
        status["best"]["step"] == result.best["step"]
        and status["best"]["score"] == result.best["score"]
    )
    rows = rows_of(tmp_path)
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("train", 2), ("eval", 3), ("train", 4), ("train", 6), ("eval", 6), ("time_breakdown", 6),
    ]  # fmt: skip
    assert re.search(r"finished: best accuracy [\d.]+ % at step \d", capsys.readouterr().out)


@pytest.mark.parametrize("mistake", [{"best_metric": "beauty"}, {"profile": "soon"}])
def test_a_run_that_fails_before_its_first_step_does_not_stay_running(tmp_path, mistake):
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match=r"--best-metric|--profile"):
        train(ToyTask, output=str(tmp_path), steps=6, **TOY, **mistake)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not left & {"heartbeat", "prefetcher"}
    path = tmp_path / "status.json"
    assert not path.exists() or strict(path.read_text())["state"] == "failed"


def test_a_failure_in_mid_run_stands_in_the_status_with_its_code(tmp_path):
    with pytest.raises(UserError):
        train(
            ToyTask,
            output=str(tmp_path),
            steps=9,
            max_nonfinite_steps=2,
            log_every=1,
            poison="3,4",
            **TOY,
        )
    status = strict((tmp_path / "status.json").read_text())
    assert (
        status["state"] == "failed"
        and status["error"]["code"] == "nonfinite_steps"
        and "step 4" in status["error"]["message"]
    )


class NeverBetter(ToyMetric):
    def compute(self, picks=None):
        return super().compute(picks) | {"accuracy": 0.5}


def test_an_evaluation_made_again_after_a_kill_stands_in_the_log_once(tmp_path):
    """Stopped in the evaluation of step 6, resumed, killed before the next save, resumed again."""
    stop = StopFlag()

    class Steady(ToyTask):
        def build_metric(self):
            return NeverBetter()

    class StoppedInTheSecondEvaluation(Steady):
        def build_metric(self):
            stop.requested = self.step == 5
            return super().build_metric()

    class DiesInStep7(Steady):
        def before_step(self, module, step, steps):
            if step == 7:
                raise RuntimeError("killed")
            super().before_step(module, step, steps)

    settings = {
        "output": str(tmp_path),
        "steps": 9,
        "log_every": 9,
        "eval_every": 3,
        "save_every": 9,
        "ema": False,
    }
    assert train(StoppedInTheSecondEvaluation, stop=stop, **settings, **TOY).step == 6
    with pytest.raises(RuntimeError, match="killed"):
        train(DiesInStep7, **settings, **TOY)
    train(Steady, **settings, **TOY)
    assert [row["step"] for row in rows_of(tmp_path) if row["kind"] == "eval"] == [3, 6, 9]


class ByClass(ToyTask):
    def per_class_scores(self, metric, picks=None):
        return {
            "left": {"accuracy": 0.25, "images": len(metric)},
            "right": {"accuracy": float("nan"), "images": 0},
        }


def test_a_run_ends_with_the_scores_of_each_class_and_tensorboard_has_them_of_every_evaluation(
    tmp_path, capsys
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(ByClass, output=str(tmp_path), steps=4, log_every=2, eval_every=2, **TOY)
    out = capsys.readouterr().out
    assert out.count("class  ") == 1  # at the end alone
    heading, _, *rows = out.splitlines()[-8:-4]
    assert heading == f"classes at step {result.best['step']}, whose weights are in best/:"
    assert [row.split() for row in rows] == [["left", "25.00", "%", "23"], ["right", "-", "0"]]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    tables = board.Tensors("classes/text_summary")
    assert [event.step for event in tables] == [2, 4]
    assert "| left | 25.00 % | 23 |" in tables[-1].tensor_proto.string_val[0].decode()


class WorseWithEveryStep(ToyTask):
    def build_metric(self):
        metric = super().build_metric()
        self.num_metrics = number = getattr(self, "num_metrics", 0) + 1
        metric.compute = lambda rows=None: {"accuracy": 1 / number, "val_loss": 1.0}
        return metric

    def per_class_scores(self, metric):
        return {"left": {"accuracy": metric.compute()["accuracy"], "images": len(metric)}}


def test_the_classes_at_the_end_are_those_of_the_best_weights(tmp_path, capsys):
    settings = dict(output=str(tmp_path), steps=6, log_every=2, eval_every=2, ema=False, **TOY)
    assert train(WorseWithEveryStep, **settings).best["step"] == 2
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("classes at step 2, whose weights are in best/:")
    assert lines[at + 2].split() == ["left", "100.00", "%", "23"]


def test_tensorboard_holds_the_documented_tags(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(ToyTask, output=str(tmp_path), steps=4, log_every=2, eval_every=2, **TOY)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    scalars = set(board.Tags()["scalars"])
    assert {
        "train/loss",
        "train/loss_class",
        "lr/all",
        "eval/accuracy",
        "eval/val_loss",
        "perf/samples_per_second",
    } <= scalars
    assert {"perf/data_wait_percent", "perf/step_ms", "memory/peak_gib"} <= scalars
    assert [event.step for event in board.Scalars("train/loss")] == [2, 4]
    assert "images" in " ".join(board.Tags()["images"])
