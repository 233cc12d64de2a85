"""Real models that are sharded: loaded from folders, and trained where a rank has no targets."""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_detection
import small_segmentation
import small_segments
import torch
import torch._dynamo  # once here, not in every forked rank
import torch.utils.tensorboard
from segmentation_files import write_segmentation_data
from small_segments import write_scenes
from transformers import EomtDinov3Config

from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.distributed import World, join_world
from visionloop.engine.sharding.fsdp import buffers_of, build_mesh, shard_module
from visionloop.engine.tensors import local, whole
from visionloop.engine.testing.short_runs import (
    CONFIG,
    logged,
    on_ranks,
    same_bits,
    train_steps,
)
from visionloop.tasks.segmentation.model import load_model, new_config, new_model

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_queries": 8}
# 100 MB in fp32
WIDE = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_queries": 8}


def small_config(kind, fields=TINY):
    config = new_config("tiny")
    if kind == "eomt_dinov3":
        config = EomtDinov3Config(
            patch_size=8, num_blocks=2, num_register_tokens=2, intermediate_size=48
        )
    for name, value in {**fields, "image_size": 32}.items():
        setattr(config, name, value)
    return config


def write_model(folder, kind, fields=TINY):
    """Write a folder of random weights, none of them zero or one."""
    module = new_model(small_config(kind, fields), ["sky", "road", "tree"])
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module.save_pretrained(folder)


def sharded(module, world: World):
    units = list(module.layers)
    return shard_module(module, units, build_mesh("full", world), world.device)


def what_differs_after_loading(folder):
    """Load a folder whole, and load and shard it; name tensors and outputs that differ."""
    plain, module = load_model(folder).eval(), load_model(folder).eval()
    sharding = sharded(module, join_world("cpu"))
    wrong = [
        name
        for name, parameter in plain.named_parameters()
        if not same_bits(whole(module.get_parameter(name).detach()), parameter.detach())
    ]
    wrong += [
        name
        for (_, name, ours), (_, _, theirs) in zip(
            buffers_of(module), buffers_of(plain), strict=True
        )
        if not same_bits(ours, theirs)
    ]
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), sharding.gathered():
        outputs = module(pixels)
    with torch.no_grad():
        expected = plain(pixels)
    for i, (output, right) in enumerate(zip(outputs, expected, strict=True)):
        wrong += [] if torch.equal(output, right) else [f"output {i}"]
    own = sum(local(p).numel() for p in module.parameters())
    return [wrong, own / sum(p.numel() for p in plain.parameters()), len(list(buffers_of(plain)))]


@pytest.mark.parametrize("kind", ["eomt", "eomt_dinov3"])
def test_a_model_of_a_folder_has_the_tensors_buffers_and_outputs_of_the_whole_one(kind, tmp_path):
    write_model(tmp_path, kind)
    results = on_ranks(2, what_differs_after_loading, str(tmp_path), context="fork")
    for wrong, share, num_buffers in results:
        assert wrong == []
        assert num_buffers  # some are in no state dict
        assert 0.4 < share < 0.6


def anonymous_bytes():
    """Return the memory of this process that no file backs."""
    kilobytes = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes[1]) * 1024


def memory_of_loading(folder):
    """Return [highest, last] growth of anonymous memory while a folder is loaded and sharded."""
    world = join_world("cpu")
    sharded(load_model(f"{folder}/small"), world)  # what any model needs once
    before, highest, done = anonymous_bytes(), 0, threading.Event()

    def watch():
        nonlocal highest
        while not done.is_set():
            highest = max(highest, anonymous_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    module = load_model(f"{folder}/large")
    sharded(module, world)
    done.set()
    watcher.join()
    return [highest - before, anonymous_bytes() - before]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_no_rank_holds_the_whole_model_that_it_shards(tmp_path):
    write_model(tmp_path / "small", "eomt")
    write_model(tmp_path / "large", "eomt", WIDE)
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert size > 80e6
    for highest, last in on_ranks(2, memory_of_loading, str(tmp_path), context="fork"):
        assert last < 0.7 * size
        assert highest < 0.8 * size


# a rank without targets --------------------

HALF_EMPTY = {
    "detection": small_detection.make_half_empty_task,
    "semantic": small_segmentation.make_half_empty_task,
    "instance": small_segments.make_half_empty_instance_task,
    "panoptic": small_segments.make_half_empty_panoptic_task,
}


def train_half_empty(kind, folder):
    for shard in ("none", "full"):
        config = replace(CONFIG, shard=shard, micro_batch=4, eval_every=0, save_every=0, steps=3)
        train_steps(HALF_EMPTY[kind](), Path(folder) / shard, config=config)


@pytest.mark.parametrize(
    "kind", [pytest.param("detection", marks=pytest.mark.slow), "semantic", "instance", "panoptic"]
)
def test_a_rank_without_targets_has_the_losses_and_norms_of_ddp(kind, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    if kind == "detection":
        write_detection(data, 0, images={"train": 16, "val": 5})
        monkeypatch.setenv("SMALL_DETECTION_DATA", str(data))
    elif kind == "semantic":
        data = write_segmentation_data(data, images=16)
        monkeypatch.setenv("SMALL_SEGMENTATION_DATA", str(data))
    else:
        monkeypatch.setenv(small_segments.DATA, str(write_scenes(data)))
    on_ranks(2, train_half_empty, kind, str(tmp_path), context="fork")
    rows = [
        [row for row in logged(tmp_path / shard) if row["kind"] == "train"]
        for shard in ("none", "full")
    ]
    assert len(rows[0]) == 3
    for plain, ours in zip(*rows, strict=True):
        assert plain.keys() == ours.keys()
        for name in plain:
            if name.startswith("loss") or name == "grad_norm":
                assert np.isclose(ours[name], plain[name], rtol=1e-4, atol=1e-6), name
