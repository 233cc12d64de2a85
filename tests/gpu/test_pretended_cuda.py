"""Training steps on a pretended device: no tensor is left on the host, host syncs are few.

These tests run on a CPU. The device is a test tool, see the module pretended_cuda.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pretended_steps
import pytest
import torch
from device_syncs import EXPECTED_SYNCS
from device_task import TASKS


@pytest.fixture(scope="module")
def in_child_process() -> Iterator[Callable]:
    """in_child_process(function, *arguments) -> its result; one process for this module."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, pretended_steps.register_twin) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


@pytest.mark.parametrize("task_name", TASKS)
def test_a_step_on_the_device_is_the_step_of_the_cpu(
    task_name, in_child_process, data_of, tmp_path
):
    cpu, device = (
        in_child_process(
            pretended_steps.steps_on, kind, task_name, data_of(task_name), tmp_path / kind
        )
        for kind in ("cpu", pretended_steps.TWIN)
    )
    assert torch.tensor(device).isfinite().all()
    # of the first step: an update of AdamW may amplify how a gradient was rounded
    torch.testing.assert_close(device[0], cpu[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("task_name", TASKS)
def test_a_loss_on_cuda_has_host_syncs_in_the_matcher_only(
    task_name, deterministic, in_child_process, data_of
):
    syncs = in_child_process(
        pretended_steps.syncs_of_the_loss, task_name, data_of(task_name), deterministic
    )
    assert syncs == EXPECTED_SYNCS[task_name]


def test_two_devices_are_refused_and_reads_are_counted(in_child_process):
    syncs = in_child_process(pretended_steps.syncs_of_mistakes)
    assert syncs == {"local_scalar_dense": 1, "copy to the host": 1}
