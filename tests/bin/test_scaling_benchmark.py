"""The benchmark of scaling: what its figures say of seconds that are known, and the whole of it on two processes."""

import json

import pytest
import torch
from click.testing import CliRunner
from torchrun_runs import write_classification

from visionloop.bin.benchmarks.scaling import scaling
from visionloop.bin.benchmarks.scaling_ranks import (
    RankStep,
    batch_sizes,
    figures_of,
    measure_rank,
    take_turn,
    without_collectives,
)
from visionloop.engine import distributed


def turn(joined, ranks, first):
    """As of `take_turn`, of two steps that take these seconds: joined, alone on each rank, of the first rank with all samples."""
    seconds = {"joined": [[joined] * 2] * len(ranks), "alone": [[rank] * 2 for rank in ranks]}
    return {"strong": seconds, "weak": seconds, "first": [first] * 2}


def test_collectives_are_beyond_the_slowest_rank_and_waiting_is_up_to_it():
    figures = figures_of([turn(1.0, [0.7, 0.9], 1.6)] * 3, "strong", batch_sizes(2, 8))
    assert figures["collectives_percent"] == 10 and figures["waiting_percent"] == 10
    assert figures["step_ms"] == 1000 and figures["samples_per_second"] == 8
    assert figures["efficiency_percent"] == 80  # 8 samples a second, of twice 5
    assert figures["efficiency_without_collectives_percent"] == 100  # 2 x 4 / 0.8 = 10 of 10
    assert figures["collectives_95_percent"] == [10, 10]


def test_weak_scaling_has_as_many_samples_for_each_process():
    assert batch_sizes(3, 8) == {"strong": 8, "weak": 24} and batch_sizes(1, 8) == {"one": 8}
    figures = figures_of([turn(2.0, [1.6, 1.6], 1.6)] * 3, "weak", batch_sizes(2, 8))
    assert figures["samples_per_second"] == 8 and figures["efficiency_percent"] == 80
    assert (
        figures["efficiency_without_collectives_percent"] == 100 and figures["waiting_percent"] == 0
    )


def test_one_process_needs_nobody_and_its_weights_stay(tmp_path):
    data = write_classification(tmp_path / "data")
    flags = {
        "data": str(data),
        "model": "tiny",
        "image_size": 32,
        "precision": "fp32",
        "threads": 1,
        "device": "cpu",
    }
    step = RankStep("classification", flags, tmp_path / "run", 4)
    before = {name: tensor.clone() for name, tensor in step.run.module.state_dict().items()}
    found = take_turn({"one": step}, steps=2)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in step.run.module.state_dict().items()
    )
    figures = figures_of([found], "one", batch_sizes(1, 4))
    assert (
        len(found["first"]) == 2
        and figures["waiting_percent"] == 0
        and figures["samples_per_second"] > 0
    )


def test_without_collectives_the_joined_world_is_put_aside_and_comes_back(monkeypatch):
    world = object()
    monkeypatch.setattr(distributed, "_joined", world)
    with pytest.raises(KeyError), without_collectives():
        assert distributed.sum_over_joined([1, 2]) == [1, 2]
        raise KeyError
    assert distributed._joined is world


def test_a_mistake_of_the_user_is_handed_to_the_command_as_a_line(tmp_path):
    flags = {
        "data": str(tmp_path / "nowhere"),
        "model": "tiny",
        "precision": "fp32",
        "threads": 1,
        "device": "cpu",
    }
    found = measure_rank("classification", flags, batch_sizes(1, 4), steps=1, repeats=1)
    assert list(found) == ["error"] and "nowhere" in found["error"]


def test_fewer_samples_than_processes_is_a_mistake():
    result = CliRunner().invoke(scaling, ["--batch-size", "2", "--processes", "3"])
    assert result.exit_code == 2 and "less than one sample" in result.output


@pytest.mark.slow
def test_two_processes_scale_strongly_and_weakly(tmp_path):
    few = [
        "--data",
        str(write_classification(tmp_path / "data")),
        "--image-size",
        "32",
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(
        scaling, [*few, "--steps", "2", "--repeats", "2", "--json", str(tmp_path / "rows")]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["processes"], row["scaling"]) for row in rows] == [
        (1, "one"),
        (2, "strong"),
        (2, "weak"),
    ]
    assert len({row["gradient_mib"] for row in rows}) == 1
    for row in rows:
        low, high = row["collectives_95_percent"]
        assert low <= row["collectives_percent"] <= high and row["step_ms"] > 0
    assert all(row["agree_ms"] > 0 and row["all_reduce_ms"] > 0 for row in rows[1:])
