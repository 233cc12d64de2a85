"""Conversion of a source folder to an output folder: the part that all formats share."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

from tqdm import tqdm

from visionloop.bin.commands.output import output_folder
from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    walk_folder,
)
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.engine.errors import UserError

SUMMARY = "convert.json"  # in the output folder; marks it as one that may be replaced
MAX_PRINTED = 20  # problems on the terminal; with --skip-broken all of them are in convert.json

PathLike: TypeAlias = str | os.PathLike[str]


class ConvertedSplit(Protocol):
    """The images of a split and their annotations."""

    @property
    def folder(self) -> str:
        """Return the folder of the images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names; they are the same in all splits."""

    def __len__(self) -> int:
        """Return the number of images."""

    def name(self, i: int) -> str:
        """Return the path of image i relative to the folder."""

    def path(self, i: int) -> str:
        """Return the path of image i."""


Split = TypeVar("Split", bound=ConvertedSplit)


@dataclass
class ConversionReport:
    """The messages of a conversion.

    Attributes:
        problems: [(place, why)] of images and annotations that cannot be converted.
        notes: {why: [places]} of annotations that were changed or left out on purpose.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def add_problem(self, place: PathLike, why: str) -> None:
        """Add something that cannot be converted."""
        self.problems.append((str(place), why))

    def add_note(self, place: PathLike, why: str) -> None:
        """Add something that was changed or left out on purpose."""
        self.notes.setdefault(why, []).append(str(place))


@dataclass(frozen=True)
class OutputFormat(Generic[Split]):
    """The files that a conversion writes beside the images.

    Attributes:
        write_annotations: called with ({split: index}, output folder, report); writes the
            annotations and returns the part of each split that could be converted.
        count: returns the number of annotations of a split.
        one, many: the noun for an annotation, singular and plural.
        task: the task that reads the output, as its launcher is called.
        images: path of the images of a split in the output folder, `{}` for the split.
        only_own_images: whether a folder of images may hold no image of another split.
    """

    write_annotations: Callable[[dict[str, Split], Path, ConversionReport], dict[str, Split]]
    count: Callable[[Split], int]
    one: str
    many: str
    task: str
    images: str = "{}"
    only_own_images: bool = False


def convert(
    kind: str,
    read: Callable[[str, ConversionReport], Mapping[str, Split]],
    output_format: OutputFormat[Split],
    source: str,
    output: str,
    *,
    images: str,
    skip_broken: bool,
) -> None:
    """Convert `source` and write the output folder, whole or not at all.

    Args:
        kind: name of the source's format, for convert.json.
        read: called with (source, report), returns {split: index} with the same classes.
        output_format: the files to write.
        source: folder or file to read.
        output: folder to write; must be absent, empty or an earlier conversion.
        images: "copy" or "link" each image into the folder of its split, or "none" to make that
            folder a link to the one where the images are.
        skip_broken: leave out what cannot be converted.

    Raises:
        UserError: for a source that cannot be read; without `skip_broken` also when the report has
            problems. Nothing is written then.
    """
    refuse_overlap(source, output)
    report = ConversionReport()
    try:
        with output_folder(output, SUMMARY) as folder:
            splits = output_format.write_annotations(
                _without_empty(read(source, report), report), folder, report
            )
            print_report(report, skip_broken)
            splits = _without_empty(splits)
            check_not_empty(source, splits, output_format)
            for split, index in splits.items():
                target = folder / output_format.images.format(split)
                place_images(index, target, images, output_format.only_own_images)
            counts = {
                split: {"images": len(index), output_format.many: output_format.count(index)}
                for split, index in splits.items()
            }
            summary = {
                "schema": 1,
                "kind": kind,
                "source": os.path.abspath(source),
                "images": images,
                "splits": counts,
                "left_out": report.problems,
                "notes": report.notes,
            }
            (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    except DataLayoutError as error:
        raise UserError(str(error), file=error.path) from None
    except OSError as error:
        file = str(error.filename or output)
        raise UserError(f"{file}: {error.strerror or error}", file=file) from None
    totals = "; ".join(
        f"{split}: " + ", ".join(f"{number} {noun}" for noun, number in count.items())
        for split, count in counts.items()
    )
    print(f"{output}: {totals}; {len(next(iter(splits.values())).classes)} classes")
    print(f"check: {check_command(output_format.task, output, has_val='val' in splits)}")


def check_command(task: str, output: str, *, has_val: bool) -> str:
    """Return the command that checks the output, as this process was called.

    Args:
        task: name of its launcher.
        output: the data folder.
        has_val: whether it has validation images; otherwise some of train are set aside.
    """
    called = Path(sys.argv[0])
    if called.name.startswith("visionloop-"):
        words = [f"visionloop-{task.replace('_', '-')}"]
    else:
        folder = called.parent if called.name == "convert.py" else Path("bin")
        words = ["python", str(folder / f"{task}.py")]
    words += ["check", "--data", output]
    return shlex.join(words if has_val else [*words, "--val-split", "0.2"])


def _without_empty(
    splits: Mapping[str, Split], report: ConversionReport | None = None
) -> dict[str, Split]:
    """Return the splits that have images; the others become notes, unless problems explain it."""
    empty = [split for split, index in splits.items() if not len(index)]
    if report and not report.problems:
        for split in empty:
            report.add_note(split, "has no image, left out")
    return {split: index for split, index in splits.items() if len(index)}


def refuse_overlap(source: PathLike, output: PathLike) -> None:
    """Raise UserError for an output that holds the source, or that is inside of it.

    The first would be replaced with its output; of the second, most readers would take images and
    annotations for a part of the source the next time.
    """
    source, output = Path(source).resolve(), Path(output).resolve()
    if output in (source, *source.parents):
        raise UserError(
            f"{output}: is or holds the source {source}; choose another output folder",
            field="output",
            file=str(output),
        )
    if source in output.parents:
        raise UserError(
            f"{output}: is inside the source {source}, which is read and never written; choose "
            "another output folder",
            field="output",
            file=str(output),
        )


def check_not_empty(
    source: PathLike, splits: Mapping[str, Split], output_format: OutputFormat[Split]
) -> None:
    """Raise UserError for splits without an image or without an annotation."""
    if not splits:
        raise UserError(f"{source}: no image to convert", field="source", file=str(source))
    if not any(output_format.count(index) for index in splits.values()):
        number = sum(map(len, splits.values()))
        raise UserError(
            f"{source}: {number} images without a single {output_format.one}; expected at least "
            "one to train on",
            field="source",
            file=str(source),
        )


def print_report(report: ConversionReport, skip_broken: bool) -> None:
    """Print notes and problems to stderr, one per line.

    Raises UserError for problems that are not to be skipped.
    """
    for why, places in report.notes.items():
        count = f" ({len(places)} times)" if len(places) > 1 else ""
        print(f"note: {places[0]}: {why}{count}", file=sys.stderr)
    lines = [f"{place}: {why}" for place, why in report.problems]
    if len(lines) == 1 and not skip_broken:
        hint = "add --skip-broken to leave it out"
        raise UserError(lines[0], file=report.problems[0][0], hint=hint)
    for line in lines[:MAX_PRINTED]:
        print(f"{'warning: left out' if skip_broken else 'error'}: {line}", file=sys.stderr)
    if len(lines) > MAX_PRINTED:
        print(f"... and {len(lines) - MAX_PRINTED} more", file=sys.stderr)
    if lines and not skip_broken:
        raise UserError(
            f"{len(lines)} problems, nothing was written; add --skip-broken to leave them out"
        )


def place_images(index: ConvertedSplit, folder: Path, images: str, only_own_images: bool) -> None:
    """Put the images of a split into `folder` under their own relative names.

    images: as for `convert`; with "none" the folder is a link.
    """
    if images == "none":
        if only_own_images:
            refuse_unmatched_files(index)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(os.path.realpath(index.folder), target_is_directory=True)
        return
    for i in tqdm(range(len(index)), desc="images", unit="img", disable=None, leave=False):
        copy_or_link(index.path(i), folder / index.name(i), as_link=images == "link")


def refuse_unmatched_files(index: ConvertedSplit) -> None:
    """Raise UserError for a folder that holds images besides those of the index."""
    own_images = {os.path.normpath(index.path(i)) for i in range(len(index))}
    files = (
        os.path.normpath(os.path.join(level, name))
        for level, names in walk_folder(index.folder)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES)
    )
    unmatched_files = [path for path in files if path not in own_images]
    if unmatched_files:
        raise UserError(
            f"--images none: {index.folder} holds {len(unmatched_files)} images that are not of "
            f"this split, like {os.path.basename(min(unmatched_files))}; use --images link",
            field="images",
            file=index.folder,
        )


def copy_or_link(image: PathLike, target: Path, *, as_link: bool) -> None:
    """Copy an image, or make a symbolic link to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if as_link:
        target.symlink_to(os.path.realpath(image))
    else:
        shutil.copyfile(image, target)
