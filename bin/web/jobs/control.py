"""The processes of jobs: started, watched, asked to stop, killed.

Nothing is remembered here that a new server needs: all is read from locks and files again.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from visionloop.bin.web.jobs.folder import JobFolder
from visionloop.bin.web.jobs.processes import (
    Process,
    is_alive,
    kill_all,
    lock_holder,
    send_signal,
    torchrun_of,
)
from visionloop.bin.web.jobs.store import JobRow

RUNNER = "visionloop.bin.web.jobs.runner"


@dataclass(frozen=True)
class Observation:
    """A job as its files and locks show it.

    Attributes:
        begun: its newest attempt has begun, or can never begin, without its folder.
        runner: the process that runs it, or None.
        trainer: without one: the process that trains in its run folder, or its command, or None.
        code: exit code of the attempt if it has ended by itself.
    """

    begun: bool
    runner: Process | None
    trainer: Process | None
    code: int | None

    @property
    def is_alive(self) -> bool:
        return self.runner is not None or self.trainer is not None


def observe(job: JobRow, folder: JobFolder) -> Observation:
    """Look at a job. The order matters: a process takes the lock, begins, exits, lets go."""
    is_adopted = bool(job.description["adopted"]) and job.attempt == 0
    begun = is_adopted or (folder.process() or {}).get("attempt", -1) >= job.attempt > 0
    begun = begun or not folder.path.is_dir()
    runner = folder.holder()
    ended = folder.exit_of(job.attempt) if runner is None else None
    trainer = None
    if begun and runner is None and ended is None:
        trainer = lock_holder(job.run / ".lock") if job.run is not None else None
        command = folder.command()  # it takes some seconds until it has that lock
        if trainer is None and command is not None and is_alive(command):
            trainer = command
    code = None if ended is None else int(ended["code"])
    return Observation(begun or ended is not None, runner, trainer, code)


class ProcessControl:
    """Starts and ends the processes of jobs."""

    def __init__(self) -> None:
        self._runners: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[tuple[str, float | None, str], subprocess.Popen[bytes] | None] = {}

    def start(self, job: JobRow, folder: JobFolder) -> None:
        """Start the runner of the newest attempt. It is nobody's child once this server ends."""
        with open(folder.log, "ab") as output:
            self._runners[job.id] = subprocess.Popen(
                (sys.executable, "-P", "-m", RUNNER, str(folder.path), str(job.attempt)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder.path,
                start_new_session=True,
            )

    def runner_state(self, job: JobRow) -> bool | None:
        """Return whether the runner that was started here lives; None: none was."""
        runner = self._runners.get(job.id)
        return None if runner is None else runner.poll() is None

    def forget(self, job: JobRow) -> None:
        """Forget the runner of an attempt that has ended."""
        self._runners.pop(job.id, None)

    def reap(self) -> None:
        """Wait for processes that have ended, so that none stays a zombie."""
        for process in (*self._runners.values(), *self._commands.values()):
            if process is not None:
                process.poll()

    def stop(self, job: JobRow, folder: JobFolder, seen: Observation) -> None:
        """Ask a job to save and stop."""
        launch = job.description["launch"]
        if launch["stop"] is not None:
            self._command(job, folder, "stop")
        elif seen.runner is not None:
            send_signal(seen.runner, signal.SIGTERM)
        elif seen.trainer is not None:
            # a second signal would end torchrun without its processes: it gets this one alone
            send_signal(torchrun_of(seen.trainer) or seen.trainer, signal.SIGTERM)

    def kill(self, job: JobRow, folder: JobFolder, seen: Observation) -> None:
        """End all processes of a job at once. The runner stays, to write how it ended."""
        launch = job.description["launch"]
        if launch["kill"] is not None:
            self._command(job, folder, "kill")
            if not launch["submits"]:
                return
        if seen.runner is not None:
            kill_all(seen.runner.pid, group=(folder.process() or {}).get("pgid"))
        elif seen.trainer is not None:
            roots = (torchrun_of(seen.trainer), seen.trainer)
            kill_all(seen.trainer.pid, [process for process in roots if process is not None])

    def _command(self, job: JobRow, folder: JobFolder, name: str) -> None:
        """Run the launch's own command to stop or kill once for each attempt."""
        key = (job.id, job.started, name)  # a removed job may leave its id to another one
        if key in self._commands:
            return
        with open(folder.log, "ab") as output:
            try:
                self._commands[key] = subprocess.Popen(
                    job.description["launch"][name],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder.path,
                    env=os.environ | job.description["launch"]["environment"],
                    start_new_session=True,
                )
            except OSError as error:
                self._commands[key] = None
                output.write(f"error: {error.filename}: {error.strerror}\n".encode())
