"""The benchmark of the engine against a bare loop, on a small run."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from segmentation_files import write_segmentation_data

from visionloop.bin.benchmarks.bare_loop import TakeTurns, paused
from visionloop.bin.benchmarks.overhead import RUNGS, figures_of, overhead

SMALL = [
    "--task",
    "segmentation",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--micro-batch",
    "2",
    "--device",
    "cpu",
    "--block",
    "2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_segmentation_data(tmp_path_factory.mktemp("data"), images=6))


def rows_of(path, *options):
    result = CliRunner().invoke(overhead, [*SMALL, *options, "--json", str(path)])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_on_every_rung_a_bare_loop_ends_with_equal_weights(data, tmp_path):
    rows = rows_of(
        tmp_path / "overhead.json", "--data", data, "--precision", "fp32", "--steps", "14"
    )
    assert [row["rung"] for row in rows] == list(RUNGS)
    for row in rows:
        assert (
            row["benchmark"] == "overhead"
            and row["task"] == "segmentation"
            and row["weights"] == "equal"
        )
        assert row["bare_step_ms"] > 0 and row["engine_step_ms"] > 0 and row["batch_wait_ms"] >= 0
        assert (
            row["overhead_low_percent"] <= row["overhead_percent"] <= row["overhead_high_percent"]
        )
    assert [row["blocks"] for row in rows] == [5, 5, 5, 2]  # a checkpoint every two blocks


def test_a_bare_loop_in_fp16_ends_with_equal_weights(data, tmp_path):
    (row,) = rows_of(
        tmp_path / "overhead.json",
        "--data",
        data,
        "--precision",
        "fp16",
        "--steps",
        "12",
        "--rung",
        "memory",
    )
    assert row["rung"] == "memory" and row["weights"] == "equal"


def test_a_run_too_short_to_measure_is_refused():
    result = CliRunner().invoke(overhead, [*SMALL, "--steps", "11"])
    assert result.exit_code == 2 and "--steps: expected at least six blocks of 2" in result.output


def test_the_ratio_is_of_whole_blocks_with_or_without_waiting():
    blocks = [(10, 1.12, 0.1, 1.0), (10, 2.24, 0.2, 2.0), (10, 1.13, 0.1, 1.0)]
    with_waiting, without = (figures_of(blocks, 8, with_waiting=wanted) for wanted in (True, False))
    assert with_waiting["overhead_percent"] == 12 and without["overhead_percent"] == 2
    assert with_waiting["engine_step_ms"] == 113 and without["engine_step_ms"] == 103
    for figures in (with_waiting, without):
        assert (
            figures["bare_step_ms"] == 100
            and figures["batch_wait_ms"] == 10
            and figures["bare_samples_per_second"] == 80
        )


def test_blocks_that_warm_up_and_rests_are_left_out_and_the_others_are_summed():
    turns = object.__new__(TakeTurns)
    turns.block, turns.blocks = (
        4,
        [
            (2, 9.0, 9.0, 9.0),
            (4, 9.0, 9.0, 9.0),
            (4, 1.0, 0.5, 2.0),
            (4, 3.0, 0.5, 4.0),
            (2, 9.0, 9.0, 9.0),
        ],
    )
    assert turns.whole_blocks() == turns.blocks[2:4]
    assert turns.whole_blocks(together=2) == [(8, 4.0, 1.0, 6.0)]


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until_stopped(pid, wanted):
    deadline = time.monotonic() + 30
    while is_stopped(pid) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_rest_while_the_bare_loop_has_its_turn_and_go_on_afterwards():
    # not a worker of the loader: it was there before
    earlier, worker = (
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        for _ in range(2)
    )
    earlier.start()
    others = multiprocessing.active_children()
    worker.start()
    try:
        with paused(others):
            wait_until_stopped(worker.pid, True)
            assert not is_stopped(earlier.pid)
        wait_until_stopped(worker.pid, False)
    finally:
        for process in (earlier, worker):
            process.kill()
            process.join()
