"""`--shard auto` and the proposal of `check`: the least division that leaves half of the memory."""

from dataclasses import replace

import pytest
import torch

from visionloop.engine.autotune.shard import least_division, needed_bytes, smallest_division
from visionloop.engine.distributed import World
from visionloop.engine.sharding.memory_estimate import ModelSizes
from visionloop.engine.testing.short_runs import CONFIG

# 64 blocks of 2^20 weights
SIZES = ModelSizes(root=((1024, 16),), units=(((1024, 1024),),) * 64)
PLAIN = replace(CONFIG, ema=False)
TWO_NODES = World(0, 0, 16, torch.device("cpu"), local_size=8)


@pytest.mark.parametrize(("kind", "ranks"), [("none", 1), ("node", 8), ("full", 16)])
def test_the_least_division_that_fits_is_chosen(kind, ranks):
    just_enough = 2 * needed_bytes(SIZES, PLAIN, ranks)
    assert least_division(SIZES, PLAIN, TWO_NODES, just_enough)[0] == kind
    assert least_division(SIZES, PLAIN, TWO_NODES, just_enough - 2)[0] != kind or kind == "full"


def test_where_nothing_fits_everything_is_divided():
    assert least_division(SIZES, PLAIN, TWO_NODES, 0)[0] == "full"


def test_one_process_divides_nothing():
    alone = World(0, 0, 1, torch.device("cpu"))
    assert least_division(SIZES, PLAIN, alone, 0)[0] == "none"


def test_ema_and_moments_count():
    plain = needed_bytes(SIZES, PLAIN, 1)
    assert needed_bytes(SIZES, replace(PLAIN, ema=True), 1) == plain * 5 // 4
    assert needed_bytes(SIZES, replace(PLAIN, optimizer="sgd", momentum=0.0), 1) == plain // 2


def test_check_proposes_the_fewest_processes_and_nothing_where_one_is_enough():
    enough = 2 * needed_bytes(SIZES, PLAIN, 1)
    assert smallest_division(SIZES, PLAIN, enough) is None
    assert "on each of 2 such devices" in smallest_division(SIZES, PLAIN, enough - 2)
    assert "on each of 64 such devices" in smallest_division(SIZES, PLAIN, 1)
