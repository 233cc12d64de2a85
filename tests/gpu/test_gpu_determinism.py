"""Equal bytes with --deterministic where a GPU has faster kernels that are not deterministic.

Tests with `cpu` in their name run the same check on the CPU.
"""

import os

import pytest
import torch
from device_commands import differing_files, hashes, largest_loss_difference
from device_task import TASKS, need_gpus

from visionloop.engine.testing.short_runs import logged, on_ranks
from visionloop.engine.train import train

# (task, device, model, side of the images in pixels, precision); tokens: 577 of a classifier, 1024
# and the queries of EoMT. The backward of their attention adds up keys in any order by default.
LONG_SEQUENCES = [("classification", "cpu", "tiny", 192, "fp32")]
LONG_SEQUENCES += [
    pytest.param(*case, marks=pytest.mark.gpu)
    for case in (
        ("classification", "cuda", "vit-tiny", 384, "bf16"),
        ("classification", "cuda", "vit-tiny", 384, "fp32"),
        ("segmentation", "cuda", "eomt-small", 512, "bf16"),
        ("segmentation", "cuda", "eomt-small", 512, "fp32"),
    )
]
SETTINGS = dict(from_scratch=True, deterministic=True, threads=1, workers=0)
SETTINGS |= dict(steps=3, log_every=1, eval_every=0, save_every=0)


def train_into(task_name, outputs, settings):
    """Train a run in each folder; return NCCL_ALGO, which excludes NVLS. All ranks."""
    for output in outputs:
        train(TASKS[task_name], output=output, **SETTINGS, **settings)
    return os.environ.get("NCCL_ALGO", "")


def assert_equal_runs(outputs):
    rows = [logged(output) for output in outputs]
    difference = largest_loss_difference(*rows)
    files = [hashes(output, "checkpoints", "best") for output in outputs]
    assert differing_files(*files) == [], f"losses differ by {difference:.2g} relative"
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("task_name", "device", "model", "side", "precision"), LONG_SEQUENCES)
def test_two_runs_with_long_sequences_write_the_same_bytes(
    task_name, device, model, side, precision, data_of, tmp_path
):
    settings = dict(data=str(data_of(task_name)), device=device, model=model, image_size=side)
    settings |= dict(precision=precision, batch_size=4, micro_batch=2)
    outputs = [str(tmp_path / name) for name in ("first", "second")]
    # a process of its own: the settings of cuBLAS are read once
    context = "fork" if device == "cpu" else "spawn"
    on_ranks(1, train_into, task_name, outputs, settings, context=context)
    assert_equal_runs([tmp_path / name for name in ("first", "second")])


@pytest.mark.gpu
def test_two_runs_on_all_gpus_with_gradients_of_300_mib_write_the_same_bytes(
    data_of, tmp_path, record
):
    need_gpus("cuda", 2)
    number = torch.cuda.device_count()
    settings = dict(data=str(data_of("classification")), device="cuda", model="vit-base")
    settings |= dict(image_size=224, precision="bf16", batch_size=2 * number, micro_batch=2)
    for name in ("first", "second"):
        output = [str(tmp_path / name)]
        algorithms = on_ranks(number, train_into, "classification", output, settings)
        assert set(algorithms) == {"^NVLS"}  # its sums are not reproducible
    record(processes=number)
    assert_equal_runs([tmp_path / name for name in ("first", "second")])
