"""`predict`, the same for every task."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from visionloop.bin.commands.output import whole_folder
from visionloop.datasets.pictures import PICTURE_SUFFIXES
from visionloop.engine.distributed import pick_device
from visionloop.engine.errors import FINISHED, USER_ERROR, UserError
from visionloop.tasks.canvas import fit_to, grid

LINES = "predictions.jsonl"
SHEET_MOST = 100  # pictures on the contact sheet


def run_predict(task_class, *, model, input_path, output, batch_size, device, as_json, explanations, settings):
    """Write predictions.jsonl, the task's own files, pictures/, contact_sheet.png and a folder per explanation. Returns the exit code.

    Where answers are pictures themselves, they lie in folders of the task's naming, as PNG. settings: {name: value} of the task's own, for
    `Task.load_trained`.

    A picture that cannot be read is named on stderr and has a line {"file", "error"}; the others go on, and the exit code is 2.
    """
    root, names = find_pictures(input_path)
    task, module = task_class.load_trained(model, **settings)
    device = pick_device(device)
    module.to(device)
    unreadable, sheets, png_names = 0, {}, name_pngs(names)
    with whole_folder(output, LINES) as folder, open(folder / LINES, "w") as lines, _bar(len(names)) as bar:
        for start in range(0, len(names), batch_size):
            chunk = names[start : start + batch_size]
            rows, drawn, made = answer(task, module, root, chunk, device, explanations)
            for name, row in zip(chunk, rows, strict=True):
                lines.write(json.dumps(row) + "\n")
                if as_json:
                    print(json.dumps(row))
                if "error" in row:
                    unreadable += 1
                    tqdm.write(f"error: {root / name}: {row['error']}", file=sys.stderr)
            for kind, pictures in made.items():
                for name, picture in pictures:
                    save_picture(folder / kind / png_names[name], picture)
            for kind, pictures in drawn.items():
                sheet = sheets.setdefault(kind, [])
                for name, picture in pictures:
                    save_picture(folder / kind / name, picture)
                    if len(sheet) < SHEET_MOST:
                        sheet.append(fit_to(picture, longest=task.sheet_side))
            bar.update(len(chunk))
        lines.flush()
        task.write_answers(folder, WrittenAnswers(folder / LINES))
        for kind, pictures in sheets.items():
            name = "contact_sheet.png" if kind == "pictures" else f"{kind}_sheet.png"
            Image.fromarray(grid(pictures)).save(folder / name)
    print(f"{len(names) - unreadable} of {len(names)} pictures answered: {Path(output) / LINES}", file=sys.stderr)
    return USER_ERROR if unreadable else FINISHED


def _bar(total):
    return tqdm(total=total, desc="predicting", unit="pic", disable=None, leave=False)


class WrittenAnswers:
    """The rows of a predictions.jsonl, without those of unreadable pictures. Read anew at each pass: a million of them need no memory."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        with open(self.path) as lines:
            yield from (row for row in map(json.loads, lines) if "error" not in row)


def find_pictures(input_path):
    """(root folder, names relative to it, sorted). Raises UserError when there is no picture."""
    path = Path(input_path)
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise UserError(f"--input {path}: no such file or folder", field="input", file=str(path))
    names = []
    for where, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [os.path.relpath(os.path.join(where, name), path) for name in files if name.lower().endswith(PICTURE_SUFFIXES)]
    if not names:
        raise UserError(f"--input {path}: no pictures in it ({' '.join(PICTURE_SUFFIXES)})", field="input", file=str(path))
    return path, sorted(name for name in names if not os.path.basename(name).startswith("."))


@torch.no_grad()
def answer(task, module, root, names, device, explanations):
    """(one row per name, {"pictures" or kind of explanation: (name, uint8 [H, W, 3]) of each}, {folder: (name, picture) of each}) of files.

    Pictures may be made only as they are asked for: large ones need not lie in memory together.
    """
    samples, readable, rows = [], [], {}
    for i, name in enumerate(names):
        try:
            samples.append(task.read_sample(root / name) | {"sample_id": torch.tensor(i)})
            readable.append(name)
        except OSError as error:
            rows[name] = {"file": name, "error": getattr(error, "why", None) or error.strerror or str(error)}
    if not samples:
        return [rows[name] for name in names], {}, {}
    batch = task.collate_eval(samples).to(device)
    predictions = task.predict(module, batch)
    answers = task.describe_predictions(batch, predictions, readable)
    rows |= {row["file"]: row for row in answers}
    paths = [root / name for name in readable]
    drawn = {"pictures": task.draw_answers(paths, answers, predictions)}
    drawn |= {kind: task.explain(module, batch, kind) for kind in explanations}
    both = [
        {kind: zip(readable, pictures, strict=True) for kind, pictures in kinds.items()}
        for kinds in (drawn, task.answer_pictures(paths, predictions))
    ]
    return [rows[name] for name in names], *both


def name_pngs(names):
    """{name: the same with .png in the place of its suffix, or behind it where another file would have the same name}."""
    stems = {name: os.path.splitext(name)[0] for name in names}
    count = Counter(stems.values())
    count.update(names)  # a.jpg.jpg beside a.jpg and a.png
    return {name: (stem if count[stem] == 1 else name) + ".png" for name, stem in stems.items()}


def save_picture(path, picture):
    """In the format that the suffix names. picture: uint8 array [H, W] or [H, W, 3], or a Pillow image with what its `info` holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    exif = {"exif": image.info["exif"]} if "exif" in image.info else {}  # unlike the ICC profile, Pillow takes it as an argument alone
    image.save(path, **exif)
