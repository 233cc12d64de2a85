"""`check_task`: the invariants that every task must keep, as one call. Ours use it, and so can the author of a fifth.

Noise must be off in the task that is checked (drop path, mixup, denoising), and BatchNorm frozen: then pieces of any size
must add up to the same gradient.
"""

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

from visionloop.engine.checkpoint import newest_whole
from visionloop.engine.distributed import join_world, leave_world
from visionloop.engine.ema import named_state
from visionloop.engine.evaluate import evaluate_dataset
from visionloop.engine.order import hashed
from visionloop.engine.settings import TrainConfig
from visionloop.engine.stop import StopFlag
from visionloop.engine.train import run_training

STEPS = 6
# 8 = 1 x 8 = 4 x 2 = 2 ranks x 4; eval batches of 3 are uneven over 2 and 3 ranks
CONFIG = TrainConfig(
    steps=STEPS, batch_size=8, micro_batch=8, eval_batch_size=3, lr=1e-3, warmup_steps=1, precision="fp32", clip_grad=float("inf"),
    eval_every=3, save_every=2, log_every=1, keep=9, workers=0, threads=1, device="cpu",
)  # fmt: skip


def check_task(make_task, *, folder=None):
    """Raise AssertionError naming the invariant that the task breaks; return the names of those it keeps.

    make_task: a callable at module level without arguments (other processes import it) that makes the task, noise off.
    folder: where the runs are written (default: a temporary one).
    """
    kept = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(folder or scratch)
        for check in (batches, resume, accumulation, ranks, grad_checkpointing, empty_targets, overfit, export):
            check(make_task, folder / check.__name__)
            kept.append(check.__name__)
    return kept


def batches(make_task, folder):
    """A batch holds uint8 pictures and the ids of its samples."""
    task = make_task()
    batch = first_batch(task)
    assert batch["pixel_values"].dtype == torch.uint8, "batches: pixel_values must be uint8 on the wire"
    assert batch["sample_ids"].dtype == torch.int64 and len(batch) == 8, "batches: sample_ids must be int64 [B]"
    assert set(task.count([batch])) == set(task.count_names), "batches: count must return the names in count_names"


def resume(make_task, folder):
    """Stopped after any step and resumed == straight, byte for byte."""
    train_steps(make_task(), folder / "straight")
    for stop_after in range(1, STEPS):
        output = folder / f"stopped_{stop_after}"
        train_steps(make_task(), output, stop_after=stop_after)
        train_steps(make_task(), output)
        difference = runs_differ(folder / "straight", output)
        assert not difference, f"resume: after a stop at step {stop_after} {difference} differs"


def accumulation(make_task, folder):
    """4 micro-batches of 2 == 1 of 8."""
    whole = first_step(make_task, CONFIG)
    assert_same_step(whole, first_step(make_task, replace(CONFIG, micro_batch=2)), "accumulation: 4 x 2 against 1 x 8")


def ranks(make_task, folder):
    """2 processes == 1 in samples, loss and gradient; 1, 2 and 3 give one evaluation."""
    whole, scores = first_step(make_task, CONFIG), score(make_task)
    for step in on_ranks(2, first_step, make_task, CONFIG):
        assert_same_step(whole, step, "ranks: 2 processes against 1")
    for number in (2, 3):
        for other in on_ranks(number, score, make_task):
            assert other == scores, f"ranks: evaluation on {number} processes gives {other}, on one {scores}"


def grad_checkpointing(make_task, folder):
    """Recomputed activations give the same gradient."""
    task = make_task()
    if task.grad_checkpointing_blocks(task.build_model()):
        plain, recomputed = first_step(make_task, CONFIG), first_step(make_task, replace(CONFIG, grad_checkpointing=True))
        assert_same_step(plain, recomputed, "grad_checkpointing: on against off")


def empty_targets(make_task, folder):
    """A batch with nothing in it has a finite loss and a gradient for every parameter."""
    task = make_task()
    batch = task.without_targets(first_batch(task))
    if batch is None:
        return
    module = seeded_model(task)
    task.before_step(module, 0, STEPS)
    task.loss(module, batch, dict.fromkeys(task.count_names, 1.0))["loss"].backward()
    for name, parameter in module.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, f"empty_targets: {name} has no gradient"
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), f"empty_targets: the gradient of {name} is not finite"


def overfit(make_task, folder):
    """60 steps on one batch lower its loss."""
    task = make_task()
    module, batch = seeded_model(task), first_batch(task)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    count = {name: max(1.0, number) for name, number in task.count([batch]).items()}
    losses = []
    for _ in range(60):
        task.before_step(module, 0, STEPS)
        loss = task.loss(module, batch, count)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], f"overfit: the loss of one batch went from {losses[0]:.3g} to {losses[-1]:.3g} only"


def export(make_task, folder):
    """What save writes, load reads back bit for bit."""
    task = make_task()
    module, other = seeded_model(task), seeded_model(task, seed=1)
    folder.mkdir(parents=True)
    task.save(module, module.state_dict(), folder)
    task.load(other, folder)
    for name, tensor in named_state(module).items():
        assert torch.equal(tensor, named_state(other)[name]), f"export: {name} is not the same after save and load"


# what the checks are made of ------------------------------------------------------------------------------------


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
    world = join_world("cpu")
    stop = StopAfter(task, stop_after) if stop_after else StopFlag()
    start = newest_whole(output / "checkpoints")
    handle = register_optimizer_step_pre_hook(on_gradients) if on_gradients else None
    try:
        return run_training(task, config, world, train_set, val, output=output, facts={}, start=start, stop=stop)
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
        found["gradient"] = torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]).tolist()

    task.count = count_and_note
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(os.environ.get("CONTRACT_OUTPUT", scratch))
        train_steps(task, output, config=replace(config, steps=1, eval_every=0, save_every=0), on_gradients=note_gradients)
        found["loss"] = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    return found


def score(make_task):
    """The scores of fresh weights on the validation pictures."""
    task = make_task()
    _, val = task.build_datasets()
    metric = evaluate_dataset(task, seeded_model(task), val, batch_size=3, world=join_world("cpu"))
    return metric.compute()


def assert_same_step(first, second, what, tolerance=1e-5):
    """The gradient to `tolerance` relative to its norm, the loss too; and the ids where both are whole."""
    a, b = torch.tensor(first["gradient"]), torch.tensor(second["gradient"])
    difference = float((a - b).norm() / a.norm())
    assert difference <= tolerance, f"{what}: gradients differ by {difference:.2g} relative"
    assert abs(first["loss"] - second["loss"]) <= tolerance * abs(first["loss"]), f"{what}: losses {first['loss']} and {second['loss']}"
    assert set(second["ids"]) <= set(first["ids"]), f"{what}: other samples"


def runs_differ(first, second):
    """The name of the first thing that differs between two finished runs, or None: weights, averages, moments, losses."""
    for file in ("model.safetensors", "averaged.safetensors", "optimizer.safetensors"):
        tensors = [load_file(run / "checkpoints" / f"step_{STEPS:08d}" / file) for run in (first, second)]
        for name in tensors[0].keys() | tensors[1].keys():
            if name not in tensors[0] or name not in tensors[1] or not same_bits(tensors[0][name], tensors[1][name]):
                return f"{file}: {name}"
    logs = [logged(run) for run in (first, second)]
    return None if logs[0] == logs[1] else "metrics.jsonl"


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def logged(output):
    """The lines of metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "step_ms", "data_wait")} for row in rows if row["kind"] != "ledger"]


def on_ranks(number, function, *args, context="spawn"):
    """[function(*args) of rank 0, 1, ...], each in a process of its own, joined by gloo. Everything importable, results json-able."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as shared:
        start = multiprocessing.get_context(context).Process
        processes = [start(target=_rank, args=(rank, number, port, shared, function, args)) for rank in range(number)]
        for process in processes:
            process.start()
        # a rank that dies leaves the others waiting for it
        while any(process.is_alive() for process in processes) and not any(process.exitcode for process in processes):
            time.sleep(0.05)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        assert codes == [0] * number, f"processes ended with {codes}"
        return [json.loads((Path(shared) / f"result_{rank}.json").read_text()) for rank in range(number)]


def _rank(rank, number, port, shared, function, args):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "CONTRACT_OUTPUT": f"{shared}/run"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result = function(*args)
    (Path(shared) / f"result_{rank}.json").write_text(json.dumps(result))
    leave_world()
