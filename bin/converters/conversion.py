"""From a source that is read to an output folder that is whole: what all converters share."""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from visionloop.bin.commands.output import whole_folder
from visionloop.bin.converters.coco_json import write_coco
from visionloop.datasets.layout import DataLayoutError
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


def convert(kind, read, source, output, *, pictures, skip_broken):
    """Write `output` from what `read(source, findings)` gives: {split: DetectionIndex} with the same classes.

    pictures: "copy" or "link" them to <output>/<split>/, or "none": <output>/<split> is then a link to the folder they lie in. Raises
    UserError; without `skip_broken` also when anything was found broken, and nothing is written then.
    """
    refuse_overlap(source, output)
    findings = Findings()
    try:
        with whole_folder(output, MARK) as folder:
            splits = read(source, findings)
            tell(findings, skip_broken)
            splits = {split: index for split, index in splits.items() if len(index)}
            check_not_empty(source, splits)
            write_splits(splits, folder, pictures)
            counts = {split: {"pictures": len(index), "boxes": len(index.boxes)} for split, index in splits.items()}
            mark = {"schema": 1, "kind": kind, "source": os.path.abspath(source), "pictures": pictures, "splits": counts}
            (folder / MARK).write_text(json.dumps(mark | {"left_out": findings.problems}, indent=1) + "\n")
    except DataLayoutError as error:
        raise UserError(str(error), file=error.path) from None
    except OSError as error:
        raise UserError(f"{error.filename or output}: {error.strerror or error}", file=str(error.filename or output)) from None
    shown = "; ".join(f"{split}: {count['pictures']} pictures, {count['boxes']} boxes" for split, count in counts.items())
    print(f"{output}: {shown}; {len(next(iter(splits.values())).classes)} classes")


def refuse_overlap(source, output):
    """An output that holds the source would be replaced together with it."""
    source, output = Path(source).resolve(), Path(output).resolve()
    if output in (source, *source.parents):
        raise UserError(f"{output}: is or holds the source {source}; choose another output folder", field="output", file=str(output))


def check_not_empty(source, splits):
    """There is something to be learned from, or UserError."""
    if not splits:
        raise UserError(f"{source}: not one picture to convert", field="source", file=str(source))
    if not any(len(index.boxes) for index in splits.values()):
        raise UserError(f"{source}: {sum(map(len, splits.values()))} pictures, but not one box", field="source", file=str(source))


def tell(findings, skip_broken):
    """Notes and problems on stderr, one a line. Raises UserError when there are problems and they are not to be skipped."""
    for why, places in findings.notes.items():
        print(f"note: {places[0]}: {why}" + (f" ({len(places)} such)" if len(places) > 1 else ""), file=sys.stderr)
    problems = [f"{place}: {why}" for place, why in findings.problems]
    if len(problems) == 1 and not skip_broken:
        raise UserError(problems[0], file=findings.problems[0][0], hint="--skip-broken leaves it out")
    for line in problems[:MOST_SHOWN]:
        print(f"{'warning: left out' if skip_broken else 'error'}: {line}", file=sys.stderr)
    if len(problems) > MOST_SHOWN:
        print(f"... and {len(problems) - MOST_SHOWN} more", file=sys.stderr)
    if problems and not skip_broken:
        raise UserError(f"{len(problems)} problems, nothing was written; --skip-broken leaves them out")


def write_splits(splits, folder, pictures):
    """`<split>.json`, and `<split>/` with the pictures under their own relative names."""
    with tqdm(total=sum(map(len, splits.values())), desc="converting", unit="pic", disable=None, leave=False) as bar:
        for split, index in splits.items():
            write_coco(folder / f"{split}.json", index)
            if pictures == "none":
                (folder / split).symlink_to(os.path.realpath(index.folder), target_is_directory=True)
                continue
            for i in range(len(index)):
                deliver(index.path(i), folder / split / index.name(i), as_link=pictures == "link")
                bar.update()


def deliver(picture, target, *, as_link):
    """Copy a picture, or make a symbolic link to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if as_link:
        target.symlink_to(os.path.realpath(picture))
    else:
        shutil.copyfile(picture, target)
