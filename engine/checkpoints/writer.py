"""Background writing of checkpoints: the loop waits for a copy in host memory, a thread writes it.

The conversion of tensors to safetensors files and back is here as well.
"""

import errno
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from visionloop.engine.errors import UserError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


class CheckpointWriter:
    """Does one write at a time, in a thread or at once; the next call raises a write's error.

    The thread writes copies that nothing else changes, so the bytes are the same either way.
    """

    def __init__(self, in_background: bool) -> None:
        self._in_background = in_background
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def failed(self) -> bool:
        """Return True once the write in flight has failed."""
        return self._error is not None

    def start(self, write: Callable[[], None]) -> None:
        """Start write(), which must read nothing that training changes. Call `wait` before."""
        assert self._thread is None, "one write at a time"
        if not self._in_background:
            write()
            return
        # not a daemon: the interpreter waits for it, also when the run ends in a traceback
        self._thread = threading.Thread(target=self._work, args=(write,), name="checkpoint")
        self._thread.start()

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


def copy_to_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors to new host memory; names that share a tensor share the copy.

    Waits for the device.
    """
    copies: dict[object, torch.Tensor] = {}
    result = {}
    for name, tensor in tensors.items():
        key: object = name
        if tensor.numel():
            storage = tensor.untyped_storage().data_ptr()
            key = (storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True).contiguous()
        result[name] = copies[key]
    return result


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write {name: tensor} as a safetensors file. The tensors must not share memory.

    Moments in channels_last are made contiguous.
    """
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file as {name: CPU tensor}."""
    return load_file(path)
