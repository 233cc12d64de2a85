"""The fork server of data workers, started before a run has threads.

A fork in a process with threads can hang forever: CPython 3.11 takes a lock of the interpreter in
the child before it renews that lock (`PyOS_AfterFork_Child`), so a worker forked at the moment in
which another thread holds it never starts. Such threads are gloo's, which end a collective by
giving tensors back to Python, and those of CUDA's driver. The server is that of `multiprocessing`,
forked from the run instead of a new interpreter: it has imported everything already, and has no
threads.

It is started through private parts of `multiprocessing.forkserver`, which Python 3.14 changes;
`tests/engine/data/test_forkserver.py` fails where they are missing.
"""

import logging
import os
import signal
import socket
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any, NoReturn

import torch

log = logging.getLogger(__name__)
_server: Any = forkserver._forkserver  # type: ignore[explicit-any]  # private attributes
_owner: int | None = None  # id of the process that started the server


def start_fork_server() -> None:
    """Start the fork server of this process unless it runs; call it before there are threads."""
    global _owner
    if _owner == os.getpid() and os.waitpid(_server._forkserver_pid, os.WNOHANG) == (0, 0):
        return
    if torch.cuda.is_initialized():
        log.warning(
            "workers are forked from a process that uses CUDA already, and may hang: call "
            "start_fork_server() before the GPU is used"
        )
    resource_tracker.ensure_running()
    with socket.socket(socket.AF_UNIX) as listener:
        address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]  # private
        listener.bind(address)
        listener.listen()
        alive_read, alive_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _serve(listener, alive_read, alive_write)
        os.close(alive_read)
    _server._forkserver_address = address
    _server._forkserver_alive_fd = alive_write
    _server._forkserver_pid = pid
    _owner = os.getpid()


def _serve(listener: socket.socket, alive_read: int, alive_write: int) -> NoReturn:
    """Fork workers until the run is gone. Does not return."""
    try:
        os.close(alive_write)
        # torchrun sends SIGTERM to the whole process group; stopping is left to the run
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        forkserver.main(listener.fileno(), alive_read, [])
    finally:
        os._exit(0)


def detach_fork_server() -> None:
    """Stop keeping the server alive from a worker, so that both end when the run is killed."""
    os.close(_server._forkserver_alive_fd)
