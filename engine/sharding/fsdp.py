"""`--shard`: weights, gradients, moments and EMA divided over ranks by FSDP2 (`fully_shard`).

Each unit (a block of the network) is gathered for its forward and again for its backward; what
belongs to no unit is gathered from the first forward to the end of the backward. Gradients are
averaged and scattered in the backward of every micro-batch, so no rank ever holds them whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from visionloop.engine.config.train_config import Shard
from visionloop.engine.distributed import World, gather_objects
from visionloop.engine.errors import UserError
from visionloop.engine.tensors import copy_rows

REPLICATE, SHARD = "replicate", "shard"  # the dimensions of the mesh


@dataclass(frozen=True)
class Sharding:
    """The division of the parameters of a run over its ranks.

    Attributes:
        root: the whole module, which holds what belongs to no unit.
        units: its sharded blocks.
        mesh: the ranks, [copies of the model, shards of a copy].
    """

    root: FSDPModule
    units: tuple[FSDPModule, ...]
    mesh: DeviceMesh

    @property
    def num_shards(self) -> int:
        """The number of ranks that hold a copy of the model together."""
        return self.mesh.size(1)

    @property
    def shard_index(self) -> int:
        """The shard of this rank, 0..num_shards - 1."""
        return self.mesh.get_local_rank(SHARD)

    @property
    def is_writer(self) -> bool:
        """True on the ranks whose shards are saved: those of the first copy."""
        return self.mesh.get_local_rank(REPLICATE) == 0

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all weights whole on every rank inside the context. All ranks.

        Forwards are then no collectives, so each rank may run as many as it likes, and methods of
        the module may be called directly. Without this, a forward that no backward follows leaves
        parameters in the module that are not those of the optimizer.
        """
        modules = (self.root, *self.units)
        try:
            for module in modules:
                module.set_reshard_after_forward(False, recurse=False)
                module.unshard()
            yield
        finally:
            for module in modules:
                module.set_reshard_after_forward(module is not self.root, recurse=False)
                module.reshard()


def build_mesh(shard: Shard, world: World) -> DeviceMesh:
    """Arrange the ranks as [copies of the model, shards of a copy]. All ranks.

    Raises:
        UserError: the processes are not spread evenly over the nodes.
    """
    shards = world.size
    if shard == "node":
        sizes = gather_objects(world, world.local_size)
        if len(set(sizes)) > 1 or world.size % sizes[0]:  # the same on all ranks
            raise UserError(
                f"--shard node: expected the same number of processes on every node, got "
                f"{' and '.join(str(size) for size in sorted(set(sizes)))} of {world.size}",
                field="shard",
            )
        shards = world.local_size
    if not dist.is_initialized():  # one process: sharding needs a group all the same
        backend = "nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    shape = (world.size // shards, shards)
    return init_device_mesh(world.device.type, shape, mesh_dim_names=(REPLICATE, SHARD))


def shard_module(
    module: nn.Module,
    units: Sequence[nn.Module],
    mesh: DeviceMesh,
    device: torch.device,
    *,
    gather_dtype: torch.dtype | None = None,
    prefetch: int = 0,
) -> Sharding:
    """Replace the parameters of a module by this rank's rows of them, on the device. All ranks.

    The module is on the CPU and has the same weights on every rank. It is sharded without contents
    first, and then each rank copies its rows: of weights that are mapped from a file it reads no
    others, and the whole model never exists on a device.

    Args:
        module: the network; parameters without elements, which nothing trains, stay as
            they are.
        units: its blocks that are gathered one at a time, in the order of the forward.
        mesh: of `build_mesh`.
        device: of this rank.
        gather_dtype: in which weights are gathered; None: as they are. Gradients are always reduced
            in fp32.
        prefetch: how many units ahead are gathered explicitly; 0: as FSDP does by itself.
    """
    values = {name: parameter.detach() for name, parameter in module.named_parameters()}
    buffers = list(buffers_of(module))
    move_parameters_to_meta(module)
    empty = {parameter for parameter in module.parameters() if not parameter.numel()}
    policy = MixedPrecisionPolicy()
    if gather_dtype is not None:
        policy = MixedPrecisionPolicy(param_dtype=gather_dtype, reduce_dtype=torch.float32)
    # a mesh of one dimension is sharded alone; two dimensions replicate over the first
    used_mesh = mesh if mesh.size(0) > 1 else mesh[SHARD]
    sharded_units = tuple(
        fully_shard(unit, mesh=used_mesh, mp_policy=policy, ignored_params=empty) for unit in units
    )
    # needed again at once: the root stays gathered until its backward
    root = fully_shard(
        module,
        mesh=used_mesh,
        mp_policy=policy,
        reshard_after_forward=False,
        ignored_params=empty,
    )
    # a rank without objects leaves parameters unused; all ranks must reduce the same ones
    root.set_reduce_scatter_unused_params(True)
    set_prefetch(sharded_units, prefetch)
    module.to_empty(device=device)
    put_buffers(buffers, device)
    copy_rows(module, values)
    # now, since the weights may be gathered before the first forward
    root._get_fsdp_state()._lazy_init()
    return Sharding(root, sharded_units, mesh)


def set_prefetch(units: Sequence[FSDPModule], ahead: int) -> None:
    """Let each unit start to gather the next `ahead` ones in forward, and those before in backward.

    Args:
        units: in the order of the forward.
        ahead: 0 leaves FSDP's own order, in which the CPU issues one gather ahead.
    """
    if not ahead:
        return
    for i, unit in enumerate(units):
        unit.set_modules_to_forward_prefetch(list(units[i + 1 : i + 1 + ahead]))
        unit.set_modules_to_backward_prefetch(list(reversed(units[max(0, i - ahead) : i])))


def buffers_of(module: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Yield (owner, name there, buffer) of all buffers, also of those that no state dict has."""
    for owner in module.modules():
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                yield owner, name, buffer


def put_buffers(
    buffers: Sequence[tuple[nn.Module, str, torch.Tensor]], device: torch.device
) -> None:
    """Put buffers of `buffers_of` back, on the device; a shared one stays shared."""
    moved: dict[int, torch.Tensor] = {}
    for owner, name, buffer in buffers:
        owner._buffers[name] = moved.setdefault(id(buffer), buffer.to(device))


def move_parameters_to_meta(module: nn.Module) -> None:
    """Replace each parameter by one without contents; a shared one stays shared."""
    moved: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(
                        parameter.detach().to("meta"), requires_grad=parameter.requires_grad
                    )
                owner._parameters[name] = moved[id(parameter)]
