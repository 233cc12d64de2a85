"""Evaluation records of a run, with a selection of their images as `data:` URLs.

The page needs no file beside it.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from visionloop.bin.reports.run_folder import as_object, is_number, number_or_none, read_object
from visionloop.engine.types import JsonObject

FIXED_SAMPLES, FIXED_STEPS, WORST_SAMPLES = 8, 12, 16
MAX_IMAGE_BYTES = 2**20
MEDIA_TYPES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
RECORD = "record.json"

# (folder of the evaluation, content of its record.json)
Record: TypeAlias = tuple[Path, JsonObject]
# (folder of the evaluation, file name of an image or None, notes) -> its address or None
ImageOf: TypeAlias = Callable[[Path, object, list[str]], str | None]
# reads the object in a json file and adds notes about what is wrong, as `read_object`
ReadObject: TypeAlias = Callable[[Path, list[str]], JsonObject]
# {step: {metric key: (low, high)}} of 95 % intervals
Intervals: TypeAlias = dict[int, dict[str, tuple[float, float]]]


def read_records(folder: Path, notes: list[str], read: ReadObject = read_object) -> list[Record]:
    """Read the records of a run folder in order of step; those that are not valid become notes."""
    records: list[Record] = []
    for path in sorted((folder / "evaluations").glob(f"step_*/{RECORD}")):
        problems: list[str] = []
        record = read(path, problems)
        if not problems and (record.get("schema") != 1 or not is_number(record.get("step"))):
            problems = [f"{RECORD}: not of schema 1"]
        notes += [f"evaluations/{path.parent.name}/{problem}" for problem in problems]
        if not problems:
            records.append((path.parent, record))
    return sorted(records, key=lambda row: row[1]["step"])


def intervals_of(records: Iterable[Record]) -> Intervals:
    """Return {step: {metric key: (low, high)}}."""
    return {
        record["step"]: {
            key: (interval[0], interval[1])
            for key, interval in as_object(record.get("intervals")).items()
            if isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
        }
        for _, record in records
    }


def last_evaluation(records: Sequence[Record]) -> JsonObject | None:
    """Return classes, confusion matrix and curves of the last evaluation; None before the first."""
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


def worst_samples(
    records: Sequence[Record], notes: list[str], image_of: ImageOf
) -> JsonObject | None:
    """Return {"step", "score", "total", "samples"} of the last evaluation with images, or None.

    score: meaning of the samples' score; total: number of samples in the record.
    """
    with_images = select_with_images(records, "worst")
    if not with_images:
        return None
    folder, record = with_images[-1]
    return {
        "step": record["step"],
        "score": record.get("sample_score"),
        "total": len(record["worst"]),
        "samples": read_samples(folder, record, "worst", WORST_SAMPLES, notes, image_of),
    }


def fixed_samples(
    records: Sequence[Record], notes: list[str], image_of: ImageOf
) -> JsonObject | None:
    """Return {"score", "total", "evaluations", "selection": [{"step", "samples"}]}, or None.

    evaluations: number of evaluations with images of these samples; selection: at most
    `FIXED_STEPS` of them, evenly spaced, with the first and the last.
    """
    with_images = select_with_images(records, "fixed")
    if not with_images:
        return None
    selected = [with_images[i] for i in evenly_spaced(len(with_images), FIXED_STEPS)]
    last = with_images[-1][1]
    return {
        "score": last.get("sample_score"),
        "total": len(last["fixed"]),
        "evaluations": len(with_images),
        "selection": [
            {
                "step": record["step"],
                "samples": read_samples(folder, record, "fixed", FIXED_SAMPLES, notes, image_of),
            }
            for folder, record in selected
        ],
    }


def select_with_images(records: Iterable[Record], kind: str) -> list[Record]:
    """Return the records that name an image: a run keeps images of some of its evaluations.

    kind: "fixed" or "worst".
    """
    return [
        (folder, record)
        for folder, record in records
        if any(row.get("image") for row in record.get(kind) or [])
    ]


def evenly_spaced(number: int, most: int) -> list[int]:
    """Return at most `most` indices of range(number), evenly spaced, with the first and last."""
    if number <= most:
        return list(range(number))
    return [round(i * (number - 1) / (most - 1)) for i in range(most)]


def read_samples(
    folder: Path, record: JsonObject, kind: str, most: int, notes: list[str], image_of: ImageOf
) -> list[JsonObject]:
    """Return the first samples of a record, [{"name", "score", "image"}].

    image: its address, such as a `data:` URL; None without a readable file.
    """
    return [
        {
            "name": str(row["name"]),
            "score": number_or_none(row.get("score")),
            "image": image_of(folder, row.get("image"), notes),
        }
        for row in (record.get(kind) or [])[:most]
    ]


def image_url(folder: Path, name: object, notes: list[str]) -> str | None:
    """Return an image of an evaluation as `data:image/jpeg;base64,..`.

    Args:
        folder: of the evaluation.
        name: file name of the image, None for a sample without one.
        notes: receives the reason why an image is left out.

    Returns:
        The URL, or None without an image.
    """
    if name is None:
        return None
    name = str(name)
    where = f"evaluations/{folder.name}/{name}"
    media_type = media_type_of(folder, name)
    if media_type is None:
        notes.append(f"{where}: not an image in the folder of its record")
        return None
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        notes.append(f"{where}: {error.strerror}")
        return None
    if len(content) > MAX_IMAGE_BYTES:
        notes.append(f"{where}: {len(content)} bytes, more than the {MAX_IMAGE_BYTES} of a page")
        return None
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def media_type_of(folder: Path, name: str) -> str | None:
    """Return the media type of an image of an evaluation, None for any other name.

    A record from elsewhere must not put other files of this machine into a page: a name with a
    folder in it, or of a link, is none.
    """
    subtype = MEDIA_TYPES.get(Path(name).suffix.lower())
    if subtype is None or Path(name).name != name or (folder / name).is_symlink():
        return None
    return f"image/{subtype}"
