"""Sharded training on GPUs: one alone has the bits of a plain run, several the losses of DDP.

Tests with `cpu` in their name run the same check on the CPU.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from device_task import QUIET, need_gpus, on_devices, tiny_task, train_runs

from visionloop.engine.testing.short_runs import CONFIG, logged, on_ranks, runs_differ

# relative: gradients may add up in another order
LOSS_ERROR, BF16_ERROR = 1e-5, 0.01


def losses_of(output):
    return [row["loss"] for row in logged(output) if row["kind"] == "train"]


def short_task(task_name, data):
    """Return a function that makes a quiet task, and the settings of its short runs."""
    make_task = partial(tiny_task, task_name, str(data), **QUIET[task_name])
    return make_task, replace(CONFIG, tf32=False, deterministic=True)


@pytest.mark.slow
@on_devices
def test_sharded_on_one_device_a_run_has_the_bits_of_a_plain_one(device, data_of, tmp_path):
    make_task, config = short_task("classification", data_of("classification"))
    config = replace(config, device=device)
    runs = [("plain", {}, None), ("sharded", {"shard": "full"}, None)]
    on_ranks(1, train_runs, make_task, str(tmp_path), config, runs)
    assert runs_differ(tmp_path / "plain", tmp_path / "sharded", ("optimizer", "ema")) is None


@pytest.mark.gpu
@pytest.mark.parametrize("task_name", ["classification", "panoptic_segmentation"])
def test_sharded_over_all_gpus_a_run_has_the_losses_of_ddp_and_resumes(
    task_name, data_of, tmp_path, record
):
    need_gpus("cuda", 2)
    number = min(torch.cuda.device_count(), 8)
    make_task, config = short_task(task_name, data_of(task_name))
    config = replace(config, device="cuda", micro_batch=1, batch_size=number)
    runs = [
        ("plain", {}, None),
        ("sharded", {"shard": "full"}, None),
        ("again", {"shard": "full"}, None),
        ("prefetched", {"shard": "full", "shard_prefetch": 1}, None),
        ("gathered_in_bf16", {"shard": "full", "shard_dtype": "bf16"}, None),
    ]
    on_ranks(number, train_runs, make_task, str(tmp_path), config, runs)
    plain, sharded = losses_of(tmp_path / "plain"), losses_of(tmp_path / "sharded")
    errors = [abs(a - b) / abs(a) for a, b in zip(plain, sharded, strict=True)]
    record(gpus=number, loss_error=max(errors))
    assert max(errors) <= LOSS_ERROR
    for name in ("again", "prefetched"):
        assert runs_differ(tmp_path / "sharded", tmp_path / name) is None, name
    rounded = losses_of(tmp_path / "gathered_in_bf16")
    assert rounded == pytest.approx(plain, rel=BF16_ERROR)
    parts = [("stopped", {"shard": "full"}, stop_after) for stop_after in (3, None)]
    on_ranks(number, train_runs, make_task, str(tmp_path), config, parts)
    assert runs_differ(tmp_path / "sharded", tmp_path / "stopped") is None
