"""Short runs to compare: the parts of `check_task` and of our own tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypedDict, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from visionloop.engine.batch import Batch
from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.checkpoints.stored_tensors import StoredTensors, is_sharded
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import World, barrier, broadcast_object, join_world, leave_world
from visionloop.engine.evaluation.evaluate import compute_scores, evaluate_dataset
from visionloop.engine.run import RunSpec
from visionloop.engine.seeding import hashed
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.task import Task
from visionloop.engine.train import Result, run_training
from visionloop.engine.types import JsonObject, Scores, TaskModule

T = TypeVar("T")
MakeTask: TypeAlias = Callable[[], Task]
GradientHook: TypeAlias = Callable[[torch.optim.Optimizer, object, object], None]

STEPS = 6
# 8 = 1 x 8 = 4 x 2 = 2 ranks x 4; eval batches of 3 are uneven over 2 and 3 ranks
CONFIG = TrainConfig(
    steps=STEPS,
    batch_size=8,
    micro_batch=8,
    eval_batch_size=3,
    lr=1e-3,
    warmup_steps=1,
    precision="fp32",
    clip_grad=float("inf"),
    eval_every=3,
    save_every=2,
    log_every=1,
    keep=9,
    workers=0,
    threads=1,
    device="cpu",
)


class StepResult(TypedDict):
    """One step as a rank sees it.

    ids: samples of this rank's micro-batches; loss, gradient: over all ranks.
    """

    ids: list[int]
    loss: float
    gradient: list[float]


def seeded_model(task: Task, seed: int = 0) -> TaskModule:
    """Build the model of a task with the weights of this seed."""
    torch.manual_seed(hashed(seed))
    return task.build_model()


def first_batch(task: Task) -> Batch:
    """Collate the first 8 training samples of a task."""
    dataset, _ = task.build_datasets()
    samples = [{**dataset[index], "sample_id": torch.tensor(index)} for index in range(8)]
    return task.collate(samples, 0, 0)


class StopAfter(StopFlag):
    """A stop flag that is raised once `before_step` of the task was called for a step."""

    def __init__(self, task: Task, step: int) -> None:
        super().__init__()
        self._before, self._step = task.before_step, step
        task.before_step = self._count  # type: ignore[method-assign]

    def _count(self, module: nn.Module, step: int, steps: int) -> None:
        self._before(module, step, steps)
        self.requested = step + 1 >= self._step


def spec_of(
    task: Task, output: Path, *, config: TrainConfig = CONFIG, world: World | None = None
) -> RunSpec:
    """Return the inputs of a short run, with the datasets of the task.

    world: the processes (default: those of the environment).
    """
    train_set, val_set = task.build_datasets()
    return RunSpec(
        task=task,
        config=config,
        world=world or join_world(config.device),
        train_set=train_set,
        val_set=val_set,
        output=output,
        immutable_settings={"task": task.name},
    )


def train_steps(
    task: Task,
    output: Path,
    *,
    config: TrainConfig = CONFIG,
    stop_after: int | None = None,
    on_gradients: GradientHook | None = None,
) -> Result:
    """Train in this process, or resume the run in `output`.

    Args:
        task: the task, with its settings resolved.
        output: the folder of the run.
        config: the engine's settings.
        stop_after: stop after this step.
        on_gradients: called before each optimizer step, see `register_optimizer_step_pre_hook`.
    """
    output.mkdir(parents=True, exist_ok=True)
    spec = spec_of(task, output, config=config)
    stop = StopAfter(task, stop_after) if stop_after else StopFlag()
    start = latest_valid(output / "checkpoints")
    handle = register_optimizer_step_pre_hook(on_gradients) if on_gradients else None
    try:
        return run_training(spec, start=start, stop=stop)
    finally:
        if handle:
            handle.remove()


@contextmanager
def shared_folder(world: World) -> Iterator[Path]:
    """Make a temporary folder for all ranks; it is deleted when all have left. All ranks."""
    with tempfile.TemporaryDirectory() as own_folder:
        yield Path(broadcast_object(world, own_folder))
        barrier(world)


def first_step(make_task: MakeTask, config: TrainConfig) -> StepResult:
    """Train one step and return what this rank sees of it. All ranks."""
    task, world = make_task(), join_world(config.device)
    ids: list[int] = []
    gradient: list[float] = []
    count_normalizers = task.count_normalizers

    def record_sample_ids(micro_batches: Sequence[Batch]) -> dict[str, float]:
        ids.extend(index for batch in micro_batches for index in batch["sample_ids"].tolist())
        return count_normalizers(micro_batches)

    def record_gradients(optimizer: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradient[:] = torch.cat([p.grad.flatten() for p in parameters]).tolist()

    task.count_normalizers = record_sample_ids  # type: ignore[method-assign]
    config = replace(config, steps=1, eval_every=0, save_every=0, ema=False)
    with shared_folder(world) as output:
        train_steps(task, output, config=config, on_gradients=record_gradients)
        row = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    return {"ids": ids, "loss": row["loss"], "gradient": gradient}


def score(make_task: MakeTask, device: str = "cpu") -> Scores:
    """Score fresh weights on the validation images. All ranks."""
    task, world = make_task(), join_world(device)
    _, val_set = task.build_datasets()
    module = seeded_model(task).to(world.device)
    metric = evaluate_dataset(task, module, val_set, batch_size=3, world=world)
    assert metric is not None, "this evaluation is never stopped"
    return compute_scores(world, metric)


def assert_same_step(
    first: StepResult, second: StepResult, description: str, tolerance: float = 1e-5
) -> None:
    """Assert that two steps have the same loss and gradient, and that samples of both are equal.

    Args:
        first: a step on one process.
        second: the same step, perhaps of one rank of several.
        description: of the comparison, for the message.
        tolerance: relative to the loss, and to the norm of the gradient.
    """
    a, b = torch.tensor(first["gradient"]), torch.tensor(second["gradient"])
    difference = float((a - b).norm() / a.norm())
    assert difference <= tolerance, f"{description}: gradients differ by {difference:.2g} relative"
    assert abs(first["loss"] - second["loss"]) <= tolerance * abs(first["loss"]), (
        f"{description}: losses {first['loss']} and {second['loss']}"
    )
    assert set(second["ids"]) <= set(first["ids"]), f"{description}: other samples"


def runs_differ(
    first: Path, second: Path, kinds: Sequence[str] = ("weights", "ema", "optimizer")
) -> str | None:
    """Return the name of the first difference between two finished runs, or None.

    Tensors of these kinds and logged numbers are compared bit by bit. The weights of a sharded run
    have the names of the module, those of another the names that transformers gives them.
    """
    for kind in kinds:
        one, other = (read_tensors(run / "checkpoints", kind) for run in (first, second))
        for name in one.keys() | other.keys():
            if name not in one or name not in other or not same_bits(one[name], other[name]):
                return f"{kind}: {name}"
    return None if logged(first) == logged(second) else "metrics.jsonl"


def read_tensors(checkpoints: Path, kind: str) -> dict[str, torch.Tensor]:
    """Read the weights, EMA or optimizer state of the last step: {name: whole tensor}."""
    folder = checkpoints / f"step_{STEPS:08d}"
    if kind == "weights" and not is_sharded(folder):
        return load_file(folder / "model.safetensors")
    with StoredTensors(folder, kind) as stored:
        return dict(stored)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return True for tensors of equal dtype, shape and bytes."""
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def logged(output: Path) -> list[JsonObject]:
    """Return the lines of a run's metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("time", "step_ms", "data_wait")}
        for row in rows
        if row["kind"] != "time_breakdown"
    ]


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_ranks(  # type: ignore[explicit-any]  # any arguments
    number: int, function: Callable[..., T], *args: object, context: str = "spawn"
) -> list[T]:
    """Call `function(*args)` in processes that are joined by gloo.

    Args:
        number: of processes.
        function: importable, with a result that JSON can hold.
        args: can be pickled.
        context: start method of multiprocessing.

    Returns:
        The results by rank.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as shared:
        start = multiprocessing.get_context(context).Process  # type: ignore[attr-defined]
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
        files = [Path(shared) / f"result_{rank}.json" for rank in range(number)]
        return [json.loads(file.read_text()) for file in files]


def _rank(  # type: ignore[explicit-any]  # any arguments
    rank: int,
    number: int,
    port: int,
    shared: str,
    function: Callable[..., object],
    args: Sequence[object],
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result = function(*args)
    (Path(shared) / f"result_{rank}.json").write_text(json.dumps(result))
    leave_world()
