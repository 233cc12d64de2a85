"""Precisions, skipped steps, copies, host syncs and recomputed activations on a GPU.

Tests with `cpu` in their name run the same check on the CPU.
"""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from device_syncs import EXPECTED_SYNCS, count_by_module, record_cuda_syncs
from device_task import (
    CUDA,
    METAL,
    NOISY,
    QUIET,
    SIDES,
    fp32_errors,
    need_gpus,
    on_devices,
    on_tasks,
    quiet_task,
    started,
    step_and_scores,
    take_step,
    tiny_task,
)

from visionloop.bin.benchmarks.repeated_step import RepeatedStep, largest_difference
from visionloop.engine.evaluation.evaluate import evaluate
from visionloop.engine.loop import fit
from visionloop.engine.precision import build_precision
from visionloop.engine.testing.short_runs import CONFIG, assert_same_step, on_ranks

SCALE = 1024.0  # of the fp16 scaler: gradients of the tiny models overflow at its default of 65536
STEEPNESS = 256.0
MATCHED = (
    "detection",
    "segmentation",
    "instance_segmentation",
    "panoptic_segmentation",
)
# relative errors of sums of 512 products: 23 bits give about 1e-6, the 10 bits of TF32 3e-4
FP32_ERROR, TF32_ERROR = 5e-5, 4e-3
HALF_ERROR = 0.05  # relative, of loss and update in half precision; measured on a CPU: 0.002, 0.015


def flat(parameters):
    return torch.cat([tensor.detach().flatten().double().cpu() for tensor in parameters])


def set_scale(run):
    state = run.precision.scaler_state()
    run.precision.load_scaler_state(state and state | {"scale": SCALE})


@on_tasks("classification")
def test_bf16_and_fp16_train_close_to_fp32_and_keep_weights_in_fp32(
    task_name, device, data_of, tmp_path, record
):
    # plain SGD, whose updates are proportional to the gradients
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_steps": 0}
    updates, losses = {}, {}
    for name in ("fp32", "bf16", "fp16"):
        task = quiet_task(task_name, data_of(task_name))
        with started(task, tmp_path / name, device, precision=name, tf32=False, **settings) as run:
            before = flat(run.trained_parameters)
            set_scale(run)
            steps = [take_step(run, task, step) for step in range(3)]
            updates[name], losses[name] = flat(run.trained_parameters) - before, steps[0][0]
            assert all(math.isfinite(value) for step in steps for value in step)
            moments = [value for state in run.optimizer.state.values() for value in state.values()]
            assert {t.dtype for t in [*run.module.parameters(), *moments]} == {torch.float32}
    for name in ("bf16", "fp16"):
        loss_error = abs(losses[name] - losses["fp32"]) / losses["fp32"]
        difference = (updates[name] - updates["fp32"]).norm() / updates["fp32"].norm()
        record(**{f"{name}_loss_error": loss_error, f"{name}_update_error": float(difference)})
        assert not torch.equal(updates[name], updates["fp32"]), "autocast is off"
        assert loss_error <= HALF_ERROR
        # another precision may match other pairs, which changes the gradient
        assert task_name in MATCHED or difference <= HALF_ERROR


def state_bytes(run):
    """Return {name: bytes} of everything that a step may change."""
    states = enumerate(run.optimizer.state.values())
    moments = {f"{i} {key}": value for i, state in states for key, value in state.items()}
    ema = {f"ema {name}": tensor for name, tensor in run.ema.tensors.items()}
    tensors = run.module.state_dict() | moments | ema
    return {name: tensor.cpu().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("device", ["cpu", CUDA, METAL])
@pytest.mark.parametrize(
    ("task_name", "optimizer", "precision"),
    [
        ("classification", "adamw", "fp32"),
        ("classification", "adam", "bf16"),
        ("classification", "sgd", "fp16"),
        ("detection", "adamw", "fp32"),  # the detector trains its BatchNorm
    ],
)
def test_a_non_finite_step_changes_no_bit_of_weights_moments_ema_and_batch_norm(
    task_name, optimizer, precision, device, data_of, tmp_path
):
    if device == "mps" and precision == "fp16":
        pytest.skip("the scaler of fp16 is for CUDA and the CPU")
    task = tiny_task(task_name, data_of(task_name), image_size=SIDES[task_name])
    compute_loss = task.loss

    def overflowing_loss(model, batch, normalizers):
        losses = compute_loss(model, batch, normalizers)
        is_non_finite = batch.step in (0, 2)
        return losses | {"loss": losses["loss"] * math.inf} if is_non_finite else losses

    task.loss = overflowing_loss
    settings = {"optimizer": optimizer, "precision": precision, "warmup_steps": 0}
    with started(task, tmp_path / "run", device, **settings) as run:
        assert bool(run.trained_buffers) == (task_name == "detection")
        set_scale(run)
        states = [state_bytes(run)]
        for step in range(4):
            take_step(run, task, step)
            states.append(state_bytes(run))
        for step in (0, 2):
            changed = [key for key in states[step] if states[step][key] != states[step + 1][key]]
            assert not changed
            assert states[step + 1] != states[step + 2], f"step {step + 2} changed nothing"
        counted, scale = run.nonfinite_steps.read().new, run.precision.scaler.get_scale()
    # an overflow of fp16 lowers the scale; it counts as non-finite once the scale is down to 1
    assert (counted, scale) == ((0, SCALE / 4) if precision == "fp16" else (2, 1.0))


def tensors_of(batch):
    tensors = []
    batch.map_tensors(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


@on_tasks("classification", "detection")
def test_batches_are_pinned_and_arrive_whole_on_a_busy_device(
    task_name, device, data_of, tmp_path, record
):
    task = tiny_task(task_name, data_of(task_name), **QUIET[task_name])
    side, num_bytes = 4096 if device == "cuda" else 64, 0
    with started(task, tmp_path / "run", device, workers=1) as run:
        for _ in range(4):
            busy = torch.rand(side, side, device=device)
            for _ in range(20):
                busy = (busy @ busy).clamp_(0, 1)
            sent = []
            for batch in run.data.fetch(should_stop=lambda: False):
                tensors = tensors_of(batch)
                is_pinned = [tensor.is_pinned() for tensor in tensors if tensor.numel()]
                assert set(is_pinned) == {device == "cuda"}
                copies = [tensor.clone() for tensor in tensors]
                sent += zip(copies, tensors_of(batch.to(run.world.device)), strict=True)
            del batch, tensors  # the pinned memory may be reused from here on
            assert all(torch.equal(before, after.cpu()) for before, after in sent)
            num_bytes += sum(before.nbytes for before, _ in sent)
    record(copied_mib=num_bytes / 2**20)


@on_devices
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_multiplies_with_ten_bits_and_only_where_it_is_on(tf32, device, record):
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no TF32 before compute capability 8.0")
    build_precision("fp32", torch.device(device), tf32=tf32)
    for name, error in fp32_errors(device).items():
        record(**{f"{name}_error": error})
        assert error < TF32_ERROR
        assert (error > FP32_ERROR) == (tf32 and device == "cuda")


@on_tasks("classification")
def test_an_evaluation_multiplies_exactly_where_training_uses_tf32(
    task_name, device, data_of, tmp_path, record
):
    task = tiny_task(task_name, data_of(task_name), **NOISY[task_name])
    predict, errors = task.predict, []

    def watched(module, batch):
        errors.append(max(fp32_errors(device).values()))
        return predict(module, batch)

    task.predict = watched
    with started(task, tmp_path / "run", device, tf32=True) as run:
        before = fp32_errors(device)
        evaluate(run, task)
        assert fp32_errors(device) == before, "the evaluation left other switches behind"
    record(evaluation_error=max(errors))
    assert max(errors) < FP32_ERROR


@on_devices
def test_fp16_lowers_the_scale_of_its_scaler_until_a_step_is_finite(
    device, data_of, tmp_path, record
):
    task = tiny_task("classification", data_of("classification"), image_size=32)
    compute_loss = task.loss

    def steep_loss(model, batch, normalizers):  # its gradient overflows fp16 at the first scale
        losses = compute_loss(model, batch, normalizers)
        return losses | {"loss": STEEPNESS * losses["loss"]}

    task.loss = steep_loss
    with started(task, tmp_path / "run", device, precision="fp16", steps=16) as run:
        scales, states = [run.precision.scaler.get_scale()], [state_bytes(run)]
        for step in range(run.config.steps):
            loss, _ = take_step(run, task, step)
            assert math.isfinite(loss)
            scales.append(run.precision.scaler.get_scale())
            states.append(state_bytes(run))
        nonfinite = run.nonfinite_steps.read().new
    record(fp16_scales=f"{scales[0]:g} to {scales[-1]:g}")
    assert scales[0] == 65536 > scales[-1]
    for step in range(run.config.steps):
        overflowed = scales[step + 1] < scales[step]
        assert (states[step] == states[step + 1]) == overflowed, f"step {step}"
    assert states[0] != states[-1] and nonfinite == 0


@on_tasks()
def test_between_log_steps_only_the_matcher_has_host_syncs(
    task_name, device, data_of, tmp_path, record
):
    mixing = {"mixup": 0.8, "cutmix": 1.0} if task_name == "classification" else {}
    task = tiny_task(task_name, data_of(task_name), **NOISY[task_name] | mixing)
    settings = {"steps": 10, "log_every": 10, "eval_every": 0, "save_every": 0, "workers": 1}
    settings |= {"micro_batch": 4, "clip_grad": 1.0, "precision": "bf16"}
    with started(task, tmp_path / "run", device, **settings) as run:
        watch, before_step = record_cuda_syncs(), task.before_step

        def watched(module, step, steps):
            if step == 3:  # by now the allocator has its memory
                watched.syncs = watch.__enter__()
            if step == 9:
                watch.__exit__(None, None, None)
            before_step(module, step, steps)

        task.before_step = watched
        run.state.evaluated_at = run.last_save.step = run.config.steps
        fit(run, task)
    micro_batches = 6 * 2
    by_module = count_by_module(
        {line: number / micro_batches for line, number in watched.syncs.items()}
    )
    record(host_waits_per_micro_batch=sum(by_module.values()))
    assert by_module == EXPECTED_SYNCS[task_name]


@on_tasks("classification")
def test_gradient_checkpointing_gives_equal_gradients_and_saves_memory(
    task_name, device, data_of, tmp_path, record
):
    flags = {"data": str(data_of(task_name)), "model": "tiny", "image_size": SIDES[task_name]}
    flags |= {"batch_size": 4, "precision": "fp32", "tf32": False, "threads": 1}
    step = RepeatedStep(
        task_name, flags | {"device": device, "deterministic": True}, tmp_path / "run"
    )
    none, *_, every = step.cases
    difference = largest_difference(step.gradients(none), step.gradients(every))
    saved, saved_recomputed = step.saved_mib(none), step.saved_mib(every)
    record(gradient_difference=difference, saved_mib=saved, saved_recomputed_mib=saved_recomputed)
    # grid_sample of detection has no deterministic backward on CUDA
    assert difference <= {"cpu": 0.0, "cuda": 1e-2 if task_name == "detection" else 1e-5}[device]
    assert saved_recomputed < saved


@on_tasks()
def test_two_processes_give_the_gradient_and_the_scores_of_one(task_name, device, data_of):
    need_gpus(device, 2)
    make_task = partial(quiet_task, task_name, str(data_of(task_name)))
    config = replace(CONFIG, device=device, tf32=False)
    alone = step_and_scores(make_task, config)
    for rank, result in enumerate(on_ranks(2, step_and_scores, make_task, config)):
        assert_same_step(alone["step"], result["step"], f"process {rank} of 2 against 1")
        assert json.dumps(result["scores"]) == json.dumps(alone["scores"])
