"""The search for a micro-batch on several processes, and on devices whose memory has a peak."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hungry_toy import tries_of_poor_ranks
from torch import nn
from toy_task import ToyConfig, ToyTask

from visionloop.engine.autotune import micro_batch
from visionloop.engine.autotune.micro_batch import MicroBatchProbe, largest_fitting
from visionloop.engine.distributed import World
from visionloop.engine.system.memory import DeviceMemory, MetalMemory, memory_of
from visionloop.engine.testing.short_runs import CONFIG, on_ranks, spec_of

CUDA = torch.device("cuda", 0)


def test_all_ranks_try_the_same_sizes_and_name_what_the_fullest_measured(tmp_path):
    ranks = on_ranks(2, tries_of_poor_ranks, str(tmp_path))
    assert ranks[0]["tried"] == ranks[1]["tried"] and len(ranks[0]["tried"]) > 1
    assert ranks[0]["found"] == ranks[1]["found"]
    size, reason = ranks[0]["found"]
    assert 1 < size < 48
    taken, available = (float(word) for word in reason.split() if word.replace(".", "").isdigit())
    assert 0 < taken <= available


class Allocator:
    """The counters of a caching allocator on a device with `room` bytes."""

    def __init__(self, room):
        self.room, self.reserved, self.peak = room, 0, 0

    def take(self, num_bytes):
        if num_bytes > self.room:
            self.reserved = self.peak = self.room
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.reserved = max(self.reserved, num_bytes)
        self.peak = max(self.peak, self.reserved)

    def empty_cache(self):
        self.reserved = 0

    def reset_peak(self, _device=None):
        self.peak = self.reserved


@pytest.fixture
def cuda_allocator(monkeypatch):
    allocator = Allocator(room=900)
    stand_ins = {
        "empty_cache": allocator.empty_cache,
        "reset_peak_memory_stats": allocator.reset_peak,
        "memory_reserved": lambda _: allocator.reserved,
        "max_memory_reserved": lambda _: allocator.peak,
        "mem_get_info": lambda _: (allocator.room, allocator.room),
    }
    for name, function in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return allocator


def probe_of(tmp_path, memory, run_step):
    probe = MicroBatchProbe(spec_of(ToyTask(ToyConfig()), tmp_path, config=CONFIG))
    probe.memory, probe.run_step = memory, run_step
    return probe


def test_a_size_that_did_not_fit_hides_no_smaller_one_that_does(tmp_path, cuda_allocator):
    tried = []

    def run_step(_step, size):
        tried.append(size)
        cuda_allocator.take(bytes_of(size))

    def bytes_of(size):
        return 7 * size if size < 80 else 20 * size

    probe = probe_of(tmp_path, DeviceMemory(CUDA), run_step)
    probe.steps = [0]
    assert largest_fitting(range(1, 129), probe.step_bytes, 600) == 79
    assert max(tried) > 79


def test_the_peak_of_the_search_is_not_that_of_the_run(tmp_path, cuda_allocator, monkeypatch):
    class FullProbe(MicroBatchProbe):
        def __init__(self, spec):
            super().__init__(spec)
            self.memory, self.available = DeviceMemory(CUDA), 600

        def run_step(self, _step, size):
            cuda_allocator.take(50 * size)

    monkeypatch.setattr(micro_batch, "MicroBatchProbe", FullProbe)
    size, _ = micro_batch.find_micro_batch(spec_of(ToyTask(ToyConfig()), tmp_path, config=CONFIG))
    assert size == 8 and cuda_allocator.peak == cuda_allocator.reserved == 0


def test_the_memory_of_metal_is_that_of_its_allocator(monkeypatch):
    pool = SimpleNamespace(held=100)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: pool.held)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1100)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: setattr(pool, "held", 100))
    memory = memory_of(torch.device("mps"))
    assert isinstance(memory, MetalMemory) and memory.available_bytes() == 800
    pool.held = 350
    assert memory.peak_growth() == 250
    memory.reset_peak()
    assert memory.peak_growth() == 0


def test_the_search_runs_no_batch_norm_that_waits_for_other_ranks(tmp_path):
    world = World(0, 0, 2, torch.device("cpu"))
    spec = spec_of(
        ToyTask(ToyConfig(batch_norm=True)),
        tmp_path,
        config=replace(CONFIG, sync_bn=True),
        world=world,
    )
    # the run itself is refused: --sync-bn works on CUDA only
    assert any(
        isinstance(layer, nn.BatchNorm2d) for layer in MicroBatchProbe(spec).module.modules()
    )
