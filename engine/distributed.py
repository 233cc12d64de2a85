"""The processes of a run. Everything works without a process group: then there is one rank."""

import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from visionloop.engine.batch import Normalizers
from visionloop.engine.errors import UserError

T = TypeVar("T")

# that a loss may sum over ranks at once: a message of 2 KiB, which takes as long as an empty one
LOSS_NUMBERS = 255

# gloo raises a plain RuntimeError that names its source file; DDP's own collectives too
LOST_PROCESS_MESSAGES = ("gloo/", "Connection closed by peer", "Timed out waiting")
ABORT_SECONDS = 5.0  # for NCCL to end its kernels when another process is lost


@dataclass(frozen=True)
class World:
    """This process among the processes of the run.

    Attributes:
        rank: 0..size - 1.
        local_rank: rank on this machine.
        size: number of processes.
        device: where this process computes.
        group: the CPU (gloo) group, None for a process alone.
        local_size: number of processes on this machine.
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """True on rank 0."""
        return self.rank == 0


def pick_device(name: str | None, local_rank: int = 0) -> torch.device:
    """Return the device of `--device`; None picks CUDA, then MPS, then the CPU.

    Raises:
        UserError: this process has no such device.
    """
    if name is None:
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else mps
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                "--device cuda: no CUDA device is visible to this process", field="device"
            )
        number = torch.cuda.device_count()
        # SLURM may show each process its own GPU only; join_world refuses one GPU of several
        index = 0 if number == 1 else local_rank
        if index >= number:
            why = f"process {local_rank} has no GPU, {number} are visible"
            raise UserError(f"--nproc-per-node: {why}", field="device")
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this machine has no Metal device", field="device")
    return torch.device(name)


def join_world(device_name: str | None, timeout_seconds: float = 1800) -> World:
    """Join the process group of torchrun's environment. All ranks.

    CUDA gradients use nccl, everything else gloo.

    Args:
        device_name: of `--device`, see `pick_device`.
        timeout_seconds: how long a collective waits for the other ranks; then it raises an error
            that `is_lost_process` recognizes.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = pick_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ or size == 1:
        return World(0, 0, 1, device)
    timeout = timedelta(seconds=timeout_seconds)
    if not dist.is_initialized():
        store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timeout))
        store.set_timeout(timeout)
        store = dist.PrefixStore(name_start(store, rank, size, timeout_seconds), store)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
    group: dist.ProcessGroup | None = dist.group.WORLD
    if device.type == "cuda":
        group = dist.new_group(backend="gloo", timeout=timeout)  # type: ignore[assignment]  # ours
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    world = World(rank, local_rank, size, device, group, local_size)
    if device.type == "cuda":
        check_own_gpu(world)
    return world


def check_own_gpu(world: World) -> None:
    """Raise UserError where two processes use one GPU, which NCCL does not support. All ranks."""
    gpu = (platform.node(), str(torch.cuda.get_device_properties(world.device).uuid))
    gpus = gather_objects(world, gpu)
    for rank, other in enumerate(gpus):
        first = gpus.index(other)
        if first != rank:
            raise UserError(
                f"--nproc-per-node: processes {first} and {rank} use the same GPU of {other[0]}; "
                "start at most one process for each GPU",
                field="device",
            )


def name_start(store: dist.Store, rank: int, size: int, timeout_seconds: float) -> str:
    """Agree on a name for this start that no earlier start had. All ranks.

    torchrun keeps its store over --max-restarts, with the addresses of the processes that are gone:
    a process that reads one of those before it is written again never connects (observed). Its
    count of restarts is no such name, since each node counts its own. So every other rank sends a
    request with a random id, and rank 0 replies to each request, also to a repeated one.
    """
    if rank:
        request = secrets.token_hex(8)
        store.set(f"request/{rank}", request)
        name = str(store.get(f"reply/{request}").decode())
        store.set(f"{name}/{rank}", "received")
        return name
    name = secrets.token_hex(8)
    deadline = time.monotonic() + timeout_seconds
    missing = list(range(1, size))
    while missing := [other for other in missing if not store.check([f"{name}/{other}"])]:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(f"Timed out waiting for process {missing[0]} to start")
        for other in missing:
            if store.check([f"request/{other}"]):
                store.set(f"reply/{store.get(f'request/{other}').decode()}", name)
        time.sleep(0.02)
    return name


def leave_world(*, failed: bool = False) -> None:
    """Leave the process group, if there is one. All ranks.

    failed: an error is on its way, so another rank may be gone. Then NCCL's kernels may wait for it
    for ever, and destroying the group would wait for them; so the kernels are aborted, and the rest
    of the group ends with this process.
    """
    if not dist.is_initialized():
        return
    if not failed or dist.get_backend() != "nccl":
        dist.destroy_process_group()
        return
    assert dist.group.WORLD is not None
    backend = dist.group.WORLD._get_backend(torch.device("cuda"))
    # an abort too has been seen to hang, and the process ends in any case
    aborting = threading.Thread(target=backend.abort, name="abort", daemon=True)
    aborting.start()
    aborting.join(ABORT_SECONDS)


def is_lost_process(error: BaseException) -> bool:
    """Return True for the error of a collective whose other rank is gone or does not respond."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in LOST_PROCESS_MESSAGES)
    )


def lost_process_reason(error: BaseException) -> str:
    """Return the first sentence of such an error, without gloo's file name and advice."""
    return re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0]).split(". ")[0]


def sum_over_ranks(world: World, numbers: Sequence[float]) -> list[float]:
    """Sum lists of host numbers over ranks, element by element in float64.

    All ranks; it takes 0.35 ms with gloo.
    """
    if world.group is None:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total, group=world.group)
    sums: list[float] = total.tolist()
    return sums


class PeerOutOfMemory(Exception):
    """Some rank has no memory for its part of the step in progress; raised on all ranks."""


def sum_in_step(world: World, numbers: Sequence[float], *, failed: bool = False) -> list[float]:
    """Sum host numbers over ranks while a step runs, as a loss needs them. All ranks.

    All messages have one size and say whether their rank goes on, so that a rank that cannot is
    understood by the others, whatever they were about to sum.

    Args:
        world: the processes.
        numbers: at most LOSS_NUMBERS.
        failed: this rank has no memory for its part of the step.

    Raises:
        PeerOutOfMemory: a rank has failed.
    """
    if world.group is None:
        return list(numbers)
    if len(numbers) > LOSS_NUMBERS:
        raise ValueError(f"a loss sums at most {LOSS_NUMBERS} numbers over ranks at once")
    padding = [0.0] * (LOSS_NUMBERS - len(numbers))
    *sums, failures = sum_over_ranks(world, [*numbers, *padding, float(failed)])
    if failures:
        raise PeerOutOfMemory
    return sums[: len(numbers)]


def gather_objects(world: World, value: T) -> list[T]:
    """Return the values of all ranks, by rank, on every rank. All ranks."""
    if world.group is None:
        return [value]
    gathered = [value] * world.size
    dist.all_gather_object(gathered, value, group=world.group)
    return gathered


def gather_on_main(world: World, value: T) -> list[T]:
    """Return the values of all ranks, by rank, on the main rank; [] on the others. All ranks."""
    if world.group is None:
        return [value]
    gathered = [value] * world.size if world.is_main else None
    dist.gather_object(value, gathered, dst=0, group=world.group)
    return gathered or []


def broadcast_object(world: World, value: T) -> T:
    """Return rank 0's value on every rank. All ranks."""
    if world.group is None:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0, group=world.group)
    return holder[0]


def broadcast_buffers(world: World, module: nn.Module) -> None:
    """Copy rank 0's buffers to every rank: BatchNorm statistics differ between ranks. All ranks."""
    if world.group is None:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def barrier(world: World) -> None:
    """Wait for all ranks."""
    sum_over_ranks(world, [0.0])


@dataclass(frozen=True)
class Agreed:
    """The agreement of all ranks before the first forward of a step.

    Attributes:
        normalizers: {name: max(1, total over ranks) / number of ranks} for whole numbers.
        stop: a stop was requested on some rank.
        save: the time for a checkpoint has come.
        time_left: a `budget.TimeLeft`, as the main rank sees it.
        data_missing: a rank has no batch for this step, because a stop came first or a sample
            cannot be read.
    """

    normalizers: Normalizers
    stop: bool
    save: bool
    time_left: int
    data_missing: bool


def agree(
    world: World,
    normalizers: Mapping[str, float] | None,
    names: Sequence[str],
    *,
    stop: bool,
    save: bool = False,
    time_left: int = 0,
) -> Agreed:
    """Agree on a step in one collective: normalizers, stop, save and time left. All ranks.

    Args:
        world: the processes.
        normalizers: of `Task.count_normalizers` for this rank's batches, None without data.
        names: the keys of `normalizers`.
        stop: this rank wants to stop.
        save: this rank wants a checkpoint.
        time_left: a `budget.TimeLeft`, ENOUGH (0) on all ranks but the main one.
    """
    counts = [0.0] * len(names) if normalizers is None else [float(normalizers[k]) for k in names]
    *totals, stops, saves, left, missing = sum_over_ranks(
        world, [*counts, float(stop), float(save), float(time_left), float(normalizers is None)]
    )
    # clamped before the division: the other order divides by 1 instead of 1/2 for one target on two
    # ranks
    agreed = {
        name: (max(1.0, total) if total == int(total) else total) / world.size
        for name, total in zip(names, totals, strict=True)
    }
    return Agreed(
        Normalizers(agreed, sum_over_ranks=partial(sum_in_step, world)),
        stops > 0,
        saves > 0,
        int(left),
        missing > 0,
    )
