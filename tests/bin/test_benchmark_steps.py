"""The repeated training step of the benchmarks: its cases, parts, memory and operations."""

import math
from functools import partial

import pytest
import torch
from segmentation_files import write_segmentation_data
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from visionloop.bin.benchmarks import step_timing
from visionloop.bin.benchmarks.memory import measure_cases as measure_memory
from visionloop.bin.benchmarks.on_paper import TASKS, blocks_of, memory_figures, saved_bytes
from visionloop.bin.benchmarks.overhead import measure_level
from visionloop.bin.benchmarks.repeated_step import (
    RepeatedStep,
    largest_difference,
    recomputation_cases,
    recomputed,
)
from visionloop.bin.benchmarks.step import COLUMNS
from visionloop.bin.benchmarks.step_timing import (
    Case,
    MatmulRate,
    count_flops,
    measure_cases,
    time_parts,
)
from visionloop.bin.benchmarks.tasks import default_precision
from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.engine import step as engine_step
from visionloop.engine.autotune import precision as autotuned
from visionloop.engine.batch import Normalizers
from visionloop.engine.sharding.memory_estimate import ModelSizes

PARTS = {"forward", "loss", "backward", "clipping", "optimizer", "ema", "rest"}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    data = str(write_segmentation_data(tmp_path_factory.mktemp("data"), images=4))
    return dict(
        data=data,
        model="tiny",
        image_size=32,
        batch_size=2,
        precision="fp32",
        threads=1,
        device="cpu",
        ema=True,
    )


@pytest.fixture(scope="module")
def step(flags, tmp_path_factory):
    return RepeatedStep("segmentation", flags, tmp_path_factory.mktemp("step") / "run")


def test_the_parts_are_the_whole_step(step):
    ticks = iter(range(10**6))
    clock, step.clock = (
        step.clock,
        lambda: next(ticks),
    )  # a part takes as many ticks as calls of the clock within it
    try:
        parts = time_parts(step, "none")
    finally:
        step.clock = clock
    assert parts.keys() == PARTS
    assert sum(parts.values()) == next(ticks) - 1
    assert all(parts[name] == 1 for name in ("forward", "backward", "clipping", "optimizer", "ema"))


def test_no_clock_is_left_after_a_timed_step_nor_after_an_error(step):
    before = engine_step.clip_grad_norm_, torch.Tensor.backward
    time_parts(step, "none")
    normalizers, step.normalizers = step.normalizers, Normalizers()
    with pytest.raises(KeyError):
        time_parts(step, "none")
    step.normalizers = normalizers
    run = step.run
    assert (engine_step.clip_grad_norm_, torch.Tensor.backward) == before
    assert "loss" not in vars(step.task) and "forward" not in vars(run.model)
    assert "step" not in vars(run.optimizer) and "update" not in vars(run.ema)


def test_a_repeated_step_leaves_weights_and_ema_alone(step):
    before = {name: tensor.clone() for name, tensor in step.run.module.state_dict().items()}
    time_parts(step, "none")
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in step.run.module.state_dict().items()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.run.ema.tensors.items())


def test_cases_grow_from_none_over_the_first_class_of_blocks_to_all():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)
    assert recomputation_cases([a, b, c]) == {
        "none": [],
        "Linear": [a, c],
        "Linear + ReLU": [a, b, c],
    }
    assert recomputation_cases([a, c]) == {"none": [], "Linear": [a, c]}
    assert recomputation_cases([]) == {"none": []}


def test_blocks_are_as_before_after_recomputation():
    block = nn.Linear(2, 2)
    with recomputed([block]):
        assert "forward" in vars(block)
        block(torch.ones(1, 2)).sum().backward()
    assert "forward" not in vars(block)


def test_each_case_saves_less_and_computes_the_same(step):
    assert list(step.cases) == ["none", "EomtLayer", "EomtLayer + PredictionHeads"]
    saved = [step.saved_mib(case) for case in step.cases]
    assert saved[0] > 1.2 * saved[1] > 1.2**2 * saved[2]
    plain = step.gradients("none")
    assert {"query.weight", "layers.0.norm1.weight", "class_predictor.weight"} <= plain.keys()
    for case in step.cases:
        assert largest_difference(plain, step.gradients(case)) == 0


def test_weights_optimizer_state_and_ema_are_held(step):
    # weights, two moments, a step count of 4 bytes each, and the EMA of weights and one buffer
    assert 4 * step.weights_mib() <= step.held_mib() < 4.1 * step.weights_mib()


def test_flops_are_those_of_products_forward_and_backward():
    layer = nn.Linear(5, 7)
    x = torch.randn(3, 5, requires_grad=True)
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_attention_on_the_cpu_counts_as_its_products():
    tensors = torch.randn(3, 2, 2, 20, 16)
    fused = count_flops(lambda: scaled_dot_product_attention(*tensors))
    with sdpa_kernel(SDPBackend.MATH):
        assert (
            count_flops(lambda: scaled_dot_product_attention(*tensors))
            == fused
            == 2 * 2 * 2 * 2 * 20 * 20 * 16
        )
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    # the products of the forward, and five in the backward: the scores again, and a gradient for
    # each of four factors
    assert (
        count_flops(lambda: scaled_dot_product_attention(*leaves).sum().backward())
        == fused + 5 * fused // 2
    )


def test_recomputed_blocks_are_counted_twice_forward(step):
    plain, again = (
        count_flops(partial(step.take, case)) for case in ("none", list(step.cases)[-1])
    )
    assert plain < again < plain * 4 / 3 + 1


def test_the_matmul_rate_is_operations_by_seconds(step):
    ticks = iter(range(0, 100, 2))
    rate = MatmulRate(torch.float32, step)
    rate.clock = lambda: next(ticks)
    assert rate.measure() == rate.rates[0] == rate.side**3


@pytest.mark.parametrize(
    ("task_name", "expected"), [("segmentation", "fp16"), ("detection", "fp32")]
)
def test_the_default_precision_is_that_of_train(task_name, expected, monkeypatch):
    """Detection's recipe for `tiny` names one."""
    monkeypatch.setattr(autotuned, "choose_precision", lambda device, widths: ("fp16", "why"))
    assert default_precision(task_name, "tiny", "cpu") == expected


def test_a_matrix_is_not_doubled_once_its_product_takes_long(step, monkeypatch):
    """bf16 is emulated on many CPUs: 2048 x 2048 numbers would take half a minute each time."""
    ticks = iter(range(1000))
    monkeypatch.setattr(step, "clock", lambda: next(ticks))
    assert MatmulRate(torch.float32, step).side == step_timing.MATRIX_SIDE["cpu"] // 16


def test_each_case_has_all_figures(flags, monkeypatch):
    # a CPU without bf16 units takes minutes for the full size
    monkeypatch.setitem(step_timing.MATRIX_SIDE, "cpu", 64)
    context, rows = measure_cases(
        "segmentation", flags, [Case("fp32", False), Case("bf16", True)], repeats=2
    )
    assert [row["case"] for row in rows] == ["fp32", "bf16 recomputed"]
    assert [row["recomputed"] for row in rows] == ["none", "EomtLayer + PredictionHeads"]
    assert (
        context["matmul_fp32_gflops_per_second"] > 0
        and context["matmul_bf16_gflops_per_second"] > 0
    )
    assert rows[0]["times_as_long"] == 1
    for row in rows:
        assert COLUMNS.keys() <= row.keys()
        assert all(
            math.isfinite(row[name]) and row[name] >= 0 for name in COLUMNS if name != "peak_mib"
        )
        assert row["samples_per_second"] == pytest.approx(1000 * 2 / row["step_ms"], rel=0.02)


def test_recomputed_gradients_are_equal_in_bf16(flags):
    context, rows = measure_memory("segmentation", flags | {"precision": "bf16"}, repeats=1)
    assert context["gradients"] == "equal" and context["weights_mib"] > 1
    assert rows[0]["recomputed"] == "none" and rows[0]["times_as_long"] == 1


def test_a_bare_loop_in_fp16_with_micro_batches_ends_with_equal_weights(flags, tmp_path):
    own = flags | {"precision": "fp16", "micro_batch": 1}
    row = measure_level(
        "segmentation",
        "memory",
        tmp_path / "run",
        steps=12,
        block=2,
        workers=1,
        **own | {"ema": False},
    )
    assert row["weights"] == "equal"


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task_name", TASKS)
def test_a_forward_without_contents_saves_as_much_as_a_real_one(task_name, precision, recompute):
    table = next(table for table in MODEL_ZOOS if table.command.replace("-", "_") == task_name)
    tiny = table.find("tiny")
    shape, blocks = (
        (2, 3, tiny.input_size, tiny.input_size),
        blocks_of(task_name) if recompute else None,
    )
    build = partial(table.build_network, tiny)
    without, real = (
        saved_bytes(build, shape, precision, blocks, real=real) for real in (False, True)
    )
    # kernels for bf16 save a few small tensors that those without contents do not
    assert without == real if precision == "fp32" else abs(without / real - 1) < 0.02


def test_a_layer_saves_its_input_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.first(x) + self.second(x)

    assert saved_bytes(Twice, (5, 8), "fp32") == 4 * 5 * 8


@pytest.mark.parametrize("over", [1, 8])
def test_the_largest_micro_batch_fits_and_one_more_does_not(over):
    gib = 2**30
    saved = {(False, 1): 3 * gib, (False, 2): 5 * gib, (True, 1): gib, (True, 2): 2 * gib}
    sizes = ModelSizes(root=((gib // 160, 1),), units=(((gib // 80, 2), (gib // 80, 4)),))
    figures = memory_figures(sizes, over, saved)
    assert figures["plain_each_gib"] == 2 and figures["plain_shared_gib"] == 1
    state = [figures[f"{name}_gib"] for name in ("weights", "gradients", "moments", "ema")]
    assert sum(state) == pytest.approx(figures["state_gib"], abs=0.003)
    assert (figures["gathered_gib"] > 0) == (over > 1)
    for size in (24, 80):
        most = figures[f"plain_most_in_{size}_gib"]
        assert figures["step_gib"] + 1 + 2 * most <= size < figures["step_gib"] + 3 + 2 * most
