"""What makes the host wait for a device."""

from collections import Counter
from contextlib import contextmanager


@contextmanager
def counted_reads(label=str):
    """Yields {operation: number} of what makes the host wait for a device: values read or copied to it, shapes that depend on values.

    label(operation): what is counted instead, while the operation runs.
    """
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    found = Counter()
    names = {
        "_local_scalar_dense",
        "is_nonzero",
        "nonzero",
        "masked_select",
        "equal",
        "unique",
        "_unique",
        "_unique2",
    }

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            if name in names:
                found[label(name.lstrip("_"))] += 1
            elif name == "index" and has_mask(args[1]):
                found[label("index by mask")] += 1
            elif (
                name in ("index_put", "index_put_") and has_mask(args[1]) and args[2].numel() > 1
            ):  # one value is filled in without a look
                found[label("index_put by mask")] += 1
            return function(*args, **(kwargs or {}))

    class Copies(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") == "cpu":
                found[label("cpu")] += 1
            return function(*args, **(kwargs or {}))

    with Operations(), Copies():
        yield found


def has_mask(indices):
    """Whether a tensor is indexed by booleans: how many are true decides the shape."""
    import torch

    return any(index is not None and index.dtype == torch.bool for index in indices)
