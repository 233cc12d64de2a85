"""fp32, bf16 and fp16 on one path: the error of bf16, and the gradient scaler of fp16."""

import json
from dataclasses import replace

import pytest
import torch
from toy_task import ToyConfig, ToyTask

from visionloop.engine.batch import Normalizers
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import World
from visionloop.engine.precision import build_precision
from visionloop.engine.prepare import prepare_run
from visionloop.engine.run import TrainState
from visionloop.engine.step import train_step
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.testing.short_runs import spec_of

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    steps=12,
    batch_size=8,
    micro_batch=4,
    lr=1e-2,
    warmup_steps=0,
    schedule="constant",
    clip_grad=float("inf"),
    workers=0,
    threads=1,
)


@pytest.fixture
def start(tmp_path):
    """start(precision, ...) -> (run, task) at step 0; everything is closed at the end."""
    runs = []

    def build(precision, *, batch_norm=False, poison="", **changes):
        task = ToyTask(ToyConfig(dropout=0.0, batch_norm=batch_norm, poison=poison))
        output = tmp_path / f"run_{len(runs)}"
        output.mkdir()
        config = replace(CONFIG, precision=precision, **changes)
        spec = spec_of(task, output, config=config, world=World(0, 0, 1, CPU))
        run = prepare_run(spec, state=TrainState(), stop=StopFlag())
        runs.append(run)
        return run, task

    yield build
    for run in runs:
        run.data.close()
        run.log.close()


def take_step(run, task, step):
    task.before_step(run.module, step, run.config.steps)
    micro_batches = run.data.fetch(lambda: False)
    losses, grad_norm = train_step(
        run, task, micro_batches, Normalizers({"samples": run.config.batch_size}), step
    )
    return float(losses["loss"]), float(grad_norm)


def bits(run):
    state = {
        f"optimizer/{i}/{key}": value
        for i, state in enumerate(run.optimizer.state.values())
        for key, value in state.items()
    }
    state |= run.module.state_dict() | {
        f"ema/{name}": value for name, value in run.ema.tensors.items()
    }
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def test_a_step_in_bf16_is_close_to_one_in_fp32(start):
    """Loss within 1 %, gradient norm within 3 %: bf16 keeps 8 bits, 0.4 % a rounding."""
    exact, coarse = (take_step(*start(precision), 0) for precision in ("fp32", "bf16"))
    assert coarse[0] == pytest.approx(exact[0], rel=0.01) and coarse[1] == pytest.approx(
        exact[1], rel=0.03
    )
    assert coarse != exact, "autocast was on"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_after_some_steps_are_close_to_those_of_fp32(start, precision):
    """With SGD, whose step is proportional to the gradient: 3 % of the distance walked."""
    ways = {}
    for name in ("fp32", precision):
        run, task = start(name, optimizer="sgd", momentum=0.0)
        before = torch.cat(
            [parameter.detach().clone().flatten() for parameter in run.trained_parameters]
        )
        for step in range(5):
            take_step(run, task, step)
        ways[name] = (
            torch.cat([parameter.detach().flatten() for parameter in run.trained_parameters])
            - before
        )
    assert (ways[precision] - ways["fp32"]).norm() <= 0.03 * ways["fp32"].norm()
    assert ways["fp32"].norm() > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_weights_moments_and_loss_stay_in_fp32(start, precision):
    run, task = start(precision)
    losses, grad_norm = train_step(
        run, task, run.data.fetch(lambda: False), Normalizers({"samples": 8}), 0
    )
    tensors = [*run.module.parameters(), *losses.values(), grad_norm]
    tensors += [value for state in run.optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(start, precision):
    run, task = start(precision)
    losses = [take_step(run, task, step)[0] for step in range(12)]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_fp16_skips_a_step_with_an_overflow_and_halves_the_scale(start):
    run, task = start("fp16", poison="3", batch_norm=True)
    for step in range(3):
        take_step(run, task, step)
    before, scale = bits(run), run.precision.scaler.get_scale()
    _, grad_norm = take_step(run, task, 3)
    assert not torch.isfinite(torch.tensor(grad_norm))
    assert bits(run) == before, "weights, moments, EMA and statistics"
    assert run.precision.scaler.get_scale() == scale / 2
    take_step(run, task, 4)
    assert bits(run) != before and run.precision.scaler.get_scale() == scale / 2


def test_a_scale_that_is_too_large_comes_down_by_itself(start):
    """An overflow in fp16 alone: the gradients are finite in fp32, the scaled ones are not."""
    run, task = start("fp16")
    run.precision.scaler.load_state_dict(run.precision.scaler.state_dict() | {"scale": 2.0**40})
    before = bits(run)
    norms = [take_step(run, task, step)[1] for step in range(2)]
    assert norms == [float("inf")] * 2 or all(
        norm != norm or norm == float("inf") for norm in norms
    )
    assert bits(run) == before and run.precision.scaler.get_scale() == 2.0**38


def test_an_overflow_counts_as_bad_only_when_the_scale_is_down_to_1(start):
    run, task = start("fp16", poison="0,1")
    take_step(run, task, 0)
    assert run.nonfinite_steps.read()[0] == 0
    run.precision.scaler.load_state_dict(run.precision.scaler.state_dict() | {"scale": 1.0})
    take_step(run, task, 1)
    assert run.nonfinite_steps.read()[0] == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_scaler_every_bad_step_counts(start, precision):
    run, task = start(precision, poison="0")
    take_step(run, task, 0)
    assert run.nonfinite_steps.read()[0] == 1


def test_gradients_are_clipped_in_true_units(start):
    """The scale of fp16 must not reach the clipping."""
    norms = []
    for precision in ("fp32", "fp16"):
        run, task = start(
            precision, optimizer="sgd", momentum=0.0, lr=1.0, clip_grad=0.01, weight_decay=0.0
        )
        before = torch.cat(
            [parameter.detach().clone().flatten() for parameter in run.trained_parameters]
        )
        take_step(run, task, 0)
        norms.append(
            float(
                (
                    torch.cat(
                        [parameter.detach().flatten() for parameter in run.trained_parameters]
                    )
                    - before
                ).norm()
            )
        )
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_the_scaler_s_state_goes_through_json_and_back():
    first, second = (build_precision("fp16", CPU) for _ in range(2))
    state = first.scaler_state() | {"scale": 1024.0, "_growth_tracker": 17}
    first.load_scaler_state(state)
    assert first.scaler_state() == state
    second.load_scaler_state(json.loads(json.dumps(first.scaler_state())))
    assert second.scaler_state() == state
    assert float(second.scaler.scale(torch.ones(()))) == 1024.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_without_scaler_has_an_empty_state_that_any_other_can_be_given(precision):
    built = build_precision(precision, CPU)
    assert built.scaler_state() == {} and float(built.scaler.scale(torch.ones(()))) == 1.0
    built.load_scaler_state({})
    build_precision("fp16", CPU).load_scaler_state({})


def test_autocast_is_on_in_half_precisions_only():
    a, b = torch.randn(2, 2), torch.randn(2, 2)
    dtypes = {}
    for name in ("fp32", "bf16", "fp16"):
        with build_precision(name, CPU).autocast():
            dtypes[name] = (a @ b).dtype
    assert dtypes == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
