"""Whole runs on a pretended CUDA device: no tensor is left on the host, host syncs are few.

These tests run on a CPU. The device is a test tool, see the module pretended_cuda.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pretended_runs
import pytest
from device_syncs import EXPECTED_SYNCS
from device_task import TASKS

on_every_task = pytest.mark.parametrize("task_name", TASKS)
# relative: the same kernels in another order of sums; AdamW amplifies what a gradient was rounded
FIRST_STEP, LATER = 1e-5, 1e-2


@pytest.fixture(scope="module")
def in_child_process() -> Iterator[Callable]:
    """in_child_process(function, *arguments) -> its result; one process for this module."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, pretended_runs.one_thread) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


@on_every_task
def test_a_run_on_cuda_is_the_run_of_the_cpu(task_name, in_child_process, data_of, tmp_path):
    cpu, cuda = (
        in_child_process(
            pretended_runs.whole_run, device, task_name, data_of(task_name), tmp_path / device
        )
        for device in ("cpu", "cuda")
    )
    assert [row["kind"] for row in cuda["log"]] == [row["kind"] for row in cpu["log"]]
    rows = [[row for row in log if row["kind"] == "train"] for log in (cpu["log"], cuda["log"])]
    for row, expected in zip(*reversed(rows), strict=True):
        names = ("loss", "grad_norm") if row["step"] == 1 else ("loss",)
        tolerance = FIRST_STEP if row["step"] == 1 else LATER
        for name in names:
            assert row[name] == pytest.approx(expected[name], rel=tolerance), (row["step"], name)
    assert cuda["scores"].keys() == cpu["scores"].keys()
    assert cuda["scores"]["val_loss"] == pytest.approx(cpu["scores"]["val_loss"], rel=LATER)
    assert len(cuda["predictions"]) == 2
    for prediction, expected in zip(cuda["predictions"], cpu["predictions"], strict=True):
        assert prediction.keys() == expected.keys() and "error" not in prediction
        for value, other in zip(prediction.values(), expected.values(), strict=True):
            if isinstance(value, np.ndarray):
                assert value.shape == other.shape and value.dtype == other.dtype


@on_every_task
def test_a_step_that_does_not_fit_on_cuda_is_that_of_a_smaller_micro_batch(
    task_name, in_child_process, data_of, tmp_path
):
    surprised, informed = in_child_process(
        pretended_runs.halved_runs, task_name, data_of(task_name), tmp_path
    )
    assert surprised == informed
    assert [row["kind"] for row in surprised].count("out_of_memory") == 1


@pytest.mark.parametrize(("precision", "deterministic"), [("bf16", False), ("fp16", True)])
@on_every_task
def test_between_log_steps_on_cuda_only_the_matcher_has_host_syncs(
    task_name, precision, deterministic, in_child_process, data_of, tmp_path
):
    syncs = in_child_process(
        pretended_runs.syncs_of_a_step,
        task_name,
        data_of(task_name),
        tmp_path / "run",
        precision,
        deterministic,
    )
    assert syncs == EXPECTED_SYNCS[task_name]


@pytest.mark.parametrize(
    ("task_name", "optimizer", "precision"),
    [
        ("classification", "sgd", "fp16"),
        ("detection", "adamw", "fp32"),  # the detector trains its BatchNorm
    ],
)
def test_a_non_finite_step_on_cuda_changes_no_bit(
    task_name, optimizer, precision, in_child_process, data_of, tmp_path
):
    in_child_process(
        pretended_runs.non_finite_steps,
        task_name,
        optimizer,
        precision,
        data_of(task_name),
        tmp_path,
    )


def test_two_devices_are_refused_and_reads_are_counted(in_child_process):
    syncs = in_child_process(pretended_runs.syncs_of_mistakes)
    assert syncs == {"local_scalar_dense": 1, "copy to the host": 1}


def test_gradients_on_the_pretended_device_are_those_of_torch(in_child_process):
    expected, gradients = in_child_process(pretended_runs.gradients_by_both_engines)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-7)
