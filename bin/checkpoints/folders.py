"""The checkpoint folders of a run as they lie on the disk: whole, damaged, or left half-written."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.checkpoints.folder import STEP_FOLDER, problems, read_state, step_folders
from visionloop.engine.checkpoints.manifest import MANIFEST
from visionloop.engine.errors import UserError

WHOLE, DAMAGED, HALF_WRITTEN = "whole", "damaged", "half-written"
MARKS = (MANIFEST, "state.json")  # either makes a folder a checkpoint, even a damaged one
HIDDEN = (".writing", ".removed")  # step folders on their way in or out


@dataclass(frozen=True)
class CheckpointFolder:
    """One folder. step: None of best/; problems: why it is damaged; sizes: {relative path: bytes} of all its files, sorted.

    written: when it was completed, or when its folder last changed, seconds since 1970; content:
    its state.json, {} where that is missing or not to be trusted.
    """

    path: Path
    step: int | None
    condition: str
    problems: list
    sizes: dict
    written: float
    content: dict

    @property
    def best(self):
        """{"step", "metric", "score", "scores"} of the best so far, or None."""
        return self.content.get("best")

    @property
    def size(self):
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Places:
    """Where to look. checkpoints: folder of step folders; run: the run it belongs to, None for a copy that lies elsewhere."""

    checkpoints: Path
    run: Path | None


def find_places(path):
    """The Places of a run's folder, or of its checkpoints/. Raises UserError for any other folder."""
    folder = existing_folder(path)
    if (folder / "checkpoints").is_dir() or (folder / "settings.json").is_file():
        return Places(folder / "checkpoints", folder)
    if folder.name == "checkpoints":
        return Places(folder, folder.parent)
    if step_folders(folder):
        return Places(folder, None)
    did_you_mean = f"; did you mean {folder.parent}?" if is_checkpoint(folder) else ""
    raise UserError(
        f"{path}: neither a run's folder nor its checkpoints/{did_you_mean}",
        file=str(path),
        field="path",
    )


def existing_folder(path):
    """The absolute path of a folder. Raises UserError where there is none."""
    folder = Path(os.path.abspath(path))
    if not folder.is_dir():
        raise UserError(
            f"{path}: {'not a folder' if folder.exists() else 'no such folder'}",
            file=str(path),
            field="path",
        )
    return folder


def is_checkpoint(folder):
    """True for a checkpoint folder or a best/, whole or not."""
    return (
        bool(STEP_FOLDER.match(folder.name))
        or folder.name == "best"
        or any((folder / name).is_file() for name in MARKS)
    )


def read_folder(path, *, half_written=False):
    """The CheckpointFolder of a path; reads all of its files unless it is known to be half-written."""
    match, manifest = STEP_FOLDER.match(path.name), path / MANIFEST
    wrong = [] if half_written else problems(path)
    return CheckpointFolder(
        path=path,
        step=int(match[1]) if match else None,
        condition=HALF_WRITTEN if half_written else DAMAGED if wrong else WHOLE,
        problems=wrong,
        sizes=file_sizes(path),
        written=(manifest if manifest.is_file() else path).stat().st_mtime,
        content={}
        if half_written or any(why.startswith(MARKS) for why in wrong)
        else read_content(path),
    )


def read_content(path):
    """The state.json; {} of a best/, which has none."""
    return read_state(path) if (path / "state.json").is_file() else {}


def read_folders(checkpoints):
    """[CheckpointFolder] of all step folders, by step."""
    return read_present([path for _, path in step_folders(checkpoints)])


def half_written_folders(checkpoints):
    """[CheckpointFolder] of what a write or a removal left behind that was stopped, or is going on, by name."""
    return read_present(
        sorted(path for path in checkpoints.glob(".step_*") if path.name.endswith(HIDDEN)),
        half_written=True,
    )


def read_present(paths, **options):
    """[CheckpointFolder] without those that the run, which may be going on, removes in between."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(read_folder(path, **options))
    return found


def latest_valid_folder(folders):
    """The last whole one of [CheckpointFolder], or None: what the run goes on from."""
    return next((found for found in reversed(folders) if found.condition == WHOLE), None)


def file_sizes(folder):
    """{path relative to the folder: bytes} of its files, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def show_size(size):
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
