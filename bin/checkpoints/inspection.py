"""`checkpoint inspect`: the contents of one checkpoint.

Of safetensors files, the headers give the contents; the hashes need every byte.
"""

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from visionloop.bin.checkpoints.folders import (
    CheckpointFolder,
    existing_folder,
    find_places,
    format_size,
    is_checkpoint,
    latest_valid_folder,
    read_folder,
    read_folders,
)
from visionloop.engine.checkpoints.manifest import MANIFEST, read_manifest
from visionloop.engine.errors import UserError
from visionloop.engine.types import JsonObject

NOT_LISTED = "not in the manifest"
# how files of weights begin: whole ones, shards, and what a task adds to shards
WEIGHTS = ("model", "weights-", "extra")


def run_inspect(path: str, *, as_json: bool) -> None:
    """Print step, scores, best, settings, files and number of weights, as lines or JSON."""
    description = describe(choose_folder(path))
    print(json.dumps(description) if as_json else "\n".join(lines_of(description)))


def choose_folder(path: str) -> CheckpointFolder:
    """Return the checkpoint at `path`, or the latest valid one of a run, or raise UserError."""
    folder = existing_folder(path)
    if is_checkpoint(folder):
        return read_folder(folder)
    newest = latest_valid_folder(read_folders(find_places(path).checkpoints))
    if newest is None:
        raise UserError(f"{path}: no valid checkpoint", file=str(path), field="path")
    return newest


def describe(folder: CheckpointFolder) -> JsonObject:
    """Return {field: value} of a checkpoint."""
    content, files = folder.content, describe_files(folder)
    counts = {
        name: count_elements(folder.path / name) for name in files if name.endswith(".safetensors")
    }
    for name, count in counts.items():
        files[name]["numbers"] = None if count is None else sum(count.values())
    # one file, several of a large model, or one of each shard
    models = {name: count for name, count in counts.items() if name.startswith(WEIGHTS)}
    known = [count for count in models.values() if count is not None]
    is_known = len(known) == len(models) > 0
    return {
        "folder": str(folder.path),
        "condition": folder.condition,
        "step": content.get("step", folder.step),
        "task": content.get("task"),
        "parameters": sum(sum(count.values()) for count in known) if is_known else None,
        # a tensor has rows in several shards
        "tensors": len(set().union(*known)) if is_known else None,
        "shards": sum(name.startswith("weights") for name in models) or None,
        "scores": content.get("scores") or {},
        "evaluated_at": content.get("evaluated_at"),
        "best": folder.best,
        "micro_batches": len(content["micro_batches"]) if "micro_batches" in content else None,
        "bytes": folder.size,
        "files": files,
        "settings": content.get("settings") or {},
    }


def describe_files(folder: CheckpointFolder) -> dict[str, JsonObject]:
    """Return {name: {"bytes", "condition"}} of the files that are, or should be, in the folder.

    condition: "valid", the problem, or NOT_LISTED.
    """
    manifest = read_manifest(folder.path)
    listed = manifest["files"] if manifest else {}
    conditions = {
        name: "valid" if name in listed else NOT_LISTED for name in folder.sizes if name != MANIFEST
    }
    conditions |= {
        name: why for name, _, why in (problem.partition(": ") for problem in folder.problems)
    }
    return {
        name: {"bytes": folder.sizes.get(name, 0), "condition": why}
        for name, why in conditions.items()
    }


def count_elements(path: Path) -> dict[str, int] | None:
    """Return {tensor: number of elements} of a safetensors file, from its header, or None."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return {name: math.prod(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError):
        return None


def lines_of(description: JsonObject) -> list[str]:
    """Format a description as lines of text."""
    best, parameters = description["best"], description["parameters"]
    tensors, shards = description["tensors"], description["shards"]
    place = "model.safetensors" if shards is None else f"{shards} shard(s)"
    lines = [
        f"{description['folder']}: {description['condition']}",
        f"step        {show(description['step'])}",
        f"task        {show(description['task'])}",
        # BatchNorm statistics are among the weights
        f"parameters  {'-' if parameters is None else format(parameters, ',')}"
        f" in {show(tensors)} tensors of {place}, with buffers",
        f"best        {best['metric']} {best['score']:.4f} at step {best['step']}"
        if best
        else "best        none yet",
        f"micro-batches of a batch  {show(description['micro_batches'])}",
        f"evaluated   at step {show(description['evaluated_at'])}",
        *(f"  {name}: {show(value)}" for name, value in description["scores"].items()),
        f"files       {format_size(description['bytes'])}",
    ]
    for name, file in description["files"].items():
        numbers = f", {file['numbers']:,} numbers" if file.get("numbers") is not None else ""
        lines.append(f"  {name}: {format_size(file['bytes'])}{numbers}, {file['condition']}")
    lines.append("settings that must not change" + ("" if description["settings"] else ": none"))
    return lines + [
        f"  {name}: {json.dumps(value)}" for name, value in description["settings"].items()
    ]


def show(value: object) -> str:
    """Format a value; None as "-", floats with four digits."""
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
