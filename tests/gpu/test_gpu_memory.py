"""A GPU whose memory runs out after the first steps of a run; copies to page-locked memory.

Tests with `cpu` in their name run the same check on the CPU.
"""

import os

import pytest
import torch
from device_commands import losses_of
from device_task import TASKS, need_gpus, on_devices

from visionloop.bin.benchmarks.measurement import synchronized_time
from visionloop.engine.checkpoints.writer import HostBuffers, copy_to_host
from visionloop.engine.data.micro_batches import Halving
from visionloop.engine.out_of_memory import read_halvings
from visionloop.engine.testing.short_runs import logged, on_ranks
from visionloop.engine.train import train

MICRO_BATCH, MICRO_BATCHES = 16, 2
SCARCE_IN = 4  # step, 0-based
# of the memory that a micro-batch takes above that of weights and optimizer: enough for a half
SCARCE_SHARE = 0.75
SIDES = {"cpu": 32, "cuda": 192}  # pixels; on the GPU activations outweigh all else
COPIED_BYTES = 2**28
LOSS_ERROR = 1e-3  # relative, of sums over other micro-batches


class ScarceTask(TASKS["classification"]):
    """A classifier whose last rank has memory for half a micro-batch from a step on.

    The memory of the CPU is not limited: there the loss raises the error.
    """

    limited = False

    def before_step(self, module, step, steps):
        super().before_step(module, step, steps)
        self.is_scarce = step >= SCARCE_IN and is_last_rank()
        if torch.cuda.is_initialized() and step == SCARCE_IN - 1:
            torch.cuda.reset_peak_memory_stats()
        if torch.cuda.is_initialized() and self.is_scarce and not self.limited:
            self.limited = True
            limit_to_share(SCARCE_SHARE)

    def loss(self, model, batch, normalizers):
        on_cpu = batch["pixel_values"].device.type == "cpu"
        if on_cpu and self.is_scarce and len(batch) > MICRO_BATCH // 2:
            raise torch.OutOfMemoryError("no memory for this micro-batch")
        return super().loss(model, batch, normalizers)


def is_last_rank():
    return int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1


def limit_to_share(share):
    """Limit CUDA's allocator to what is held, and a share of what the last steps took besides."""
    held, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction((held + share * (peak - held)) / total)


def train_into(output, data, device, processes, is_scarce):
    """Train a short run; return its state. All ranks; spawned ones import this."""
    settings = dict(data=data, device=device, model="tiny", from_scratch=True, drop_path=0.0)
    settings |= dict(image_size=SIDES[device], precision="fp32", tf32=False, threads=1, workers=0)
    settings |= dict(batch_size=MICRO_BATCH * MICRO_BATCHES * processes, micro_batch=MICRO_BATCH)
    settings |= dict(steps=8, log_every=1, eval_every=0, save_every=0)
    task_class = ScarceTask if is_scarce else TASKS["classification"]
    return train(task_class, output=output, **settings).state


CASES = [(1, "cpu")]
CASES += [pytest.param(number, "cuda", marks=pytest.mark.gpu) for number in (1, 2)]


@pytest.mark.parametrize(("processes", "device"), CASES)
def test_a_step_without_memory_is_done_again_in_halves_and_the_run_ends(
    processes, device, data_of, tmp_path, record
):
    need_gpus(device, processes)
    context = "fork" if device == "cpu" else "spawn"
    outputs = [tmp_path / name for name in ("plenty", "scarce")]
    for output, is_scarce in zip(outputs, (False, True), strict=True):
        arguments = (str(output), str(data_of("classification")), device, processes, is_scarce)
        states = on_ranks(processes, train_into, *arguments, context=context)
        assert states == ["finished"] * processes
    plenty, scarce = (losses_of(logged(output)) for output in outputs)
    record(micro_batches=[vars(halving) for halving in read_halvings(outputs[1])])
    assert read_halvings(outputs[0]) == ()
    assert read_halvings(outputs[1]) == (Halving(SCARCE_IN, MICRO_BATCH, MICRO_BATCH // 2),)
    assert scarce == pytest.approx(plenty, rel=LOSS_ERROR)


@on_devices
def test_a_checkpoint_is_copied_to_page_locked_memory_that_is_kept(device, record):
    buffers = HostBuffers(pinned=device == "cuda")
    for save in range(2):  # the first takes the memory
        numbers = torch.arange(COPIED_BYTES // 4, device=device).float().add_(save)
        tensors = {str(i): part for i, part in enumerate(numbers.split(2**20))}
        buffers.rewind()
        began = synchronized_time(torch.device(device))
        copies = copy_to_host(tensors, buffers)
        seconds = synchronized_time(torch.device(device)) - began
        assert all(torch.equal(copies[name], part.cpu()) for name, part in tensors.items())
    assert {copy.is_pinned() for copy in copies.values()} == {device == "cuda"}
    record(copied_gib_per_second=COPIED_BYTES / 2**30 / seconds)
