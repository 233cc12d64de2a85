"""The processes of a run. Everything works without a process group: then there is one rank."""

import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from visionloop.engine.errors import UserError


@dataclass(frozen=True)
class World:
    """This process among its peers. device: where it computes; group: the CPU (gloo) group, None when alone."""

    rank: int
    local_rank: int
    size: int
    device: torch.device
    group: object = None

    @property
    def is_main(self):
        return self.rank == 0


# gloo raises a plain RuntimeError that names its source file; DDP's own collectives too
LOST = ("gloo/", "Connection closed by peer", "Timed out waiting")
_joined = None  # the World of this process, for the one task that sums inside its loss


def pick_device(name, local_rank=0):
    """The torch.device for `--device`; None picks CUDA, then MPS, then the CPU. Raises UserError when it is not there."""
    if name is None:
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                "--device cuda: no CUDA device is visible to this process", field="device"
            )
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"--nproc-per-node: process {local_rank} has no GPU, {torch.cuda.device_count()} are visible",
                field="device",
            )
        return torch.device("cuda", local_rank)
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this machine has no Metal device", field="device")
    return torch.device(name)


def join_world(device_name, timeout_seconds=1800):
    """Read torchrun's environment and join its group: nccl for CUDA gradients, gloo for the rest. All ranks.

    timeout_seconds: how long a collective waits for the other ranks; then it raises what
    `lost_process` knows.
    """
    global _joined
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = pick_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ or size == 1:
        _joined = World(0, 0, 1, device)
        return _joined
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
    group = (
        dist.new_group(backend="gloo", timeout=timeout)
        if device.type == "cuda"
        else dist.group.WORLD
    )
    _joined = World(rank, local_rank, size, device, group)
    return _joined


def name_start(store, rank, size, timeout_seconds):
    """A name that the processes of this start agree on and that no earlier start had. All ranks.

    torchrun keeps its store over --max-restarts, with the addresses of the processes that are gone:
    whoever reads one of those before it is written anew never connects (seen). Its count of
    restarts is no such name, each node has its own. So the first rank answers questions that are
    asked under names of their own, and answers again whoever asks anew.
    """
    if rank:
        question = secrets.token_hex(8)
        store.set(f"question/{rank}", question)
        name = store.get(f"answer/{question}").decode()
        store.set(f"{name}/{rank}", "heard")
        return name
    name, silent, deadline = (
        secrets.token_hex(8),
        range(1, size),
        time.monotonic() + timeout_seconds,
    )
    while silent := [other for other in silent if not store.check([f"{name}/{other}"])]:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(f"Timed out waiting for process {silent[0]} to start")
        for other in silent:
            if store.check([f"question/{other}"]):
                store.set(f"answer/{store.get(f'question/{other}').decode()}", name)
        time.sleep(0.02)
    return name


def leave_world():
    """All ranks, once the run is over."""
    global _joined
    _joined = None
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_process(error):
    """True for what a collective raises when another rank is gone or does not answer in time."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)
    )


def lost_why(error):
    """The first sentence of such an error, without gloo's file name and advice."""
    return re.sub(r"^\[[^]]*\] *", "", str(error).splitlines()[0]).split(". ")[0]


def sum_over_ranks(world, numbers):
    """Element-wise float64 sum of a list of host numbers over all ranks. All ranks; 0.35 ms with gloo."""
    if world.group is None:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total, group=world.group)
    return total.tolist()


def sum_over_joined(numbers):
    """Like sum_over_ranks, over the world that this process joined last. All ranks."""
    return list(numbers) if _joined is None else sum_over_ranks(_joined, numbers)


def gather_objects(world, value):
    """[value of rank 0, of rank 1, ...] on every rank. All ranks."""
    if world.group is None:
        return [value]
    gathered = [None] * world.size
    dist.all_gather_object(gathered, value, group=world.group)
    return gathered


def broadcast_object(world, value):
    """Rank 0's value on every rank. All ranks."""
    if world.group is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=world.group)
    return box[0]


def broadcast_buffers(world, module):
    """Rank 0's buffers on every rank: BatchNorm statistics differ between ranks otherwise. All ranks."""
    if world.group is None:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def barrier(world):
    """All ranks wait for each other."""
    sum_over_ranks(world, [0.0])


@dataclass(frozen=True)
class Agreed:
    """What all ranks know before the first forward of a step.

    count: {name: max(1, total over ranks) / W} for whole-number counts; stop: a rank was told to
    stop; save: the time for a checkpoint has come; left: how much time the run has left, as the
    main rank sees it, see budget.py; data_missing: a rank has no batch for this step, because a
    stop came first or a sample cannot be read.
    """

    count: dict
    stop: bool
    save: bool
    left: int
    data_missing: bool


def agree(world, counts, names, *, stop, save=False, left=0):
    """The step's one collective: [counts..., stop wanted, save wanted, time left, data missing]. All ranks.

    counts is None on a rank without data; left is 0 on all ranks but the main one.
    """
    row = [0.0] * len(names) if counts is None else [float(counts[name]) for name in names]
    *totals, stops, saves, left, missing = sum_over_ranks(
        world, [*row, float(stop), float(save), float(left), float(counts is None)]
    )
    # clamped before the division: the other order is wrong by half when one target meets two ranks
    count = {
        name: (max(1.0, total) if total == int(total) else total) / world.size
        for name, total in zip(names, totals, strict=True)
    }
    return Agreed(count, stops > 0, saves > 0, int(left), missing > 0)
