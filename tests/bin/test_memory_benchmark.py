"""The benchmark of memory on a small model."""

import json

import pytest
import torch
from click.testing import CliRunner
from segmentation_files import write_segmentation_data
from torch import nn

from visionloop.bin.benchmarks.memory import measure_cases, memory
from visionloop.bin.benchmarks.same_step import SameStep, cases_of, largest_difference, recomputed


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_segmentation_data(tmp_path_factory.mktemp("data"), images=4))


@pytest.fixture(scope="module")
def step(data, tmp_path_factory):
    flags = dict(
        data=data,
        model="tiny",
        image_size=32,
        batch_size=2,
        precision="fp32",
        threads=1,
        device="cpu",
    )
    return SameStep("segmentation", flags, tmp_path_factory.mktemp("same") / "run")


def test_cases_grow_from_none_over_the_first_kind_of_blocks_to_all():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)
    assert cases_of([a, b, c]) == {"none": [], "Linear": [a, c], "Linear + ReLU": [a, b, c]}
    assert cases_of([a, c]) == {"none": [], "Linear": [a, c]}
    assert cases_of([]) == {"none": []}


def test_blocks_are_as_before_once_they_were_recomputed():
    block = nn.Linear(2, 2)
    with recomputed([block]):
        assert "forward" in vars(block)
        block(torch.ones(1, 2)).sum().backward()
    assert "forward" not in vars(block)


def test_each_case_keeps_less_and_computes_the_same(step):
    assert list(step.cases) == ["none", "EomtLayer", "EomtLayer + Heads"]
    kept = [step.saved_mib(case) for case in step.cases]
    assert kept[0] > 1.2 * kept[1] > 1.2**2 * kept[2]
    plain = step.gradients("none")
    assert {"query.weight", "layers.0.norm1.weight", "class_predictor.weight"} <= plain.keys()
    for case in step.cases:
        assert largest_difference(plain, step.gradients(case)) == 0


def test_steps_leave_the_weights_alone(step):
    before = {name: tensor.clone() for name, tensor in step.run.module.state_dict().items()}
    step.take("none")
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in step.run.module.state_dict().items()
    )


def test_figures_of_all_cases_and_that_gradients_are_equal(data):
    flags = dict(
        data=data,
        model="tiny",
        image_size=32,
        batch_size=2,
        precision="bf16",
        threads=1,
        device="cpu",
    )
    shared, cases = measure_cases("segmentation", flags, repeats=1)
    assert shared["gradients"] == "equal" and shared["weights_mib"] > 1
    assert cases["none"]["times_as_long"] == 1
    assert all(
        set(figures) == {"saved_mib", "step_ms", "times_as_long"} for figures in cases.values()
    )


@pytest.mark.slow
def test_the_command_tells_of_all_cases(data, tmp_path):
    small = [
        "--task",
        "segmentation",
        "--data",
        data,
        "--image-size",
        "32",
        "--batch-size",
        "2",
        "--repeats",
        "1",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(memory, [*small, "--json", str(tmp_path / "memory.json")])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "memory.json").read_text().splitlines()]
    assert [row["case"] for row in rows] == ["none", "EomtLayer", "EomtLayer + Heads"]
    for row in rows:
        assert row["gradients"] == "equal" and row["step_ms"] > 0 and row["resident_mib"] >= 0
    assert "gradients                equal" in result.output
