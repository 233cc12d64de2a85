"""Training steps on a pretended device, for a child process that the tests spawn."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from device_syncs import count_by_module
from device_task import NOISY, started, take_step, tiny_task
from pretended_cuda import TWIN, PretendedDevice

from visionloop.engine.batch import Normalizers
from visionloop.engine.distributed import World
from visionloop.engine.precision import build_precision
from visionloop.engine.testing.short_runs import first_batch


def register_twin() -> None:
    """Register the backend; the autograd engine counts devices at its first backward only."""
    torch.set_num_threads(1)
    PretendedDevice(TWIN)


def steps_on(
    device_type: str, task_name: str, data: Path, folder: Path
) -> list[tuple[float, float]]:
    """Return [(loss, gradient norm)] of two steps on the CPU or on the pretended device."""
    task = tiny_task(task_name, data, **NOISY[task_name])
    settings = {"micro_batch": 4, "clip_grad": 1.0}
    if device_type == "cpu":
        with started(task, folder, "cpu", **settings) as run:
            return [take_step(run, task, step) for step in range(2)]
    with PretendedDevice(device_type) as pretended:
        world = World(rank=0, local_rank=0, size=1, device=pretended.device)
        with started(task, folder, device_type, world, **settings) as run:
            steps = [take_step(run, task, step) for step in range(2)]
            moments = [value for state in run.optimizer.state.values() for value in state.values()]
            for tensor in [*run.module.parameters(), *run.module.buffers(), *moments]:
                assert tensor.device == pretended.device
    return steps


def syncs_of_the_loss(task_name: str, data: Path, deterministic: bool) -> dict[str, float]:
    """Return {module: host syncs} of one micro-batch's loss in bf16 on a pretended CUDA."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    task = tiny_task(task_name, data, **NOISY[task_name])
    batch = first_batch(task)
    with PretendedDevice("cuda") as pretended:
        module = task.build_model().to(pretended.device)
        task.before_step(module, 0, 10)
        precision = build_precision("bf16", pretended.device)
        for _ in range(2):  # constants are sent once
            pretended.syncs.clear()
            with precision.autocast():
                losses = task.loss(
                    module,
                    batch.to(pretended.device),
                    Normalizers(task.count_normalizers([batch])),
                )
    assert {value.dtype for value in losses.values()} == {torch.float32}
    return count_by_module({line: number for (_, line), number in pretended.syncs.items()})


def syncs_of_mistakes() -> dict[str, int]:
    """Mix two devices, which must raise, and read twice; return {operation: host syncs}."""
    with PretendedDevice("cuda") as pretended:
        value = torch.ones(3).to(pretended.device, non_blocking=True)
        with pytest.raises(RuntimeError, match="same device"):
            value + torch.ones(3)
        assert (value.sum() * 2).item() == 6
        value.cpu()
    return dict(Counter(operation for operation, _ in pretended.syncs))
