"""Names, notes and jobs that this server has for runs."""

from visionloop.bin.web.jobs.spec import JobKind
from visionloop.bin.web.jobs.store import JobStore, RunNote
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.runs.rows import RunLabel


def labels_of(store: JobStore) -> dict[str, RunLabel]:
    """Return {id of the run: its label}."""
    notes = store.run_notes()
    jobs = {
        run_id(job.run): job.id
        for job in sorted(store.jobs(), key=lambda job: job.created)
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
