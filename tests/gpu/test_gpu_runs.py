"""The real commands on a GPU: stopped and resumed, under torchrun, and on Metal.

Tests with `cpu` in their name run the same check on the CPU.
"""

import json
import threading

import pytest
import torch
from device_commands import (
    OPTIONS,
    WATCHED,
    compare_stopped_run,
    differing_files,
    finish,
    hashes,
    start,
    torchrun,
    train_arguments,
)
from device_task import METAL, SIDES, TASKS, is_exact, need_gpus, on_devices, on_tasks

from visionloop.engine.errors import STOPPED
from visionloop.engine.system import fault_injection
from visionloop.engine.train import train


def precision_options(task_name, device):
    """Return options for bf16 on CUDA where bytes are compared; fp32 elsewhere."""
    is_bf16 = device == "cuda" and is_exact(task_name, device)
    return ["--precision", "bf16" if is_bf16 else "fp32", "--workers", "1", "--deterministic"]


@pytest.mark.gpu
def test_the_health_command_accepts_cuda(record):
    printed = finish(
        start("-m", "visionloop.bin.classification", "health", "--json", "--device", "cuda")
    )
    record(warnings="; ".join(json.loads(printed)["warnings"]) or "none")


@pytest.mark.slow
@on_tasks("classification")
def test_a_run_stopped_by_sigterm_and_resumed_writes_the_same_bytes(
    task_name, device, data_of, tmp_path, record
):
    options = [*precision_options(task_name, device), "--batch-size", "6", "--micro-batch", "3"]
    figures = compare_stopped_run(
        task_name, device, data_of(task_name), tmp_path, WATCHED, options, stopped_code=STOPPED
    )
    record(**figures)


def compare_under_torchrun(task_name, device, data, folder, processes):
    launch = [*torchrun(processes), *WATCHED]
    sizes = ["--batch-size", str(4 * processes), "--micro-batch", "2"]
    options = [*precision_options(task_name, device), *sizes]
    return compare_stopped_run(task_name, device, data, folder, launch, options, stopped_code=1)


@on_tasks()
def test_two_processes_under_torchrun_stopped_and_resumed_write_the_same_bytes(
    task_name, device, data_of, tmp_path, record
):
    need_gpus(device, 2)
    record(**compare_under_torchrun(task_name, device, data_of(task_name), tmp_path, 2))


@pytest.mark.gpu
def test_a_process_on_every_gpu_under_torchrun_stopped_and_resumed_writes_the_same_bytes(
    data_of, tmp_path, record
):
    need_gpus("cuda", 3)
    data, number = data_of("classification"), torch.cuda.device_count()
    record(**compare_under_torchrun("classification", "cuda", data, tmp_path, number))


@on_devices
def test_a_checkpoint_copied_while_training_continues_holds_the_same_bytes(
    device, data_of, tmp_path
):
    reached = threading.Event()
    settings = OPTIONS | {"data": str(data_of("classification")), "from_scratch": True}
    settings |= {"device": device, "image_size": SIDES["classification"], "deterministic": True}
    settings |= {"batch_size": 6, "micro_batch": 3, "workers": 0}
    settings |= {"precision": "bf16" if device == "cuda" else "fp32"}  # auto measures at each start

    class Reaching(TASKS["classification"]):
        def before_step(self, module, step, steps):
            super().before_step(module, step, steps)
            if step == 3:
                reached.set()

    def hold(point, folder):
        if point == "after open" and "step_00000002" in folder.name:
            assert reached.wait(60), "training waits for the checkpoint to be written"

    train(Reaching, output=str(tmp_path / "waiting"), save_async=False, **settings)
    reached.clear()
    fault_injection.arm(hold)
    try:
        train(Reaching, output=str(tmp_path / "beside"), save_async=True, **settings)
    finally:
        fault_injection.arm(None)
    runs = [hashes(tmp_path / name, "checkpoints", "best") for name in ("waiting", "beside")]
    assert differing_files(*runs) == []


@pytest.mark.parametrize("device", [METAL])
@pytest.mark.parametrize("task_name", TASKS)
def test_a_short_run_ends_on_metal(task_name, device, data_of, tmp_path):
    options = ["--precision", "fp32", "--workers", "0", "--batch-size", "4", "--micro-batch", "4"]
    arguments = train_arguments(task_name, device, data_of(task_name), tmp_path / "run", *options)
    finish(start("-m", f"visionloop.bin.{task_name}", *arguments))


def test_notes_with_a_repeated_sample_or_other_normalizers_are_refused(tmp_path):
    from watched_command import read_notes

    rows = [
        {"step": 0, "offset": 2, "ids": [7], "totals": {"samples": 3}},
        {"step": 0, "offset": 0, "ids": [4, 5], "totals": {"samples": 3}},
    ]

    def write(*rows):
        (tmp_path / "0.jsonl").write_text("\n".join(map(json.dumps, rows)))

    write(*rows)
    assert read_notes(tmp_path) == {0: ([4, 5, 7], {"samples": 3})}
    write(*rows, rows[0])
    with pytest.raises(AssertionError, match="missing or repeated"):
        read_notes(tmp_path)
    write(rows[1], rows[0] | {"totals": {"samples": 4}})
    with pytest.raises(AssertionError, match="normalizers differ"):
        read_notes(tmp_path)


def test_files_that_differ_or_are_missing_are_named():
    assert differing_files({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
