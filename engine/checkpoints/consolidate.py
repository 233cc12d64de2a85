"""A whole checkpoint from the shards of a sharded one, written tensor by tensor."""

from __future__ import annotations

import shutil
from collections import ChainMap
from pathlib import Path

from visionloop.engine.checkpoints.folder import write_folder
from visionloop.engine.checkpoints.manifest import read_manifest
from visionloop.engine.checkpoints.stored_tensors import SHARD_FILE, StoredTensors, is_sharded
from visionloop.engine.checkpoints.weight_files import (
    layouts_of,
    write_streamed,
    write_weights,
)
from visionloop.engine.checkpoints.writer import load_tensors

EXTRA = "extra.safetensors"  # of a sharded checkpoint: what `Task.save` adds to the weights


def consolidate(source: Path, target: Path) -> None:
    """Write a sharded checkpoint as a whole one, as a run that is not sharded writes it.

    The weights go into model.safetensors, or into several files with an index above 5 GB, as
    transformers reads them; moments and EMA into one file each, which only training reads. Weights
    have their names in the module, a tied one its first.

    Args:
        source: a valid sharded checkpoint.
        target: the new folder, which appears when it is complete.

    Raises:
        ValueError: a shard cannot be understood.
        OSError: a file cannot be read or written.
    """
    manifest = read_manifest(source)
    assert manifest is not None, "the checkpoint is valid"
    others = [name for name in manifest["files"] if not SHARD_FILE.fullmatch(name)]

    def fill(folder: Path) -> None:
        for name in others:
            if name != EXTRA:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        extra = load_tensors(source / EXTRA) if EXTRA in others else {}
        with StoredTensors(source, "weights") as weights:
            write_weights(folder, ChainMap(extra, weights))  # type: ignore[arg-type]  # only read
        for kind in ("optimizer", "ema"):
            if is_sharded(source, kind):
                with StoredTensors(source, kind) as stored:
                    write_streamed(folder / f"{kind}.safetensors", stored, layouts_of(stored))

    write_folder(target, fill)
