"""Memory of a training step found without that memory."""

import json
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from visionloop.bin.benchmarks.kept_memory import blocks_of, figures, kept_bytes
from visionloop.bin.benchmarks.on_paper import TASKS, on_paper
from visionloop.bin.model_zoo.listing import TABLES


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task_name", TASKS)
def test_a_forward_without_contents_keeps_as_much_as_a_real_one(task_name, precision, recompute):
    table = next(table for table in TABLES if table.command.replace("-", "_") == task_name)
    tiny = table.find("tiny")
    shape, blocks = (
        (2, 3, tiny.input_size, tiny.input_size),
        blocks_of(task_name) if recompute else None,
    )
    found, real = (
        kept_bytes(partial(table.build_network, tiny), shape, precision, blocks, real=real)
        for real in (False, True)
    )
    # kernels for bf16 keep a few small tensors that those without contents do not
    assert found == real if precision == "fp32" else abs(found / real - 1) < 0.02


def test_what_a_layer_keeps_is_its_input_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.first(x) + self.second(x)

    assert kept_bytes(Twice, (5, 8), "fp32") == 4 * 5 * 8


def test_the_largest_micro_batch_fits_and_one_more_does_not():
    gib = 2**30
    kept = {(None, 1): 3 * gib, (None, 2): 5 * gib, (torch, 1): gib, (torch, 2): 2 * gib}
    found = figures(gib // 20 * 2, kept)
    assert found["plain_each_gib"] == 2 and found["plain_shared_gib"] == 1
    state = found["state_gib"]
    for card in (24, 80):
        most = found[f"plain_most_in_{card}_gib"]
        assert state + 1 + 2 * most <= card < state + 1 + 2 * (most + 1)


def test_the_command_tells_of_one_model(tmp_path):
    result = CliRunner().invoke(
        on_paper,
        ["--task", "segmentation", "--model", "tiny", "--json", str(tmp_path / "rows.json")],
    )
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "rows.json").read_text())
    assert row["model"] == "tiny" and row["recomputed_each_gib"] < row["plain_each_gib"]
    assert "plain_most_in_24_gib" in result.output
