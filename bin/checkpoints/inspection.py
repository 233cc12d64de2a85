"""`checkpoint inspect`: what one checkpoint holds. Of safetensors files the headers alone are read for it, for the hashes all."""

import json
import math

from safetensors import SafetensorError, safe_open

from visionloop.bin.checkpoints.folders import (
    existing_folder,
    find_places,
    is_checkpoint,
    latest_valid_folder,
    read_folder,
    read_folders,
    show_size,
)
from visionloop.engine.checkpoints.manifest import MANIFEST, read_manifest
from visionloop.engine.errors import UserError

NOT_LISTED = "not in the manifest"


def run_inspect(path, *, as_json):
    """Print step, scores, best, settings, files and the number of weights of a checkpoint, as lines or one object."""
    facts = describe(choose_folder(path))
    print(json.dumps(facts) if as_json else "\n".join(as_lines(facts)))


def choose_folder(path):
    """The CheckpointFolder to show: the path's own, or the newest whole one of a run. Raises UserError where there is none."""
    folder = existing_folder(path)
    if is_checkpoint(folder):
        return read_folder(folder)
    newest = latest_valid_folder(read_folders(find_places(path).checkpoints))
    if newest is None:
        raise UserError(f"{path}: no checkpoint there is whole", file=str(path), field="path")
    return newest


def describe(found):
    """{field: value} of a CheckpointFolder."""
    content, files = found.content, describe_files(found)
    weights = {
        name: count_numbers(found.path / name) for name in files if name.endswith(".safetensors")
    }
    for name, count in weights.items():
        files[name]["numbers"] = count
    models = [
        count for name, count in weights.items() if name.startswith("model")
    ]  # one, or several of a large model
    return {
        "folder": str(found.path),
        "condition": found.condition,
        "step": content.get("step", found.step),
        "task": content.get("task"),
        "parameters": sum(models) if models and None not in models else None,
        "scores": content.get("scores") or {},
        "evaluated_at": content.get("evaluated_at"),
        "best": found.best,
        "pieces": len(content["pieces"]) if "pieces" in content else None,
        "bytes": found.size,
        "files": files,
        "settings": content.get("settings") or {},
    }


def describe_files(found):
    """{name: {"bytes", "condition"}} of what lies in the folder or should: whole, what is wrong with it, or not in the manifest."""
    manifest = read_manifest(found.path)
    listed = manifest["files"] if manifest else {}
    conditions = {
        name: "whole" if name in listed else NOT_LISTED for name in found.sizes if name != MANIFEST
    }
    conditions |= {
        name: why for name, _, why in (problem.partition(": ") for problem in found.problems)
    }
    return {
        name: {"bytes": found.sizes.get(name, 0), "condition": why}
        for name, why in conditions.items()
    }


def count_numbers(path):
    """How many numbers a safetensors file holds, from its header; None where it is none."""
    try:
        with safe_open(path, framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - it has no iterator
    except (OSError, SafetensorError):
        return None


def as_lines(facts):
    """The same for people."""
    best, parameters = facts["best"], facts["parameters"]
    lines = [
        f"{facts['folder']}: {facts['condition']}",
        f"step        {show(facts['step'])}",
        f"task        {show(facts['task'])}",
        # BatchNorm statistics lie among the weights
        f"parameters  {'-' if parameters is None else format(parameters, ',')}, in model.safetensors, with buffers",
        f"best        {best['metric']} {best['score']:.4f} at step {best['step']}"
        if best
        else "best        none yet",
        f"pieces      {show(facts['pieces'])} of a global batch",
        f"evaluated   at step {show(facts['evaluated_at'])}",
        *(f"  {name}: {show(value)}" for name, value in facts["scores"].items()),
        f"files       {show_size(facts['bytes'])}",
    ]
    for name, file in facts["files"].items():
        numbers = f", {file['numbers']:,} numbers" if file.get("numbers") is not None else ""
        lines.append(f"  {name}: {show_size(file['bytes'])}{numbers}, {file['condition']}")
    lines.append("settings that must not change" + ("" if facts["settings"] else ": none"))
    return lines + [f"  {name}: {json.dumps(value)}" for name, value in facts["settings"].items()]


def show(value):
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
