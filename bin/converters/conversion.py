"""From a source that is read to an output folder that is whole: what all converters share."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from visionloop.bin.commands.output import whole_folder
from visionloop.datasets.io.images import IMAGE_SUFFIXES
from visionloop.datasets.io.layout import DataLayoutError, is_hidden
from visionloop.engine.errors import UserError

MARK = "convert.json"
MOST_SHOWN = 20  # problems on the terminal; with --skip-broken all of them are in convert.json


@dataclass
class Findings:
    """What a reader has to tell. problems: [(place, why)] of what cannot be taken over; notes: {why: [places]} of what was mended."""

    problems: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    def problem(self, place, why):
        self.problems.append((str(place), why))

    def note(self, place, why):
        self.notes.setdefault(why, []).append(str(place))


@dataclass(frozen=True)
class Form:
    """What a conversion writes beside the images.

    annotate(splits, folder, findings) -> {split: index}: writes the annotations and gives what can
    be taken over of each split; an index has `folder`, `classes`, `name(i)`, `path(i)` and a
    length; count(index): of what there is to learn from, called `one` and `many`; images: where
    in the output those of a split lie; whole_folders: no others may lie there.
    """

    annotate: Callable
    count: Callable
    one: str
    many: str
    images: str = "{}"
    whole_folders: bool = False


def convert(kind, read, form, source, output, *, images, skip_broken):
    """Write `output` in a Form from what `read(source, findings)` gives: {split: index} with the same classes.

    images: "copy" or "link" them to the form's folder of the split, or "none": that folder is
    then a link to the one they lie in. Raises UserError; without `skip_broken` also when anything
    was found broken, and nothing is written then.
    """
    refuse_overlap(source, output)
    findings = Findings()
    try:
        with whole_folder(output, MARK) as folder:
            splits = form.annotate(
                {split: index for split, index in read(source, findings).items() if len(index)},
                folder,
                findings,
            )
            tell(findings, skip_broken)
            splits = {split: index for split, index in splits.items() if len(index)}
            check_not_empty(source, splits, form)
            for split, index in splits.items():
                deliver_images(
                    index, folder / form.images.format(split), images, form.whole_folders
                )
            counts = {
                split: {"images": len(index), form.many: form.count(index)}
                for split, index in splits.items()
            }
            mark = {
                "schema": 1,
                "kind": kind,
                "source": os.path.abspath(source),
                "images": images,
                "splits": counts,
            }
            (folder / MARK).write_text(
                json.dumps(mark | {"left_out": findings.problems}, indent=1) + "\n"
            )
    except DataLayoutError as error:
        raise UserError(str(error), file=error.path) from None
    except OSError as error:
        raise UserError(
            f"{error.filename or output}: {error.strerror or error}",
            file=str(error.filename or output),
        ) from None
    shown = "; ".join(
        f"{split}: " + ", ".join(f"{number} {what}" for what, number in count.items())
        for split, count in counts.items()
    )
    print(f"{output}: {shown}; {len(next(iter(splits.values())).classes)} classes")


def refuse_overlap(source, output):
    """An output that holds the source would be replaced together with it."""
    source, output = Path(source).resolve(), Path(output).resolve()
    if output in (source, *source.parents):
        raise UserError(
            f"{output}: is or holds the source {source}; choose another output folder",
            field="output",
            file=str(output),
        )


def check_not_empty(source, splits, form):
    """There is something to be learned from, or UserError."""
    if not splits:
        raise UserError(f"{source}: not one image to convert", field="source", file=str(source))
    if not any(form.count(index) for index in splits.values()):
        number = sum(map(len, splits.values()))
        raise UserError(
            f"{source}: {number} images, but not one {form.one}", field="source", file=str(source)
        )


def tell(findings, skip_broken):
    """Notes and problems on stderr, one a line. Raises UserError when there are problems and they are not to be skipped."""
    for why, places in findings.notes.items():
        print(
            f"note: {places[0]}: {why}" + (f" ({len(places)} such)" if len(places) > 1 else ""),
            file=sys.stderr,
        )
    problems = [f"{place}: {why}" for place, why in findings.problems]
    if len(problems) == 1 and not skip_broken:
        raise UserError(
            problems[0], file=findings.problems[0][0], hint="--skip-broken leaves it out"
        )
    for line in problems[:MOST_SHOWN]:
        print(f"{'warning: left out' if skip_broken else 'error'}: {line}", file=sys.stderr)
    if len(problems) > MOST_SHOWN:
        print(f"... and {len(problems) - MOST_SHOWN} more", file=sys.stderr)
    if problems and not skip_broken:
        raise UserError(
            f"{len(problems)} problems, nothing was written; --skip-broken leaves them out"
        )


def deliver_images(index, folder, how, whole_folder):
    """The images of a split under their own relative names in `folder`, which is a link for "none"."""
    if how == "none":
        if whole_folder:
            refuse_unmatched_files(index)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(os.path.realpath(index.folder), target_is_directory=True)
        return
    for i in tqdm(range(len(index)), desc="images", unit="pic", disable=None, leave=False):
        deliver(index.path(i), folder / index.name(i), as_link=how == "link")


def refuse_unmatched_files(index):
    """The folder of an index holds its images alone, or UserError."""
    known = {os.path.normpath(index.path(i)) for i in range(len(index))}
    files = (
        os.path.normpath(os.path.join(level, name))
        for level, _, names in os.walk(index.folder)
        for name in names
    )
    images = (
        path
        for path in files
        if path.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(os.path.basename(path))
    )
    unmatched_files = [path for path in images if path not in known]
    if unmatched_files:
        why = f"--images none: {index.folder} holds {len(unmatched_files)} images that are not of this split"
        raise UserError(
            f"{why}, like {os.path.basename(min(unmatched_files))}; use --images link",
            field="images",
            file=index.folder,
        )


def deliver(image, target, *, as_link):
    """Copy an image, or make a symbolic link to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if as_link:
        target.symlink_to(os.path.realpath(image))
    else:
        shutil.copyfile(image, target)
