"""`checkpoint consolidate`: a whole checkpoint from the shards of a sharded one."""

import os
from pathlib import Path

from safetensors import SafetensorError

from visionloop.bin.checkpoints.folders import (
    DAMAGED,
    CheckpointFolder,
    file_sizes,
    format_size,
)
from visionloop.bin.checkpoints.inspection import choose_folder
from visionloop.engine.checkpoints.consolidate import consolidate
from visionloop.engine.checkpoints.stored_tensors import is_sharded
from visionloop.engine.errors import UserError


def run_consolidate(path: str, output: str) -> None:
    """Write the checkpoint at `path`, or the latest valid one of a run, whole to `output`.

    Raises UserError for a checkpoint that is damaged or not sharded, and for an output that exists
    or cannot be written.
    """
    folder, target = choose_folder(path), Path(os.path.abspath(output))
    require_sharded(folder, path)
    if os.path.lexists(target):
        why = "exists; expected a folder that is not there yet"
        raise UserError(f"{output}: {why}", file=str(output), field="output")
    if target.is_relative_to(folder.path):
        why = "lies in the checkpoint, which is not changed; expected a folder elsewhere"
        raise UserError(f"{output}: {why}", file=str(output), field="output")
    try:
        consolidate(folder.path, target)
    except OSError as error:
        why = f"cannot be written ({error.strerror or error})"
        raise UserError(f"{output}: {why}", file=str(output), field="output") from None
    except (SafetensorError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{folder.path}: {why}", file=str(folder.path), field="path") from None
    sizes = file_sizes(target)
    total = format_size(sum(sizes.values()))
    print(f"{target}: step {folder.content['step']}, {len(sizes)} files, {total}")


def require_sharded(folder: CheckpointFolder, path: str) -> None:
    """Raise UserError unless the checkpoint is valid and sharded."""
    if folder.condition == DAMAGED:
        why = f"damaged ({folder.problems[0]}); expected a valid checkpoint"
        raise UserError(f"{folder.path}: {why}", file=str(folder.path), field="path")
    if not is_sharded(folder.path, "weights"):
        why = "is whole already; expected a checkpoint of a run with --shard"
        raise UserError(f"{folder.path}: {why}", file=str(folder.path), field="path")
