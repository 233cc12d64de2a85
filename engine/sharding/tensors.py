"""The local part of a sharded tensor, and the rows that it holds."""

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's rows of a sharded tensor, in the same memory; any other tensor as it is.

    Everything that is elementwise (moments, EMA) works on these: no communication.
    """
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    with torch.no_grad():  # with gradients it would be a node of the graph
        rows: torch.Tensor = tensor.to_local()
    return rows


def is_sharded_tensor(tensor: torch.Tensor) -> bool:
    """Return True for a tensor of which this rank holds some rows."""
    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a sharded tensor whole, on every rank; any other tensor as it is.

    All ranks for a sharded one; meant for scalars such as a gradient norm.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def row_range(tensor: torch.Tensor) -> tuple[int, int]:
    """Return (first row, row after the last) of this rank; all rows of an unsharded tensor.

    A tensor without dimensions has one row.
    """
    rows = tensor.shape[0] if tensor.ndim else 1
    if not isinstance(tensor, DTensor):
        return 0, rows
    shape, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    # torch gives a rank without rows the offset of the end, or of its padding
    first = min(offset[0], rows)
    return first, first + shape[0]
