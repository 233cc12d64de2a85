"""Sharded training computes what DDP computes; clipping alone changes the rounding."""

import json
import math
import shutil

import pytest
import torch
from sharded_toy import differing, largest_difference, tensors_of, train_on

from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.sharding import fsdp
from visionloop.engine.sharding.fsdp import build_mesh
from visionloop.engine.testing.short_runs import logged

FULL = {"shard": "full"}
THREE = {"batch_size": 12, "micro_batch": 2}  # micro-batches of each of two ranks
ROUNDING = 1e-6
VARIANTS = {
    "ddp": {},
    "full": FULL,
    "clipped_ddp": {"clip_grad": 0.01},
    "clipped": FULL | {"clip_grad": 0.01},
    "norm_ddp": {"toy": {"batch_norm": True, "dropout": 0.3}},
    "norm": FULL | {"toy": {"batch_norm": True, "dropout": 0.3}},
    "frozen_ddp": {"toy": {"freeze": "backbone"}},
    "frozen": FULL | {"toy": {"freeze": "backbone"}},
    "three_ddp": THREE,
    "three": FULL | THREE,
    "recomputed": FULL | {"grad_checkpointing": True},
    "prefetched": FULL | {"shard_prefetch": 1},
    "gathered_in_bf16": FULL | {"shard_dtype": "bf16"},
    "autocast_ddp": {"precision": "bf16"},
    "autocast": FULL | {"precision": "bf16"},
    "plain_sgd": FULL | {"optimizer": "sgd"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train all variants on two processes: (folder, {name: result})."""
    folder = tmp_path_factory.mktemp("runs")
    results = train_on(2, folder, **VARIANTS)
    return folder, results


def losses_of(output):
    return [row["loss"] for row in logged(output) if row["kind"] == "train"]


@pytest.mark.parametrize("name", ["", "norm", "frozen", "autocast"])
def test_sharded_over_two_ranks_a_run_has_the_bits_and_logged_numbers_of_ddp(name, runs):
    folder, _ = runs
    plain, sharded = folder / (f"{name}_ddp" if name else "ddp"), folder / (name or "full")
    assert differing(tensors_of(plain), tensors_of(sharded)) == []
    assert losses_of(plain) == losses_of(sharded)


@pytest.mark.parametrize("name", ["clipped", "three"])
def test_clipping_and_micro_batches_change_the_rounding_alone(name, runs):
    folder, _ = runs
    plain, sharded = tensors_of(folder / f"{name}_ddp"), tensors_of(folder / name)
    assert largest_difference(plain, sharded) <= ROUNDING
    pairs = zip(losses_of(folder / f"{name}_ddp"), losses_of(folder / name), strict=True)
    assert all(math.isclose(a, b, rel_tol=ROUNDING) for a, b in pairs)


def test_clipping_acts_on_the_norm_over_all_ranks(runs):
    folder, _ = runs
    assert largest_difference(tensors_of(folder / "full"), tensors_of(folder / "clipped")) > 1e-5
    norms = [
        [row["grad_norm"] for row in logged(folder / name) if row["kind"] == "train"]
        for name in ("clipped_ddp", "clipped")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=ROUNDING)


@pytest.mark.parametrize("name", ["recomputed", "prefetched"])
def test_recomputed_activations_and_prefetched_units_change_no_bit(name, runs):
    folder, _ = runs
    assert differing(tensors_of(folder / "full"), tensors_of(folder / name)) == []


def test_frozen_weights_stay_and_have_no_moments(runs):
    folder, _ = runs
    tensors, moments = tensors_of(folder / "frozen"), tensors_of(folder / "full").keys()
    lost = moments - tensors.keys()
    assert lost and all(name.startswith("optimizer/stem.") for name in lost)
    # never updated, so equal to the average of itself
    assert torch.equal(tensors["weights/stem.weight"], tensors["ema/stem.weight"])


def test_weights_gathered_in_bf16_train_and_are_saved_in_fp32(runs):
    folder, results = runs
    assert results["gathered_in_bf16"][0] == "finished"
    exact, rounded = losses_of(folder / "full"), losses_of(folder / "gathered_in_bf16")
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.01)
    tensors = tensors_of(folder / "gathered_in_bf16")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    # not rounded to the dtype of the gather on their way
    weights = tensors["weights/block.0.weight"]
    assert not torch.equal(weights, weights.bfloat16().float())


def test_sharding_is_refused_in_one_line_with_sgd(runs):
    _, results = runs
    assert results["plain_sgd"] == [
        "failed",
        "bad_input",
        "--shard full: not with --optimizer sgd",
    ]


def test_three_ranks_train_tensors_with_fewer_rows_than_ranks_and_without_elements(tmp_path):
    odd = {"task": "odd", "batch_size": 6, "micro_batch": 2}
    train_on(3, tmp_path, ddp=odd, full=FULL | odd, stopped=FULL | odd | {"stop_after": 3})
    plain, sharded = tensors_of(tmp_path / "ddp"), tensors_of(tmp_path / "full")
    assert sharded["weights/tokens"].shape == (1, 0, 32)
    assert largest_difference(plain, sharded) <= ROUNDING
    train_on(3, tmp_path, stopped=FULL | odd)
    assert differing(sharded, tensors_of(tmp_path / "stopped")) == []


def test_two_copies_of_two_shards_train_as_ddp_of_four_and_one_copy_writes(tmp_path):
    four = {"micro_batch": 2}
    nodes = four | {"shard": "node", "local_size": 2}
    train_on(4, tmp_path, ddp=four, node=nodes)
    plain, sharded = tensors_of(tmp_path / "ddp"), tensors_of(tmp_path / "node")
    assert largest_difference(plain, sharded) <= ROUNDING
    assert losses_of(tmp_path / "node") == pytest.approx(losses_of(tmp_path / "ddp"), rel=ROUNDING)
    folder = tmp_path / "node" / "checkpoints" / "step_00000006"
    assert sorted(path.name for path in folder.glob("weights-*")) == [
        f"weights-0000{number}-of-00002.safetensors" for number in (1, 2)
    ]
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert files.keys() == {p.name for p in folder.iterdir()} - {"manifest.json"}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_have_the_losses_of_the_others_within_rounding(tmp_path):
    train_on(2, tmp_path, full=FULL, compiled=FULL | {"compile": True})
    pairs = zip(losses_of(tmp_path / "full"), losses_of(tmp_path / "compiled"), strict=True)
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("sizes", [[2, 2, 1], [2, 2, 1, 1]])
def test_nodes_of_different_sizes_are_refused_in_one_line_on_every_rank(sizes, monkeypatch):
    monkeypatch.setattr(fsdp, "gather_objects", lambda world, value: sizes)
    number = len(sizes)
    for rank, local_size in enumerate(sizes):
        world = World(rank, 0, number, torch.device("cpu"), None, local_size)
        with pytest.raises(UserError, match=r"--shard node: expected the same number of .* every"):
            build_mesh("node", world)
