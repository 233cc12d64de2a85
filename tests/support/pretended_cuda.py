"""A pretended CUDA device: tensors that report another device, while their numbers lie on the CPU.

An operation on tensors of two devices raises as CUDA would, and every host sync is counted with the
line that calls it. This shows without a GPU what a CPU run cannot: a constant that was left on the
host, a copy inside the training loop.

The dispatch is that of CUDA: autocast lists, decompositions by device. The kernels and the random
numbers are those of the CPU, the backward is that of `python_autograd`. All of this changes the
process, so use it in a child process.
"""

import contextlib
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import python_autograd
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
COPIES = {aten.copy_.default, aten._to_copy.default}
# the shape or the value of the result depends on numbers that only the device has
DATA_DEPENDENT = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_dim.default,
}
NOT_THE_CALLER = (
    str(Path(torch.__file__).parent),
    __file__,
    contextlib.__file__,
    python_autograd.__file__,
)


def calling_line(*files: str) -> str:
    """Return "file:line" of the innermost frame outside of torch, this module and these files."""
    frame, passed_over = sys._getframe(1), (*NOT_THE_CALLER, *files)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(passed_over):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class DeviceTensor(torch.Tensor):
    """A tensor on the pretended device. host: the CPU tensor that holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host, device):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=device,
        )
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _active().run(function, args, kwargs or {})

    def __repr__(self):
        return f"DeviceTensor({self.host!r}, device={self.device})"

    def tolist(self):
        _active().note("tolist")
        return self.host.tolist()

    def backward(self, gradient=None, *_args, **_kwargs):
        python_autograd.backward(self, torch.ones_like(self) if gradient is None else gradient)

    def untyped_storage(self):
        return self.host.untyped_storage()

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        assert other.shape == self.shape, "a parameter keeps its shape"
        self.host = other.host


_devices: list["PretendedDevice"] = []


def _active() -> "PretendedDevice":
    return _devices[-1]


class PretendedDevice(TorchDispatchMode):
    """Inside the block tensors can be sent to `device`, and `torch.cuda` says that there is one.

    Args:
        capability: the compute capability of the device.

    Attributes:
        device: cuda:0.
        syncs: {(operation, "file:line"): number of host syncs}.
    """

    def __init__(self, capability: tuple[int, int] = (9, 0)):
        super().__init__()
        torch._C._ensureCUDADeviceGuardSet()
        self.device = torch.device("cuda", 0)
        self.capability = capability
        self.syncs: Counter[tuple[str, str]] = Counter()

    def __enter__(self):
        _devices.append(self)
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(mock.patch.multiple(torch.cuda, **CUDA_MODULE))
        self._patches.enter_context(mock.patch.object(torch.accelerator, "is_available", always))
        # called by a thread, in which this mode is not active
        self._patches.enter_context(mock.patch.object(torch.Tensor, "pin_memory", pinned_copy))
        # parameters become tensors of another class, which Module.to refuses otherwise
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        self._patches.close()
        _devices.remove(self)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._is_here(kwargs.get("device")) or any(map(_is_on_device, _leaves(args, kwargs))):
            return self.run(function, args, kwargs)
        return function(*args, **kwargs)

    def _is_here(self, device) -> bool:
        return device is not None and torch.device(device).type == self.device.type

    def note(self, operation: str) -> None:
        self.syncs[operation, calling_line()] += 1

    def run(self, function, args, kwargs):
        """Compute on the host what `function` computes on the device."""
        tensors = [leaf for leaf in _leaves(args, kwargs) if isinstance(leaf, torch.Tensor)]
        on_device = any(map(_is_on_device, tensors))
        to_device = self._is_here(kwargs.get("device"))
        to_host = not to_device and kwargs.get("device") is not None
        if on_device:
            self._refuse_two_devices(function, args, tensors)
        self._note_syncs(function, args, kwargs, to_device=to_device, to_host=to_host)
        host_args, host_kwargs = pytree.tree_map(_host_of, (args, kwargs))
        if to_device:
            host_kwargs["device"] = torch.device("cpu")
        host_kwargs |= {"pin_memory": False} if host_kwargs.get("pin_memory") else {}
        result = _compute(function, host_args, host_kwargs)
        if function._schema.is_mutable:
            return _mutated(function, args, kwargs, result)
        return self._wrapped(result) if to_device or (on_device and not to_host) else result

    def _wrapped(self, result):
        def wrap(leaf):
            return DeviceTensor(leaf, self.device) if type(leaf) is torch.Tensor else leaf

        return pytree.tree_map(wrap, result)

    def _refuse_two_devices(self, function, args, tensors):
        hosts = [tensor for tensor in tensors if not _is_on_device(tensor) and tensor.dim()]
        if function in COPIES or not hosts:
            return
        if function in INDEXING and _is_on_device(args[0]):  # CUDA accepts indices of the host
            hosts = [tensor for tensor in hosts if len(args) > 2 and tensor is args[2]]
            if not hosts:
                return
        shapes = [tuple(tensor.shape) for tensor in hosts]
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {function} at {calling_line()} got "
            f"tensors of shapes {shapes} on the host and others on {self.device}"
        )

    def _note_syncs(self, function, args, kwargs, *, to_device, to_host):
        if function in COPIES:
            target, source = args[:2] if function is aten.copy_.default else (None, args[0])
            non_blocking = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            goes_to_device = to_device or (target is not None and _is_on_device(target))
            goes_to_host = to_host or (target is not None and not _is_on_device(target))
            if _is_on_device(source) and goes_to_host:
                self.note("copy to the host")
            if not _is_on_device(source) and goes_to_device and not non_blocking:
                self.note("blocking copy to the device")
        elif function in DATA_DEPENDENT and any(map(_is_on_device, args)):
            self.note(function._schema.name.removeprefix("aten::").strip("_"))
        elif function in INDEXING and _is_on_device(args[0]):
            self._note_indices(function, args)

    def _note_indices(self, function, args):
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.note("index by a mask")
            if index is not None and not _is_on_device(index):
                self.note("index from the host")
        if function is not aten.index.Tensor and not _is_on_device(args[2]):
            self.note("index_put of a number of the host")


def _leaves(args, kwargs):
    return pytree.tree_leaves((args, kwargs))


def _is_on_device(value) -> bool:
    return isinstance(value, DeviceTensor)


def _host_of(value):
    return value.host if _is_on_device(value) else value


def _compute(function, args, kwargs):
    """Call an operation on host tensors, with the CPU's kernel in the place of cuDNN's."""
    if function is aten.cudnn_batch_norm.default:
        return (*aten.native_batch_norm.default(*args), torch.empty(0, dtype=torch.uint8))
    if function is aten.cudnn_batch_norm_backward.default:
        inputs, gradient, *statistics, eps, _ = args
        return aten.native_batch_norm_backward.default(
            gradient, inputs, *statistics, True, eps, [True] * 3
        )
    if function is aten._to_copy.default:
        keeps_dtype = kwargs.get("dtype") in (None, args[0].dtype)
        keeps_layout = kwargs.get("memory_format") in (None, torch.preserve_format)
        if keeps_dtype and keeps_layout:  # between devices a copy is never the tensor itself
            return args[0].clone()
    return function(*args, **kwargs)


def _mutated(function, args, kwargs, result):
    """Return the tensors that an in-place or out= operation writes to."""
    schema = function._schema
    keywords = [kwargs.get(argument.name) for argument in schema.arguments[len(args) :]]
    pairs = zip(schema.arguments, [*args, *keywords], strict=True)
    written = [value for argument, value in pairs if argument.is_write]
    if not schema.returns or schema.returns[0].alias_info is None:
        return result
    return tuple(written) if isinstance(result, tuple) else written[0]


def always() -> bool:
    return True


def pinned_copy(tensor, *_):
    return tensor.clone()


def describe(*_):
    major, minor = _active().capability
    return SimpleNamespace(total_memory=80 * 2**30, name="pretended", major=major, minor=minor)


# the functions of torch.cuda that our code and torch call
CUDA_MODULE = {
    "_lazy_init": lambda: None,
    "current_device": lambda: 0,
    "device_count": lambda: 1,
    "empty_cache": lambda: None,
    "get_device_capability": lambda *_: _active().capability,
    "get_device_name": lambda *_: "pretended",
    "get_device_properties": describe,
    "is_available": always,
    "is_bf16_supported": lambda *_, **__: _active().capability >= (8, 0),
    "manual_seed_all": lambda _: None,
    "max_memory_allocated": lambda *_: 0,
    "max_memory_reserved": lambda *_: 0,
    "mem_get_info": lambda *_: (80 * 2**30, 80 * 2**30),
    "memory_reserved": lambda *_: 0,
    "reset_peak_memory_stats": lambda *_: None,
    "set_device": lambda _: None,
    "synchronize": lambda *_: _active().note("synchronize"),
}
