"""Short runs to compare: what `check_task` and our own tests are made of."""

import json
import multiprocessing
import os
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import join_world, leave_world
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.seeding import hashed
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.train import run_training

STEPS = 6
# 8 = 1 x 8 = 4 x 2 = 2 ranks x 4; eval batches of 3 are uneven over 2 and 3 ranks
CONFIG = TrainConfig(
    steps=STEPS, batch_size=8, micro_batch=8, eval_batch_size=3, lr=1e-3, warmup_steps=1, precision="fp32", clip_grad=float("inf"),
    eval_every=3, save_every=2, log_every=1, keep=9, workers=0, threads=1, device="cpu",
)  # fmt: skip


def seeded_model(task, seed=0):
    torch.manual_seed(hashed(seed))
    return task.build_model()


def first_batch(task):
    dataset, _ = task.build_datasets()
    samples = [{**dataset[index], "sample_id": torch.tensor(index)} for index in range(8)]
    return task.collate(samples, 0, 0)


class StopAfter(StopFlag):
    """Wanted once `before_step` of the task has been called for the step."""

    def __init__(self, task, step):
        super().__init__()
        self._before, self._step = task.before_step, step
        task.before_step = self._count

    def _count(self, module, step, steps):
        self._before(module, step, steps)
        self.wanted = step + 1 >= self._step


def train_steps(task, output, *, config=CONFIG, stop_after=None, on_gradients=None):
    """Run the engine in this process, or go on with the run in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    train_set, val = task.build_datasets()
    world = join_world(config.device)
    stop = StopAfter(task, stop_after) if stop_after else StopFlag()
    start = latest_valid(output / "checkpoints")
    handle = register_optimizer_step_pre_hook(on_gradients) if on_gradients else None
    try:
        return run_training(
            task,
            config,
            world,
            train_set,
            val,
            output=output,
            immutable_settings={"task": task.name},
            start=start,
            stop=stop,
        )
    finally:
        if handle:
            handle.remove()


def first_step(make_task, config):
    """{"ids", "loss", "gradient"} of step 0 as this rank sees it: ids of its pieces, the others over all ranks."""
    task, found = make_task(), {"ids": []}
    count, collect = task.count, found["ids"]

    def count_and_note(micro_batches):
        collect.extend(index for batch in micro_batches for index in batch["sample_ids"].tolist())
        return count(micro_batches)

    def note_gradients(optimizer, args, kwargs):
        found["gradient"] = torch.cat(
            [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        ).tolist()

    task.count = count_and_note
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(os.environ.get("CONTRACT_OUTPUT", scratch))
        train_steps(
            task,
            output,
            config=replace(config, steps=1, eval_every=0, save_every=0, ema=False),
            on_gradients=note_gradients,
        )
        found["loss"] = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    return found


def score(make_task, device="cpu"):
    """The scores of fresh weights on the validation images."""
    task, world = make_task(), join_world(device)
    _, val = task.build_datasets()
    metric = evaluate_dataset(
        task, seeded_model(task).to(world.device), val, batch_size=3, world=world
    )
    return metric.compute()


def assert_same_step(first, second, what, tolerance=1e-5):
    """The gradient to `tolerance` relative to its norm, the loss too; and the ids where both are whole."""
    a, b = torch.tensor(first["gradient"]), torch.tensor(second["gradient"])
    difference = float((a - b).norm() / a.norm())
    assert difference <= tolerance, f"{what}: gradients differ by {difference:.2g} relative"
    assert abs(first["loss"] - second["loss"]) <= tolerance * abs(first["loss"]), (
        f"{what}: losses {first['loss']} and {second['loss']}"
    )
    assert set(second["ids"]) <= set(first["ids"]), f"{what}: other samples"


def runs_differ(first, second):
    """The name of the first thing that differs between two finished runs, or None: weights, averages, moments, losses."""
    for file in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        tensors = [
            load_file(run / "checkpoints" / f"step_{STEPS:08d}" / file) for run in (first, second)
        ]
        for name in tensors[0].keys() | tensors[1].keys():
            if (
                name not in tensors[0]
                or name not in tensors[1]
                or not same_bits(tensors[0][name], tensors[1][name])
            ):
                return f"{file}: {name}"
    logs = [logged(run) for run in (first, second)]
    return None if logs[0] == logs[1] else "metrics.jsonl"


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def logged(output):
    """The lines of metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("time", "step_ms", "data_wait")}
        for row in rows
        if row["kind"] != "time_breakdown"
    ]


def free_port():
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_ranks(number, function, *args, context="spawn"):
    """[function(*args) of rank 0, 1, ...], each in a process of its own, joined by gloo. Everything importable, results json-able."""
    port = free_port()
    with tempfile.TemporaryDirectory() as shared:
        start = multiprocessing.get_context(context).Process
        processes = [
            start(target=_rank, args=(rank, number, port, shared, function, args))
            for rank in range(number)
        ]
        for process in processes:
            process.start()
        # a rank that dies leaves the others waiting for it
        while any(process.is_alive() for process in processes) and not any(
            process.exitcode for process in processes
        ):
            time.sleep(0.05)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        assert codes == [0] * number, f"processes ended with {codes}"
        return [
            json.loads((Path(shared) / f"result_{rank}.json").read_text()) for rank in range(number)
        ]


def _rank(rank, number, port, shared, function, args):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(number),
        "CONTRACT_OUTPUT": f"{shared}/run",
    }
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result = function(*args)
    (Path(shared) / f"result_{rank}.json").write_text(json.dumps(result))
    leave_world()
