"""`predict`, the same for every task."""

import json
import os
import sys
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
SHEET_SIDE, SHEET_MOST = 200, 100  # of a picture on the contact sheet, and how many it shows


def run_predict(task_class, *, model, input_path, output, batch_size, device, as_json, explanations):
    """Write predictions.jsonl, the task's own files, pictures/, contact_sheet.png and a folder per explanation. Returns the exit code.

    A picture that cannot be read is named on stderr and has a line {"file", "error"}; the others go on, and the exit code is 2.
    """
    root, names = find_pictures(input_path)
    task, module = task_class.load_trained(model)
    device = pick_device(device)
    module.to(device)
    unreadable, sheets = 0, {}
    with whole_folder(output, LINES) as folder, open(folder / LINES, "w") as lines, _bar(len(names)) as bar:
        for start in range(0, len(names), batch_size):
            chunk = names[start : start + batch_size]
            rows, drawn = answer(task, module, root, chunk, device, explanations)
            for name, row in zip(chunk, rows, strict=True):
                lines.write(json.dumps(row) + "\n")
                if as_json:
                    print(json.dumps(row))
                if "error" in row:
                    unreadable += 1
                    tqdm.write(f"error: {root / name}: {row['error']}", file=sys.stderr)
            for kind, pictures in drawn.items():
                save_pictures(folder / kind, pictures)
                sheet = sheets.setdefault(kind, [])
                sheet += [fit_to(picture, longest=SHEET_SIDE) for picture in pictures.values()][: SHEET_MOST - len(sheet)]
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
    """(one row per name, {"pictures" or kind of explanation: {name: uint8 [H, W, 3]}}) of one batch of files."""
    samples, readable, rows = [], [], {}
    for i, name in enumerate(names):
        try:
            samples.append(task.read_sample(root / name) | {"sample_id": torch.tensor(i)})
            readable.append(name)
        except OSError as error:
            rows[name] = {"file": name, "error": getattr(error, "why", None) or error.strerror or str(error)}
    if not samples:
        return [rows[name] for name in names], {}
    batch = task.collate_eval(samples).to(device)
    answers = task.describe_predictions(batch, task.predict(module, batch), readable)
    rows |= {row["file"]: row for row in answers}
    drawn = {"pictures": task.draw_answers([root / name for name in readable], answers)}
    drawn |= {kind: task.explain(module, batch, kind) for kind in explanations}
    return [rows[name] for name in names], {kind: dict(zip(readable, pictures, strict=True)) for kind, pictures in drawn.items()}


def save_pictures(folder, pictures):
    """Each under its own relative name, in its own format."""
    for name, picture in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
