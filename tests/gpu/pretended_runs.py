"""Runs on a pretended CUDA device, for a child process that the tests spawn."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest
import test_gpu_numerics
import torch
from device_syncs import count_by_module
from device_task import NOISY, TASKS, started, tiny_task
from pretended_cuda import PretendedDevice

from visionloop.engine.data.micro_batches import Halving
from visionloop.engine.determinism import deterministic_algorithms
from visionloop.engine.loop import fit
from visionloop.engine.out_of_memory import write_halvings
from visionloop.engine.testing.short_runs import CONFIG, logged, train_steps
from visionloop.engine.types import JsonObject, Scores
from visionloop.tasks.predictor import Predictor

MIXING = {"mixup": 0.8, "cutmix": 1.0}
# images to predict, below the data folder
IMAGES = {
    "classification": "val",
    "detection": "val",
    "segmentation": "images/val",
    "instance_segmentation": "val",
    "panoptic_segmentation": "val",
    "super_resolution": "val/HR",
}


class RunResult(TypedDict):
    """What a run leaves behind: lines of its log, scores of its best weights, predictions."""

    log: list[JsonObject]
    scores: Scores
    predictions: list[JsonObject]


def one_thread() -> None:
    torch.set_num_threads(1)


def noisy_task(task_name: str, data: Path):
    """Return the tiny task with all that is drawn at random on the device."""
    mixing = MIXING if task_name == "classification" else {}
    return tiny_task(task_name, data, **NOISY[task_name] | mixing)


def whole_run(device: str, task_name: str, data: Path, folder: Path) -> RunResult:
    """Train, stop, resume, evaluate, save; then load the best weights, evaluate and predict.

    All of it on the device: "cpu", or "cuda" for the pretended one, which here has slow float64.
    """

    def check_devices(optimizer, _args, _kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = [value for state in optimizer.state.values() for value in state.values()]
        tensors = [*parameters, *(parameter.grad for parameter in parameters), *moments]
        # plain SGD, of which the EMA is one step, has no moments
        assert {tensor.device.type for tensor in tensors if tensor is not None} == {device}

    config = replace(CONFIG, device=device, steps=3, batch_size=4, micro_batch=2, tf32=False)
    config = replace(config, clip_grad=1.0, eval_every=0, save_every=0)
    with PretendedDevice(capability=(8, 6)) if device == "cuda" else nullcontext():
        for stop_after in (2, None):
            task = noisy_task(task_name, data)
            result = train_steps(
                task, folder, config=config, stop_after=stop_after, on_gradients=check_devices
            )
        model = Predictor(TASKS[task_name], folder / "best", device)
        scores = model.evaluate(data, batch_size=config.eval_batch_size)
        names = sorted((data / IMAGES[task_name]).rglob("*.*"))[:2]
        predictions = model.predict(names)
    assert result.state == "finished"
    return {"log": logged(folder), "scores": scores, "predictions": predictions}


def halved_runs(task_name: str, data: Path, folder: Path) -> list[list[JsonObject]]:
    """Return the log of a run whose second step does not fit, and of one that knows it before.

    The error comes when gradients and BatchNorm statistics are there.
    """
    config = replace(CONFIG, device="cuda", steps=3, batch_size=4, micro_batch=4, eval_every=0)
    logs = []
    with PretendedDevice():
        for is_known in (False, True):
            task, output = noisy_task(task_name, data), folder / str(is_known)
            if is_known:
                output.mkdir()
                write_halvings(output, [Halving(1, 4, 2)])
            task.loss = partial(scarce_loss, task.loss)
            train_steps(task, output, config=config)
            logs.append(logged(output))
    return logs


def scarce_loss(loss, model, batch, normalizers):
    losses = loss(model, batch, normalizers)
    if batch.step == 1 and len(batch) > 2:
        losses["loss"].backward()
        raise torch.OutOfMemoryError("CUDA out of memory")
    return losses


def syncs_of_a_step(
    task_name: str, data: Path, folder: Path, precision: str, deterministic: bool
) -> dict[str, float]:
    """Return {module: host syncs per micro-batch} of the loop between two log steps."""
    task, marks = noisy_task(task_name, data), []
    before_step, loss = task.before_step, task.loss
    config = {"steps": 4, "batch_size": 4, "micro_batch": 2, "clip_grad": 1.0}
    config |= {"log_every": 4, "eval_every": 0, "save_every": 0}
    with PretendedDevice() as pretended, deterministic_algorithms(deterministic):

        def mark(module, step, steps):
            marks.append(Counter(pretended.syncs))
            before_step(module, step, steps)

        def checked_loss(model, batch, normalizers):
            losses = loss(model, batch, normalizers)
            assert {value.dtype for value in losses.values()} == {torch.float32}
            return losses

        task.before_step, task.loss = mark, checked_loss
        config |= {"precision": precision, "deterministic": deterministic}
        with started(task, folder, "cuda", **config) as run:
            run.state.evaluated_at = run.last_save.step = run.config.steps
            fit(run, task)
    # two steps of two micro-batches; constants are sent in the first step
    between = marks[3] - marks[1]
    return count_by_module({line: number / 4 for (_, line), number in between.items()})


def non_finite_steps(
    task_name: str, optimizer: str, precision: str, data: Path, folder: Path
) -> None:
    """Run the test of non-finite steps on the pretended device."""
    name = "test_a_non_finite_step_changes_no_bit_of_weights_moments_ema_and_batch_norm"
    with PretendedDevice():
        check = getattr(test_gpu_numerics, name)
        check(task_name, optimizer, precision, "cuda", lambda _: data, folder)


def syncs_of_mistakes() -> dict[str, int]:
    """Mix two devices, which must raise, and read twice; return {operation: host syncs}."""
    with PretendedDevice() as pretended:
        value = torch.ones(3).to(pretended.device, non_blocking=True)
        with pytest.raises(RuntimeError, match="same device"):
            value + torch.ones(3)
        assert (value.sum() * 2).item() == 6
        value.cpu()
    return dict(Counter(operation for operation, _ in pretended.syncs))


def gradients_by_both_engines() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the gradients of a small network by torch's engine, and by that of Python."""
    gradients = []
    for device in (nullcontext(), PretendedDevice()):
        with device as pretended:
            torch.manual_seed(0)
            weight, bias = torch.rand(4, 3), torch.rand(4)
            place = "cpu" if pretended is None else pretended.device
            leaves = [t.to(place).requires_grad_() for t in (weight, bias)]
            x = torch.nn.functional.linear(torch.rand(5, 3).to(place), *leaves).softmax(-1)
            # used twice, broadcast, and only in part
            (x * leaves[1] + x[0].exp()).sum(1)[:3].std().backward()
            gradients.append([leaf.grad.cpu().numpy() for leaf in leaves])
    return tuple(gradients)
