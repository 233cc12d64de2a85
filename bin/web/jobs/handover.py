"""Jobs that were handed over to a cluster: they end when status.json or the cluster says so."""

import os
import subprocess
import time
from dataclasses import dataclass

from visionloop.bin.launches.outcome import RESUMABLE_ERRORS
from visionloop.bin.web.jobs.outcome import fresh_status
from visionloop.bin.web.jobs.store import JobRow

PROBE_SECONDS = 10
# a cluster may list a new job late, and one that is queued again not for a moment
ABSENCES = 2


@dataclass
class Watch:
    """Questions to the cluster about one attempt of a job.

    Attributes:
        process: the question that is asked now.
        asked: when it was, on the clock of time.monotonic().
        absences: consecutive answers that the cluster does not know the job.
    """

    process: subprocess.Popen[bytes] | None = None
    asked: float = float("-inf")
    absences: int = 0


class Handover:
    """Decides whether jobs of clusters have ended, without ever waiting for an answer."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, float | None], Watch] = {}

    def has_ended(self, job: JobRow) -> bool:
        """Return whether neither the run nor the cluster will go on with a job.

        Schedulers start again what asks for it: "stopped" is an end if the user has stopped the
        job, or if the cluster does not know it any more.
        """
        status = fresh_status(job.run, job.started)
        error = (status.get("error") or {}).get("code")
        if status.get("state") == "finished":
            return True
        if status.get("state") == "failed" and error not in RESUMABLE_ERRORS:
            return True
        if job.description["launch"].get("probe") is None:
            return status.get("state") == "stopped" and job.wanted is not None
        return self._is_absent(job)

    def _is_absent(self, job: JobRow) -> bool:
        """Ask the cluster from time to time. Returns True when it has lost sight of the job."""
        # a removed job may leave its id to another one
        watch = self._watches.setdefault((job.id, job.started), Watch())
        if watch.process is not None:
            if watch.process.poll() is None:
                return False
            output, _ = watch.process.communicate()
            is_absent = watch.process.returncode == 0 and not output.strip()
            watch.absences = watch.absences + 1 if is_absent else 0
            watch.process = None
        elif time.monotonic() - watch.asked > PROBE_SECONDS:
            watch.asked = time.monotonic()
            launch = job.description["launch"]
            try:
                watch.process = subprocess.Popen(
                    launch["probe"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | launch["environment"],
                    start_new_session=True,
                )
            except OSError:  # no answer is no absence
                watch.process = None
        return watch.absences >= ABSENCES
