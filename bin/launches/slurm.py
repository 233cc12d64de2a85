"""Stop of a SLURM job of train.sbatch."""

import subprocess

from visionloop.engine.errors import UserError


def stop_job(name: str) -> None:
    """Stop the job of this name without queueing it again.

    scancel sends a signal to running jobs alone, so a job that waits is canceled first. SIGUSR1 to
    the batch script: save, and do not queue the job again (SIGTERM: save and queue it again).
    """
    for options in (("--state", "PENDING"), ("--batch", "--signal", "USR1", "--state", "RUNNING")):
        words = ("scancel", "--quiet", "--name", name, *options)
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UserError(
                "scancel: no such program on the PATH; expected the programs of SLURM"
            ) from None
        if done.returncode:
            reason = done.stderr.strip() or f"exit code {done.returncode}"
            raise UserError(f"job {name} cannot be stopped: {reason}")
