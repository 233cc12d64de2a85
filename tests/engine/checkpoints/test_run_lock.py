"""One process at a time in the folder of a run."""

import os
import signal
import time

import pytest

from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.errors import UserError


def in_a_child(action):
    """Return the exit code of a forked process: 0 when action() returned, 3 when it was locked."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except UserError as error:
            code = 3 if error.code == "locked" else 4
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_second_process_is_refused_until_the_first_releases(tmp_path):
    lock = RunLock(tmp_path / "run")
    assert in_a_child(lambda: RunLock(tmp_path / "run")) == 3
    assert in_a_child(lambda: RunLock(tmp_path / "other")) == 0
    lock.release()
    assert in_a_child(lambda: RunLock(tmp_path / "run")) == 0


@pytest.mark.parametrize("has_worker", [False, True], ids=["alone", "with a worker that lives on"])
def test_the_lock_is_free_after_its_holder_is_killed(tmp_path, has_worker):
    ready, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        lock = RunLock(tmp_path)
        worker = os.fork() if has_worker else -1
        if worker != 0:
            os.write(tell, f"{worker}\n".encode())
        time.sleep(30)
        os._exit(lock is None)
    worker = int(os.read(ready, 20))
    os.close(ready)
    os.close(tell)
    try:
        with pytest.raises(UserError, match="another process is running there") as caught:
            RunLock(tmp_path)
        assert caught.value.code == "locked" and str(tmp_path) in str(caught.value)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        RunLock(tmp_path).release()
    finally:
        if has_worker:
            os.kill(worker, signal.SIGKILL)
