"""Evaluations of a run: the record of each, and of few of them the images, as data: addresses that need no file beside the page."""

import base64
from pathlib import Path

from visionloop.bin.reports.run_folder import as_object, is_number, number_or_none, read_object

FIXED_SAMPLES, FIXED_STEPS, WORST_SAMPLES = 8, 12, 16
LARGEST_IMAGE = 2**20  # bytes
KINDS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
RECORD = "record.json"


def read_records(folder, notes):
    """[(folder, record)] by step. Those that are no records are left out with a note."""
    found = []
    for path in sorted((folder / "evaluations").glob(f"step_*/{RECORD}")):
        wrong = []
        record = read_object(path, wrong)
        if not wrong and (record.get("schema") != 1 or not is_number(record.get("step"))):
            wrong = [f"{RECORD}: not of schema 1"]
        notes += [f"evaluations/{path.parent.name}/{note}" for note in wrong]
        if not wrong:
            found.append((path.parent, record))
    return sorted(found, key=lambda row: row[1]["step"])


def intervals_of(records):
    """{step: {metric key: (low, high)}}."""
    return {
        record["step"]: {
            key: tuple(span)
            for key, span in as_object(record.get("intervals")).items()
            if isinstance(span, list) and len(span) == 2 and all(map(is_number, span))
        }
        for _, record in records
    }


def last_evaluation(records):
    """The numbers of the last one; None before the first."""
    if not records:
        return None
    record = records[-1][1]
    return {
        "step": record["step"],
        "reference": {
            label: number_or_none(value)
            for label, value in as_object(record.get("reference")).items()
        },
        "classes": record.get("classes"),
        "confusion": record.get("confusion"),
        "curves": record.get("curves") or [],
    }


def worst_samples(records, notes):
    """{"step", "score", "known", "samples"} of the last evaluation whose images were kept; None without any.

    score: what the samples' score means; known: how many the record holds.
    """
    drawn = with_images(records, "worst")
    if not drawn:
        return None
    folder, record = drawn[-1]
    shown = samples(folder, record, "worst", WORST_SAMPLES, notes)
    return {
        "step": record["step"],
        "score": record.get("sample_score"),
        "known": len(record["worst"]),
        "samples": shown,
    }


def fixed_samples(records, notes):
    """{"score", "known", "evaluations", "shown": [{"step", "samples"}]}, None without any.

    evaluations: how many kept images of these samples; shown: some of them, evenly spread, both
    ends among them.
    """
    drawn = with_images(records, "fixed")
    if not drawn:
        return None
    chosen = [drawn[i] for i in spread(len(drawn), FIXED_STEPS)]
    shown = [
        {"step": record["step"], "samples": samples(folder, record, "fixed", FIXED_SAMPLES, notes)}
        for folder, record in chosen
    ]
    last = drawn[-1][1]
    return {
        "score": last.get("sample_score"),
        "known": len(last["fixed"]),
        "evaluations": len(drawn),
        "shown": shown,
    }


def with_images(records, kind):
    """Those of [(folder, record)] that name an image: a run keeps them at some of its evaluations."""
    return [
        (folder, record)
        for folder, record in records
        if any(row.get("image") for row in record.get(kind) or [])
    ]


def spread(number, most):
    """At most `most` of range(number), evenly, both ends among them."""
    return (
        list(range(number))
        if number <= most
        else [round(i * (number - 1) / (most - 1)) for i in range(most)]
    )


def samples(folder, record, kind, most, notes):
    """[{"name", "score", "image"}]; image: a data: address, None where the file is not to be had."""
    return [
        {
            "name": str(row["name"]),
            "score": number_or_none(row.get("score")),
            "image": image_data(folder, row.get("image"), notes),
        }
        for row in (record.get(kind) or [])[:most]
    ]


def image_data(folder, name, notes):
    """An image beside its record as `data:image/jpeg;base64,..`; None where none was drawn, and with a note for anything else."""
    if name is None:
        return None
    name = str(name)
    where = f"evaluations/{folder.name}/{name}"
    kind = KINDS.get(Path(name).suffix.lower())
    # a record from elsewhere must not put other files of this machine into a page that is sent away
    if kind is None or Path(name).name != name or (folder / name).is_symlink():
        notes.append(f"{where}: not an image beside its record")
        return None
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        notes.append(f"{where}: {error.strerror}")
        return None
    if len(content) > LARGEST_IMAGE:
        notes.append(f"{where}: {len(content)} bytes are too many for a page")
        return None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
