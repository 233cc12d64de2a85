"""Sharded tensors: the rows that this rank holds of them, and their copy from whole ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded_tensor(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    """Return True for a tensor of which this rank holds some rows."""
    # imported by sharded runs alone, since it takes a second: else there is no such tensor
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's rows of a sharded tensor, in the same memory; any other tensor as it is.

    Everything that is elementwise (moments, EMA) works on these: no communication.
    """
    if not is_sharded_tensor(tensor):
        return tensor.detach()
    with torch.no_grad():  # with gradients it would be a node of the graph
        rows: torch.Tensor = tensor.to_local()
    return rows


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a sharded tensor whole, on every rank; any other tensor as it is.

    All ranks for a sharded one; meant for scalars such as a gradient norm.
    """
    return tensor.full_tensor() if is_sharded_tensor(tensor) else tensor


def row_range(tensor: torch.Tensor) -> tuple[int, int]:
    """Return (first row, row after the last) of this rank; all rows of an unsharded tensor.

    A tensor without dimensions has one row.
    """
    rows = tensor.shape[0] if tensor.ndim else 1
    if not is_sharded_tensor(tensor):
        return 0, rows
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    # torch gives a rank without rows the offset of the end, or of its padding
    first = min(offset[0], rows)
    return first, first + shape[0]


def own_rows(target: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the rows of a whole tensor that this rank holds of `target`, in the same memory."""
    first, stop = row_range(target)
    return values[first:stop] if values.ndim else values


@runtime_checkable
class RowReader(Protocol):
    """Stored tensors whose rows can be read, as `StoredTensors`. shapes: {name: whole shape}."""

    shapes: Mapping[str, tuple[int, ...]]

    def rows(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Read the rows first..stop - 1 of a tensor."""


def load_by_name(
    targets: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor], what: str
) -> None:
    """Copy stored tensors into existing ones, of sharded ones this rank's rows.

    Args:
        targets: {name: tensor}.
        stored: whole tensors of the same names and shapes, or a RowReader, of which only the rows
            are read.
        what: what they are, for the message.

    Raises:
        ValueError: names or shapes differ.
    """
    reader: RowReader | None = stored if isinstance(stored, RowReader) else None
    missing = sorted(targets.keys() - stored.keys())
    unknown = sorted(stored.keys() - targets.keys())
    if missing or unknown:
        raise ValueError(
            f"{what} of another model: {len(missing)} missing, {len(unknown)} unknown, "
            f"the first is {(missing + unknown)[0]}"
        )
    for name, target in targets.items():
        shape = reader.shapes[name] if reader else tuple(stored[name].shape)
        if target.shape != shape:
            raise ValueError(
                f"{what} of another model: {name} has shape {list(shape)}, expected "
                f"{list(target.shape)}"
            )
        if reader:
            rows = reader.rows(name, *row_range(target))
        else:
            rows = own_rows(target, stored[name])
        with torch.no_grad():
            local(target).copy_(rows)


def copy_rows(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copy this rank's rows of whole tensors into the parameters and buffers of a sharded module.

    values: {name in the state dict: whole tensor}; names that are not there keep their values.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in values:
            local(tensor).copy_(own_rows(tensor, values[name]))
