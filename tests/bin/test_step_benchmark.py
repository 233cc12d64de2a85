"""The benchmark of a step's parts on a small model."""

import json
import math

import pytest
import torch
from click.testing import CliRunner
from segmentation_files import write_segmentation_data
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from visionloop.bin.benchmarks.matrix_products import MatrixProduct, count_flops
from visionloop.bin.benchmarks.same_step import SameStep
from visionloop.bin.benchmarks.step import COLUMNS, step
from visionloop.bin.benchmarks.step_cases import measure_cases
from visionloop.bin.benchmarks.step_parts import take_in_parts
from visionloop.engine import step as engine_step

PARTS = {"forward", "loss", "backward", "clipping", "optimizer", "average", "rest"}


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
def same(flags, tmp_path_factory):
    return SameStep("segmentation", flags, tmp_path_factory.mktemp("same") / "run")


def test_the_parts_are_the_whole_step(same):
    ticks = iter(range(10**6))
    clock, same.clock = (
        same.clock,
        lambda: next(ticks),
    )  # a part is as long as the looks at the clock within it
    try:
        parts = take_in_parts(same, "none")
    finally:
        same.clock = clock
    assert parts.keys() == PARTS
    looks = next(ticks)
    assert sum(parts.values()) == looks - 1
    assert (
        parts["forward"]
        == parts["backward"]
        == parts["clipping"]
        == parts["optimizer"]
        == parts["average"]
        == 1
    )


def test_nothing_is_left_timed(same):
    before = engine_step.clip_grad_norm_, torch.Tensor.backward
    take_in_parts(same, "none")
    run, hooks = same.run, same.run.model
    assert (engine_step.clip_grad_norm_, torch.Tensor.backward) == before
    assert (
        "loss" not in vars(same.task)
        and "step" not in vars(run.optimizer)
        and "update" not in vars(run.ema)
    )
    assert not hooks._forward_hooks and not hooks._forward_pre_hooks


def test_an_error_within_a_step_leaves_nothing_timed(same):
    count, same.count = same.count, {}
    with pytest.raises(KeyError):
        take_in_parts(same, "none")
    same.count = count
    assert "loss" not in vars(same.task) and not same.run.model._forward_hooks


def test_a_measured_step_leaves_weights_and_average_alone(same):
    before = {name: tensor.clone() for name, tensor in same.run.module.state_dict().items()}
    take_in_parts(same, "none")
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in same.run.module.state_dict().items()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in same.run.ema.tensors.items())


def test_flops_are_those_of_products_forward_and_backward():
    layer = torch.nn.Linear(5, 7)
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
    # the products of the forward, and five in the backward: scores anew, and a gradient for each of
    # four factors
    assert (
        count_flops(lambda: scaled_dot_product_attention(*leaves).sum().backward())
        == fused + 5 * fused // 2
    )


def test_recomputed_blocks_are_counted_twice_forward(same):
    plain, again = (
        count_flops(lambda case=case: same.take(case)) for case in ("none", list(same.cases)[-1])
    )
    assert plain < again < plain * 4 / 3 + 1


def test_the_rate_of_products_is_operations_by_seconds():
    ticks = iter(range(0, 100, 2))
    product = MatrixProduct(torch.float32, torch.device("cpu"), lambda: next(ticks))
    assert product.flops_per_second() == product.side**3
    assert product.median_gflops() == round(product.side**3 / 1e9, 1)


def test_weights_moments_and_average_are_held(same):
    # weights, two moments, a step count of 4 bytes each, and the average of weights and one buffer
    assert 4 * same.weights_mib() <= same.held_mib() < 4.1 * same.weights_mib()


def test_each_case_has_all_figures(flags):
    names = [("fp32", False, False), ("bf16", True, False)]
    shared, rows = measure_cases("segmentation", flags, names, repeats=2)
    assert [row["case"] for row in rows] == ["fp32", "bf16 recomputed"]
    assert [row["recomputed"] for row in rows] == ["none", "EomtLayer + Heads"]
    assert (
        shared["matmul_fp32_gflops_per_second"] > 0 and shared["matmul_bf16_gflops_per_second"] > 0
    )
    assert rows[0]["times_as_long"] == 1 and rows[1]["gflop"] > rows[0]["gflop"]
    for row in rows:
        assert COLUMNS.keys() <= row.keys()
        assert all(
            math.isfinite(row[name]) and row[name] >= 0 for name in COLUMNS if name != "peak_mib"
        )
        assert row["samples_per_second"] == pytest.approx(1000 * 2 / row["step_ms"], rel=0.02)


@pytest.mark.slow
def test_the_command_writes_a_row_a_case_with_its_memory(flags, tmp_path):
    small = [
        "--task",
        "segmentation",
        "--data",
        flags["data"],
        "--image-size",
        "32",
        "--batch-size",
        "2",
        "--repeats",
        "1",
    ]
    chosen = [
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--precision",
        "fp32",
        "--no-grad-checkpointing",
        "--compile",
    ]
    result = CliRunner().invoke(step, [*small, *chosen, "--json", str(tmp_path / "step.json")])
    assert result.exit_code == 0, result.output
    plain, compiled = (
        json.loads(line) for line in (tmp_path / "step.json").read_text().splitlines()
    )
    assert (plain["case"], compiled["case"]) == ("fp32", "fp32 compiled")
    assert plain["peak_mib"] >= 0 and compiled["peak_mib"] is None
    assert compiled["graphs"] > 0 and compiled["graph_breaks"] == sum(
        compiled["break_reasons"].values()
    )
    assert plain["gflop"] == compiled["gflop"]
    assert "fp32 compiled" in result.output
