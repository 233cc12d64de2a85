"""Record of the training data of a run: dataset.jsonl.gz in its folder, to say later what changed.

The first line is {"schema", "fingerprint", "images", "classes"}, each other line the name of an
image relative to --data, in order. A million names of 30 bytes take about 5 MB.
"""

import gzip
import io
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject, SampleDataset

RECORD = "dataset.jsonl.gz"
SCHEMA = 1
WHAT_TO_DO = (
    "a resumed run needs the data that it began with: bring that back, or begin another run, from "
    "this checkpoint with --branch or anew with --output"
)


def write_dataset_record(
    output: Path, dataset: SampleDataset, data: str | None, fingerprint: str
) -> None:
    """Write the record of a run's training data, unless it is there already. Main rank only.

    Args:
        output: the folder of the run.
        dataset: the training data.
        data: the folder that names are relative to.
        fingerprint: of the dataset; hashing a large one again would take a second.
    """
    path = output / RECORD
    try:
        with gzip.open(path, "rt") as lines:
            if json.loads(next(lines))["fingerprint"] == fingerprint:
                return
    except (OSError, ValueError, KeyError, StopIteration, EOFError):
        pass  # there is none, or half of one
    header = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "images": len(dataset),
        "classes": classes_of(dataset),
    }
    content = io.BytesIO()
    # without a time: two runs of the same data have the same bytes
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=6, mtime=0) as file:
        for line in itertools.chain([header], names_of(dataset, data)):
            file.write(f"{json.dumps(line)}\n".encode())
    replace_file(path, content.getvalue())


def read_header(output: Path) -> JsonObject:
    """Return the first line of the record of a run, {} where there is none."""
    try:
        with gzip.open(output / RECORD, "rt") as lines:
            header: JsonObject = json.loads(next(lines))
    except (OSError, ValueError, EOFError, StopIteration):
        return {}
    return header


def classes_of(dataset: SampleDataset) -> list[str] | None:
    """Return the names of the classes, None for a dataset without any."""
    classes = getattr(getattr(dataset, "dataset", dataset), "classes", None)
    return None if classes is None else list(classes)


def names_of(dataset: SampleDataset, data: str | None) -> Iterator[str]:
    """Yield the name of each image, relative to the data folder where it lies there."""
    prefix = os.path.join(data, "") if data else ""
    for index in range(len(dataset)):
        yield dataset.name(index).removeprefix(prefix)


def require_same_data(
    old: object,
    new: object,
    dataset: SampleDataset,
    *,
    data: str | None,
    run: Path,
    checkpoint: Path,
) -> None:
    """Raise a UserError that says what changed in the training data since a checkpoint.

    Args:
        old: the fingerprint in the checkpoint.
        new: that of the training data of this start.
        dataset: the training data of this start.
        data: the data folder.
        run: the folder of the checkpoint's run, which has the record.
        checkpoint: the folder that the run resumes from, for the message.
    """
    if old == new:
        return
    changes = "; ".join(describe_changes(run / RECORD, old, dataset, data))
    raise UserError(
        f"--data {data}: differs from the data of the run in {checkpoint}: {changes}; {WHAT_TO_DO}",
        code="changed_data",
        field="data",
        file=data,
        hint=WHAT_TO_DO,
    )


def describe_changes(
    record: Path, old: object, dataset: SampleDataset, data: str | None
) -> Iterator[str]:
    """Yield what is different between a record and a dataset, in a few words each."""
    try:
        with gzip.open(record, "rt") as lines:
            header: JsonObject = json.loads(next(lines))
            if header["fingerprint"] != old:
                raise ValueError("the record of other data")
            old_names = [json.loads(line) for line in lines]
    except (OSError, ValueError, KeyError, StopIteration, EOFError):
        yield f"{len(dataset)} images now; what there was is not on record"
        return
    yield from describe_classes(header["classes"] or [], classes_of(dataset) or [])
    new_names = list(names_of(dataset, data))
    if len(old_names) != len(new_names):
        yield f"{len(new_names)} images, there were {len(old_names)}"
    known, present = set(old_names), set(new_names)
    added = [name for name in new_names if name not in known]
    removed = [name for name in old_names if name not in present]
    if added:
        yield f"{len(added)} new, the first is {added[0]}"
    if removed:
        yield f"{len(removed)} missing, the first is {removed[0]}"
    if not added and not removed:
        moved = [pair for pair in zip(old_names, new_names, strict=False) if pair[0] != pair[1]]
        yield (
            f"the order of the images, first at {moved[0][1]}"
            if moved
            else f"the same {len(new_names)} names; labels, annotations or file sizes changed"
        )


def describe_classes(old: list[str], new: list[str]) -> Iterator[str]:
    """Yield the number of classes, and the first that is new or missing."""
    if old == new:
        return
    added, removed = [sorted(set(a) - set(b)) for a, b in ((new, old), (old, new))]
    details = [
        f"{len(names)} {word}: {names[0]}"
        for names, word in ((added, "new"), (removed, "missing"))
        if names
    ]
    yield f"{len(new)} classes, there were {len(old)} ({', '.join(details) or 'in another order'})"
