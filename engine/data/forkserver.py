"""The process that forks loader workers: made before a run has threads, because a fork beside threads can hang for ever.

CPython 3.11 takes a lock of the interpreter in the child of a fork before it renews that lock
(`PyOS_AfterFork_Child`), so a worker forked at the moment in which another thread holds it never
starts. Such threads are gloo's, which end a collective by giving tensors back to Python. This
process is `multiprocessing`'s fork server, forked from the run instead of started anew: it has
imported everything already, and holds no thread. How it is started stands on parts of
`multiprocessing.forkserver` that Python 3.14 changes.
"""

import os
import signal
import socket
from multiprocessing import connection, forkserver, resource_tracker

_owner = None  # the process that started the server it knows of


def start_fork_server():
    """Start the fork server of this process, unless it runs. Call it before the process has threads."""
    global _owner
    server = forkserver._forkserver
    if _owner == os.getpid() and os.waitpid(server._forkserver_pid, os.WNOHANG) == (0, 0):
        return
    resource_tracker.ensure_running()
    with socket.socket(socket.AF_UNIX) as listener:
        address = connection.arbitrary_address("AF_UNIX")
        listener.bind(address)
        listener.listen()
        alive_read, alive_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _serve(listener, alive_read, alive_write)
        os.close(alive_read)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = (
        address,
        alive_write,
        pid,
    )
    _owner = os.getpid()


def _serve(listener, alive_read, alive_write):
    """Fork workers until the run is gone. Does not return."""
    try:
        os.close(alive_write)
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # torchrun sends it to the whole process group; stopping is the run's business
        forkserver.main(listener.fileno(), alive_read, [])
    finally:
        os._exit(0)


def detach_fork_server():
    """In a worker: no longer keep the server alive, so that both end when the run is killed."""
    os.close(forkserver._forkserver._forkserver_alive_fd)
