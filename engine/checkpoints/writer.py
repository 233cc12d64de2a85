"""Background writing of checkpoints: the loop waits for a copy in host memory, a thread writes it.

The conversion of tensors to safetensors files and back is here as well.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from visionloop.engine.errors import UserError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
CHUNK_BYTES = 2**26  # of page-locked memory
ALIGNMENT = 64  # bytes, of a copy in it


class CheckpointWriter:
    """Does one write at a time, in a thread or at once; the next call raises a write's error.

    The thread writes copies that nothing else changes, so the bytes are the same either way.

    Attributes:
        buffers: memory for the copies, None for new memory at each save.
    """

    def __init__(self, in_background: bool, buffers: HostBuffers | None = None) -> None:
        self._in_background = in_background
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._cancelled = threading.Event()
        self.buffers = buffers

    @property
    def failed(self) -> bool:
        """Return True once the write in flight has failed."""
        return self._error is not None

    def start(self, write: Callable[[], None]) -> None:
        """Start write(), which must read nothing that training changes. Call `wait` before."""
        assert self._thread is None, "one write at a time"
        self._cancelled.clear()
        if not self._in_background:
            write()
            return
        # not a daemon: the interpreter waits for it, also when the run ends in a traceback
        self._thread = threading.Thread(target=self._work, args=(write,), name="checkpoint")
        self._thread.start()

    def cancel(self) -> None:
        """Let a write in flight no longer wait for other processes."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Return True once the write in flight was cancelled."""
        return self._cancelled.is_set()

    def _work(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # belongs to the main thread
            self._error = error

    def wait(self) -> None:
        """Wait for the write in flight. Raises its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def is_disk_error(error: Exception, folder: Path | None = None) -> bool:
    """Return True for the error of a full, failing or read-only disk.

    Args:
        error: an OSError, or the error that safetensors raises in its place.
        folder: a folder on that disk; an error that names a file elsewhere is another one.
    """
    if isinstance(error, SafetensorError):
        return "os error" in str(error)
    if not isinstance(error, OSError) or error.errno not in DISK_ERRORS:
        return False
    return not (error.filename and folder and not str(error.filename).startswith(str(folder)))


def cannot_write(folder: Path, error: Exception) -> UserError:
    """Return the UserError for a disk error in `folder`."""
    why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
    hint = "older checkpoints are intact: once there is room, the same command resumes the run"
    return UserError(
        f"{folder}: cannot write ({why}); {hint}", code="cannot_write", file=str(folder), hint=hint
    )


class HostBuffers:
    """Page-locked host memory for the copies of one checkpoint, which the next one uses again.

    CUDA copies there several times as fast as to other memory, and without a wait for each tensor;
    locking pages takes longer than copying, so they are kept. They are locked in chunks, since
    torch rounds each request up to a power of two.

    Args:
        pinned: lock the pages.
    """

    def __init__(self, *, pinned: bool = True) -> None:
        self._pinned = pinned
        self._chunks: list[NDArray[np.uint8]] = []
        self._number = self._used = 0

    def rewind(self) -> None:
        """Use all memory again. Nothing may read the copies of the checkpoint before."""
        self._number = self._used = 0

    def empty_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return uninitialized, contiguous memory for a copy, in a storage of its own."""
        num_bytes = -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        while True:
            if self._number == len(self._chunks):
                self._chunks.append(self._allocate(max(num_bytes, CHUNK_BYTES)))
            if self._used + num_bytes <= len(self._chunks[self._number]):
                break
            self._number, self._used = self._number + 1, 0
        memory = self._chunks[self._number][self._used : self._used + tensor.nbytes]
        self._used += num_bytes
        return torch.from_numpy(memory).view(tensor.dtype).view(tensor.shape)

    def _allocate(self, num_bytes: int) -> NDArray[np.uint8]:
        try:
            return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        except RuntimeError:  # the system locks no more pages: slower, and the same bytes
            return torch.empty(num_bytes, dtype=torch.uint8).numpy()


def host_buffers(device: torch.device) -> HostBuffers | None:
    """Return the memory for copies from CUDA; None elsewhere, where nothing is won by keeping."""
    return HostBuffers() if device.type == "cuda" else None


def copy_to_host(
    tensors: Mapping[str, torch.Tensor], buffers: HostBuffers | None = None
) -> dict[str, torch.Tensor]:
    """Copy tensors to host memory; names that share a tensor share the copy.

    Waits for the device.

    Args:
        tensors: {name: tensor}.
        buffers: memory for the copies, new memory by default.
    """
    copies: dict[object, torch.Tensor] = {}
    result = {}
    for name, tensor in tensors.items():
        key: object = name
        if tensor.numel():
            storage = tensor.untyped_storage().data_ptr()
            key = (storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in copies:
            source = tensor.detach()
            if buffers is None or not tensor.numel():
                copies[key] = source.to("cpu", copy=True).contiguous()
            else:
                copies[key] = buffers.empty_like(source).copy_(source, non_blocking=True)
        result[name] = copies[key]
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return result


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write {name: tensor} as a safetensors file. The tensors must not share memory.

    Moments in channels_last are made contiguous.
    """
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file as {name: CPU tensor}."""
    return load_file(path)
