"""Writing checkpoints beside the training: the loop waits for a copy in memory, a thread hashes and writes it."""

import errno
import threading

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from visionloop.engine.errors import UserError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


class CheckpointWriter:
    """Does one write at a time: in a thread, or at once. What a write raises is raised by the next call.

    The thread only writes copies of its own, so the bytes are the same either way.
    """

    def __init__(self, in_background):
        self._in_background, self._thread, self._error = in_background, None, None

    @property
    def failed(self):
        """True once the write in flight has failed."""
        return self._error is not None

    def start(self, write):
        """Call write(), which takes nothing that training changes. A write in flight must have been waited for."""
        assert self._thread is None, "one write at a time"
        if not self._in_background:
            write()
            return
        # not a daemon: the interpreter waits for it, also when the run ends in a traceback
        self._thread = threading.Thread(target=self._work, args=(write,), name="checkpoint")
        self._thread.start()

    def _work(self, write):
        try:
            write()
        except Exception as error:  # belongs to the main thread
            self._error = error

    def wait(self):
        """Until the write in flight is over. Raises its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def is_disk_error(error, folder=None):
    """True for what a full, failing or read-only disk gives; the library that writes tensors has an error of its own.

    folder: where the disk is; an error that names a file elsewhere is another one.
    """
    if isinstance(error, SafetensorError):
        return "os error" in str(error)
    elsewhere = (
        getattr(error, "filename", None)
        and folder
        and not str(error.filename).startswith(str(folder))
    )
    return isinstance(error, OSError) and error.errno in DISK_ERRORS and not elsewhere


def cannot_write(folder, error):
    """The UserError of such a disk."""
    why = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
    hint = "older checkpoints are whole: once there is room, the same command goes on"
    return UserError(
        f"{folder}: cannot write ({why}); {hint}", code="cannot_write", file=str(folder), hint=hint
    )


# Named tensors: copied to host memory, written to a file, read back.


def host_copies(tensors):
    """{name: CPU tensor} with memory of its own; names that share a tensor share the copy. The device is waited for."""
    copies, found = {}, {}
    for name, tensor in tensors.items():
        key = (
            (
                tensor.untyped_storage().data_ptr(),
                tensor.storage_offset(),
                tensor.shape,
                tensor.stride(),
            )
            if tensor.numel()
            else name
        )
        if key not in copies:
            copies[key] = tensor.detach().to("cpu", copy=True).contiguous()
        found[name] = copies[key]
    return found


def save_tensors(path, tensors):
    """Write one safetensors file; tensors must not share memory. channels_last moments are made contiguous."""
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)


def load_tensors(path):
    """{name: CPU tensor}."""
    return load_file(path)
