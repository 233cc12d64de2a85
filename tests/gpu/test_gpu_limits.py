"""Time and memory of a GPU: the clock of --budget, and micro-batches that fit.

Tests with `cpu` in their name run the same check on the CPU.
"""

import resource
import statistics
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from device_task import CUDA, METAL, need_gpus, on_devices, started, take_step, tiny_task

from visionloop.bin.benchmarks.measurement import synchronized_time
from visionloop.engine.autotune.calibration import calibrate
from visionloop.engine.autotune.micro_batch import find_micro_batch
from visionloop.engine.distributed import join_world
from visionloop.engine.precision import build_precision
from visionloop.engine.system.kernels import LayerWidths, choose_precision
from visionloop.engine.system.memory import THREAD_STACKS, virtual_bytes
from visionloop.engine.testing.short_runs import CONFIG, on_ranks, spec_of

SLEEP_SECONDS = 0.2  # of the CPU
SLEEP_CYCLES = 200_000_000  # of the GPU: about 0.1 s
CLOCK_ERROR = 0.2  # relative
LIMIT = 2**29  # bytes that a limited process may take for its steps
BATCH_SIZE = 64
PRODUCT = 4096  # side of the matrices of a product


def sleeping_task(device, data):
    """Return a task whose loss keeps the device busy without waiting for it."""
    task = tiny_task("classification", data, image_size=32)
    compute_loss = task.loss

    def slow_loss(model, batch, normalizers):
        if device == "cuda":
            torch.cuda._sleep(SLEEP_CYCLES)
        else:
            time.sleep(SLEEP_SECONDS)
        return compute_loss(model, batch, normalizers)

    task.loss = slow_loss
    return task


@on_devices
def test_the_step_that_a_budget_counts_with_lasts_as_long_as_on_a_synchronized_clock(
    device, data_of, tmp_path, record
):
    task = sleeping_task(device, data_of("classification"))
    with started(task, tmp_path / "timed", device) as run:
        where = run.world.device
        times = [seconds_of(partial(take_step, run, task, step), where) for step in range(6)]
    seconds = statistics.median(times)
    spec = spec_of(task, tmp_path, config=replace(CONFIG, device=device, steps=12))
    counted = calibrate(spec, lambda: False).step
    record(clock_error=counted / seconds - 1)
    assert counted == pytest.approx(seconds, rel=CLOCK_ERROR)


@pytest.mark.parametrize("device", [CUDA, METAL])
def test_the_automatic_precision_multiplies_at_least_as_fast_as_fp32(device, record):
    where = torch.device(device)
    chosen, _ = choose_precision(where, LayerWidths())
    seconds = {}
    for name in ("fp32", chosen):
        precision = build_precision(name, where)  # fp32 with TF32, as in training
        matrix = torch.ones(PRODUCT, PRODUCT, device=where)
        with precision.autocast():
            times = [seconds_of(partial(torch.mm, matrix, matrix), where) for _ in range(8)]
        seconds[name] = min(times[3:])
    speedup = seconds["fp32"] / seconds[chosen]
    record(precision=chosen, product_speedup=speedup)
    assert speedup >= 1


def seconds_of(operation, device):
    began = synchronized_time(device)
    operation()
    return synchronized_time(device) - began


@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 2])
def test_processes_one_of_which_has_less_memory_agree_on_a_micro_batch(number, data_of, record):
    need_gpus("cuda", number)
    # the losses of detection are summed over ranks within the step that is tried
    data, settings = str(data_of("detection")), {"image_size": 256}
    arguments = ("detection", data, "cuda", BATCH_SIZE, number - 1, settings)
    sizes = on_ranks(number, searched_micro_batch, *arguments)
    record(micro_batch=sizes[0])
    assert len(set(sizes)) == 1
    assert 1 < sizes[0] < BATCH_SIZE // number


def searched_micro_batch(task_name, data, device, batch_size, limited_rank, settings):
    """Return the micro-batch of --micro-batch auto, one rank of which has less memory. All ranks.

    Spawned processes import this.
    """
    world = join_world(device)
    if world.rank == limited_rank:
        limit_memory(device)
    task = tiny_task(task_name, data, **settings)
    config = replace(CONFIG, device=device, batch_size=batch_size)
    size, _ = find_micro_batch(spec_of(task, data, config=config, world=world))
    return size


def limit_memory(device):
    """Let this process take LIMIT bytes; on CUDA it still sees all free memory as available."""
    if device == "cuda":
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(LIMIT / total)
        return
    room = LIMIT + THREAD_STACKS
    resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + room, resource.RLIM_INFINITY))
