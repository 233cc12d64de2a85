"""Checkpoint folders of a run on disk: valid, damaged or incomplete."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.checkpoints.folder import STEP_FOLDER, problems, read_state, step_folders
from visionloop.engine.checkpoints.manifest import MANIFEST
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

VALID, DAMAGED, INCOMPLETE = "valid", "damaged", "incomplete"
MARKER_FILES = (MANIFEST, "state.json")  # either makes a folder a checkpoint, even a damaged one
INCOMPLETE_SUFFIXES = (".writing", ".removed")  # step folders being written or removed


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint folder and the state of its files.

    step: None for best/; condition: VALID, DAMAGED or INCOMPLETE; problems: why it is damaged;
    sizes: {relative path: bytes} of all files, sorted; written: time of completion, or of the last
    change of an incomplete folder, in seconds since 1970; content: its state.json, {} if that is
    missing or damaged.
    """

    path: Path
    step: int | None
    condition: str
    problems: list[str]
    sizes: dict[str, int]
    written: float
    content: JsonObject

    @property
    def best(self) -> JsonObject | None:
        """Return {"step", "metric", "score", "scores"} of the best evaluation so far, or None."""
        return self.content.get("best")

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Places:
    """A folder of step folders, and its run folder (None for a copy outside a run)."""

    checkpoints: Path
    run: Path | None


def find_places(path: str | Path) -> Places:
    """Return the Places of a run folder or of its checkpoints/. Raises UserError otherwise."""
    folder = existing_folder(path)
    if (folder / "checkpoints").is_dir() or (folder / "settings.json").is_file():
        return Places(folder / "checkpoints", folder)
    if folder.name == "checkpoints":
        return Places(folder, folder.parent)
    if step_folders(folder):
        return Places(folder, None)
    suggestion = f"; did you mean {folder.parent}?" if is_checkpoint(folder) else ""
    raise UserError(
        f"{path}: expected a run folder or its checkpoints/{suggestion}",
        file=str(path),
        field="path",
    )


def existing_folder(path: str | Path) -> Path:
    """Return the absolute path of a folder. Raises UserError if there is none."""
    folder = Path(os.path.abspath(path))
    if not folder.is_dir():
        raise UserError(
            f"{path}: {'not a folder' if folder.exists() else 'no such folder'}",
            file=str(path),
            field="path",
        )
    return folder


def is_checkpoint(folder: Path) -> bool:
    """Return True for a checkpoint folder or a best/, valid or not."""
    return (
        bool(STEP_FOLDER.match(folder.name))
        or folder.name == "best"
        or any((folder / name).is_file() for name in MARKER_FILES)
    )


def read_folder(path: Path, *, incomplete: bool = False) -> CheckpointFolder:
    """Read and hash all files of a folder, unless it is known to be incomplete."""
    match, manifest = STEP_FOLDER.match(path.name), path / MANIFEST
    damage = [] if incomplete else problems(path)
    return CheckpointFolder(
        path=path,
        step=int(match[1]) if match else None,
        condition=INCOMPLETE if incomplete else DAMAGED if damage else VALID,
        problems=damage,
        sizes=file_sizes(path),
        written=(manifest if manifest.is_file() else path).stat().st_mtime,
        content={}
        if incomplete or any(why.startswith(MARKER_FILES) for why in damage)
        else read_content(path),
    )


def read_content(path: Path) -> JsonObject:
    """Return the state.json; {} for a best/, which has none."""
    return read_state(path) if (path / "state.json").is_file() else {}


def read_folders(checkpoints: Path) -> list[CheckpointFolder]:
    """Read all step folders, sorted by step."""
    return read_present([path for _, path in step_folders(checkpoints)])


def incomplete_folders(checkpoints: Path) -> list[CheckpointFolder]:
    """Return what an interrupted, or running, write or removal has left, sorted by name."""
    return read_present(
        sorted(
            path for path in checkpoints.glob(".step_*") if path.name.endswith(INCOMPLETE_SUFFIXES)
        ),
        incomplete=True,
    )


def read_present(paths: Iterable[Path], *, incomplete: bool = False) -> list[CheckpointFolder]:
    """Read folders, without those that a live run removes in the meantime."""
    folders = []
    for path in paths:
        with suppress(FileNotFoundError):
            folders.append(read_folder(path, incomplete=incomplete))
    return folders


def latest_valid_folder(folders: list[CheckpointFolder]) -> CheckpointFolder | None:
    """Return the folder that the run resumes from: the last valid one, or None."""
    return next((folder for folder in reversed(folders) if folder.condition == VALID), None)


def file_sizes(folder: Path) -> dict[str, int]:
    """Return {path relative to the folder: bytes} of all files, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def format_size(size: float) -> str:
    """Format a number of bytes: "12 bytes", "1.5 MiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
