"""The lock that keeps two runs out of one folder."""

import errno
import fcntl
import os
from pathlib import Path

from visionloop.engine.errors import UserError


class RunLock:
    """An exclusive lock on a run's folder, held until the process ends or `release` is called.

    The folder is created. Raises UserError when another process holds the lock, or when the file
    system has no locks.
    """

    def __init__(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self._file = open(output / ".lock", "w")  # noqa: SIM115 - held open as long as the lock
        try:
            # lockf, not flock: workers are forked and would keep a flock alive after this process
            # is killed
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"--output {output}: another process is running there",
                    code="locked",
                    file=str(output),
                ) from None
            why = (
                f"the file system cannot lock .lock there ({error.strerror}), which keeps two runs "
                "apart"
            )
            raise UserError(
                f"--output {output}: {why}", code="no_locks", file=str(output), field="output"
            ) from None

    def release(self) -> None:
        """Release the lock; the file stays."""
        self._file.close()

    def discard(self) -> None:
        """Release the lock, and remove the folder where nothing but the lock is in it."""
        path = Path(self._file.name)
        if os.listdir(path.parent) == [path.name]:
            path.unlink()
            path.parent.rmdir()
        self.release()
