"""The figures of the benchmarks, from seconds that are given."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter
from torchrun_runs import write_classification

from visionloop.bin.benchmarks.bare_loop import InterleavedLoops, paused_workers
from visionloop.bin.benchmarks.measurement import interleaved, ratio_with_interval
from visionloop.bin.benchmarks.overhead import TimedBlock, overhead_figures
from visionloop.bin.benchmarks.results import write_results
from visionloop.bin.benchmarks.scaling_ranks import (
    RankStep,
    batch_sizes,
    measure_rank,
    measure_round,
    scaling_figures,
)
from visionloop.bin.benchmarks.startup import PARTS, first_step_parts


def test_cases_are_interleaved_round_by_round():
    assert list(interleaved("ab", 3)) == list("ababab")


def test_the_ratio_is_the_median_over_pairs_within_its_interval():
    ratio, (low, high) = ratio_with_interval([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert ratio == 2 and 2 <= low <= ratio <= high <= 3


def test_a_table_aligns_numbers_right_and_text_left(tmp_path, capsys):
    rows = [{"case": "a", "ms": 1.5, "other": 1}, {"case": "bcd", "ms": None, "other": 2}]
    write_results(
        "x", rows, tmp_path / "rows", ["case"], {"ms": "time", "mib": "memory"}, {"device": "cpu"}
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["case   ms", "a     1.5", "bcd     -"] and lines[-1].split() == [
        "device",
        "cpu",
    ]
    written = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert written == [{"benchmark": "x", "device": "cpu", **row} for row in rows]


def test_overhead_is_of_whole_blocks_with_or_without_waiting():
    blocks = [
        TimedBlock(10, 1.12, 0.1, 1.0),
        TimedBlock(10, 2.24, 0.2, 2.0),
        TimedBlock(10, 1.13, 0.1, 1.0),
    ]
    waiting, without = (overhead_figures(blocks, 8, with_waiting=value) for value in (True, False))
    assert waiting["overhead_percent"] == 12 and without["overhead_percent"] == 2
    assert waiting["engine_step_ms"] == 113 and without["engine_step_ms"] == 103
    for figures in (waiting, without):
        assert (
            figures["bare_step_ms"] == 100
            and figures["batch_wait_ms"] == 10
            and figures["bare_samples_per_second"] == 80
        )


def test_blocks_that_warm_up_and_remainders_are_left_out_and_the_others_are_summed():
    loops = object.__new__(InterleavedLoops)
    rows = [
        (2, 9.0, 9.0, 9.0),
        (4, 9.0, 9.0, 9.0),
        (4, 1.0, 0.5, 2.0),
        (4, 3.0, 0.5, 4.0),
        (2, 9.0, 9.0, 9.0),
    ]
    loops.block, loops.blocks = 4, [TimedBlock(*row) for row in rows]
    assert loops.whole_blocks() == rows[2:4]
    assert loops.whole_blocks(together=2) == [(8, 4.0, 1.0, 6.0)]


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until_stopped(pid, expected):
    deadline = time.monotonic() + 30
    while is_stopped(pid) != expected:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_data_workers_are_suspended_while_the_bare_loop_runs():
    # not a data worker: it was there before
    earlier, worker = (
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        for _ in range(2)
    )
    earlier.start()
    others = multiprocessing.active_children()
    worker.start()
    try:
        with paused_workers(others):
            wait_until_stopped(worker.pid, True)
            assert not is_stopped(earlier.pid)
        wait_until_stopped(worker.pid, False)
    finally:
        for process in (earlier, worker):
            process.kill()
            process.join()


def round_of(synchronized, ranks, first):
    """Return a result of `measure_round` for two steps of these seconds.

    synchronized: of a step; alone: on each rank; first: on the first rank with all samples.
    """
    seconds = {
        "synchronized": [[synchronized] * 2] * len(ranks),
        "alone": [[rank] * 2 for rank in ranks],
    }
    return {"strong": seconds, "weak": seconds, "first": [first] * 2}


def test_collectives_are_beyond_the_slowest_rank_and_waiting_is_up_to_it():
    figures = scaling_figures([round_of(1.0, [0.7, 0.9], 1.6)] * 3, "strong", batch_sizes(2, 8))
    assert figures["collectives_percent"] == 10 and figures["waiting_percent"] == 10
    assert figures["step_ms"] == 1000 and figures["samples_per_second"] == 8
    assert figures["efficiency_percent"] == 80  # 8 samples a second, of twice 5
    assert figures["efficiency_without_collectives_percent"] == 100  # 2 x 4 / 0.8 = 10 of 10
    assert figures["collectives_95_percent"] == [10, 10]


def test_weak_scaling_has_as_many_samples_for_each_process():
    assert batch_sizes(3, 8) == {"strong": 8, "weak": 24} and batch_sizes(1, 8) == {"one": 8}
    figures = scaling_figures([round_of(2.0, [1.6, 1.6], 1.6)] * 3, "weak", batch_sizes(2, 8))
    assert figures["samples_per_second"] == 8 and figures["efficiency_percent"] == 80
    assert (
        figures["efficiency_without_collectives_percent"] == 100 and figures["waiting_percent"] == 0
    )


def test_one_process_needs_no_other_and_its_weights_stay(tmp_path):
    data = write_classification(tmp_path / "data")
    flags = {
        "data": str(data),
        "model": "tiny",
        "image_size": 32,
        "precision": "fp32",
        "threads": 1,
        "device": "cpu",
    }
    step = RankStep("classification", flags, tmp_path / "run", 4, "none")
    before = {name: tensor.clone() for name, tensor in step.run.module.state_dict().items()}
    measured = measure_round({"one": step}, steps=2)
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in step.run.module.state_dict().items()
    )
    figures = scaling_figures([measured], "one", batch_sizes(1, 4))
    assert (
        len(measured["first"]) == 2
        and figures["waiting_percent"] == 0
        and figures["samples_per_second"] > 0
    )


def test_a_user_error_of_a_rank_reaches_the_command_as_a_line(tmp_path):
    flags = {
        "data": str(tmp_path / "nowhere"),
        "model": "tiny",
        "precision": "fp32",
        "threads": 1,
        "device": "cpu",
    }
    result = measure_rank(
        "classification", flags, batch_sizes(1, 4), steps=1, repeats=1, shard="none", per_node=1
    )
    assert list(result) == ["error"] and "nowhere" in result["error"]


def test_parts_of_a_first_step_follow_each_other_and_are_the_whole(tmp_path):
    began = time.time() - 2
    (tmp_path / ".lock").touch()
    (tmp_path / "settings.json").write_text("{}")
    writer = SummaryWriter(str(tmp_path / "tensorboard"))
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"kind": "train", "step": 1, "time": time.time() + 3}) + "\n"
    )
    time.sleep(0.01)
    writer.add_hparams(
        {"lr": 1}, {"score": 1}, run_name="."
    )  # begins another file, as the end of a run does
    writer.close()
    figures = first_step_parts(tmp_path, began)
    *parts, whole = (figures[name] for name in PARTS if name != "help_seconds")
    assert sum(parts) == pytest.approx(whole)
    # the times of files are those of the kernel's last tick
    assert parts[0] > 1.9 and min(parts) > -0.02 and parts[-1] > 2.9
