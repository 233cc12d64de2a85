"""Names, notes and jobs that this server has for runs."""

from visionloop.bin.web.jobs.spec import JobKind
from visionloop.bin.web.jobs.store import RunNote
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.runs.rows import RunLabel
from visionloop.bin.web.studio import Studio


def labels_of(studio: Studio) -> dict[str, RunLabel]:
    """Return {id of the run: its label}."""
    notes = studio.store.run_notes()
    jobs = {
        run_id(job.run): job.id
        for job in sorted(studio.store.jobs(), key=lambda job: job.created)
        if job.kind is JobKind.TRAIN and job.run is not None
    }
    empty = RunNote("", "")
    return {
        id: RunLabel(
            name=notes.get(id, empty).name or None,
            note=notes.get(id, empty).note,
            job=jobs.get(id),
        )
        for id in {*notes, *jobs}
    }


def revisions_of(studio: Studio) -> dict[str, int]:
    """Return counters that grow when the lists of jobs and runs have changed."""
    return {"jobs": studio.store.revision, "runs": studio.runs.revision}
