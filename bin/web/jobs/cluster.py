"""Jobs that were submitted to a cluster: they end when status.json or the cluster says so."""

import contextlib
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
class Probe:
    """Probes of one attempt of a job: whether the cluster still knows it.

    Attributes:
        process: the probe that runs now.
        started: time of its start, on the clock of time.monotonic().
        absences: consecutive probes that did not find the job.
    """

    process: subprocess.Popen[bytes] | None = None
    started: float = float("-inf")
    absences: int = 0


class ClusterJobs:
    """Decides whether jobs of clusters have ended, without ever waiting for a probe."""

    def __init__(self) -> None:
        self._probes: dict[tuple[str, float | None], Probe] = {}

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
        probe = self._probes.setdefault((job.id, job.started), Probe())
        if probe.process is not None:
            if probe.process.poll() is None:
                return False
            output, _ = probe.process.communicate()
            is_absent = probe.process.returncode == 0 and not output.strip()
            probe.absences = probe.absences + 1 if is_absent else 0
            probe.process = None
        elif time.monotonic() - probe.started > PROBE_SECONDS:
            probe.started = time.monotonic()
            launch = job.description["launch"]
            with contextlib.suppress(OSError):  # no result is no absence
                probe.process = subprocess.Popen(
                    launch["probe"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | launch["environment"],
                    start_new_session=True,
                )
        return probe.absences >= ABSENCES
