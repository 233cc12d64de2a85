"""`health`, the same for every task: a check of this machine or container.

No torch here: it may be what is broken.
"""

import contextlib
import importlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from packaging.requirements import Requirement

from visionloop.engine.errors import DEFECT, FINISHED, UserError
from visionloop.engine.system.shared_memory import FOLDER, low_shared_memory, shared_memory_gib

if TYPE_CHECKING:
    from visionloop.engine.types import JsonObject

T = TypeVar("T")

GIB = 2**30
# modules that are not called like their distribution
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage"}
# GiB in the current folder: less holds no checkpoint of any model but the tiny ones
MIN_FREE_DISK = 0.1
LOW_FREE_DISK = 5  # GiB: a few checkpoints of the larger models


def run_health(load_task_class: Callable[[], object], device: str | None, *, as_json: bool) -> int:
    """Print the state of the machine and every problem. Returns the exit code, 1 with an error.

    device: of `--device`; None: the first of CUDA, MPS and CPU.
    """
    report = {"usable": True, "errors": [], "warnings": [], "python": platform.python_version()}
    report["versions"], report["precision"] = check_versions(report), None
    check_imports(report, load_task_class)
    report["devices"] = check_devices(report, device)
    report["disks"] = {use: check_disk(report, use, folder) for use, folder in folders().items()}
    report["shared_memory_gib"] = check_shared_memory(report)
    report["usable"] = not report["errors"]
    print(json.dumps(report) if as_json else "\n".join(lines_of(report)))
    return FINISHED if report["usable"] else DEFECT


def check_versions(report: "JsonObject") -> dict[str, str | None]:
    """Return {distribution: version, or None if it is missing} of what the package requires.

    An error for each that is missing or of another version than required.
    """
    try:
        required = metadata.requires("visionloop") or []
    except metadata.PackageNotFoundError:
        report["warnings"].append(
            "visionloop is not installed as a package: the versions that it needs are unknown"
        )
        return {}
    versions: dict[str, str | None] = {"visionloop": metadata.version("visionloop")}
    for requirement in map(Requirement, required):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[requirement.name] = version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            versions[requirement.name] = None
            report["errors"].append(f"{requirement.name}: not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            report["errors"].append(
                f"{requirement.name}: version {version}, expected {requirement.specifier}"
            )
    return versions


def check_imports(report: "JsonObject", load_task_class: Callable[[], object]) -> None:
    """Import every installed distribution, and the task; an error for each that fails."""
    for name, version in report["versions"].items():
        if version is not None:
            module = MODULES.get(name.lower(), name.replace("-", "_"))
            _try(report, name, partial(importlib.import_module, module))
    _try(report, "the task", load_task_class)


def _try(report: "JsonObject", name: str, action: Callable[[], T]) -> T | None:
    """Return the result of the action; if it fails, None, with an error in the report."""
    try:
        return action()
    except Exception as error:  # broken binaries raise anything
        first_line = (str(error).splitlines() or [""])[0]
        report["errors"].append(f"{name}: {type(error).__name__}: {first_line}")
        return None


def check_devices(report: "JsonObject", name: str | None) -> "list[JsonObject]":
    """Return [{"name", "kind", "memory_gib"}] of every device that torch finds.

    With "cpu" GPUs are left out. The chosen one multiplies two matrices, to see that it works.
    """
    return _try(report, "devices", lambda: find_devices(report, name)) or []


def find_devices(report: "JsonObject", name: str | None) -> "list[JsonObject]":
    """Return the devices; an error for a chosen one that is not there. Needs torch.

    name: of --device; with "cpu" no GPU is looked at, since that would take some of its memory.
    """
    import torch

    from visionloop.engine.distributed import pick_device
    from visionloop.engine.system.kernels import LayerWidths, choose_precision

    devices: list[JsonObject] = []
    for index in range(torch.cuda.device_count() if name != "cpu" else 0):
        properties = torch.cuda.get_device_properties(index)
        memory = round(properties.total_memory / GIB, 1)
        devices.append({"name": properties.name, "kind": "cuda", "memory_gib": memory})
    if torch.backends.mps.is_available():
        devices.append({"name": platform.machine(), "kind": "mps", "memory_gib": None})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1)
    cpu = f"{platform.machine()}, {cores} cores"
    devices.append({"name": cpu, "kind": "cpu", "memory_gib": memory})
    try:
        device = pick_device(name)
        ones = torch.ones(8, 8, device=device)
        if (ones @ ones).sum().item() != 512:
            report["errors"].append(f"{device}: a product of two matrices is wrong")
        value, reason = choose_precision(device, LayerWidths())
        report["precision"] = {"value": value, "reason": reason}
    except UserError as error:
        report["errors"].append(str(error))
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        # most likely a training run has taken it
        report["warnings"].append(f"{device}: not tested, because its memory is taken")
    return devices


def folders() -> dict[str, Path]:
    """Return {use: path} of the folders that fill up: runs, decoded images, weights of the hub."""
    paths = {"current": Path.cwd()}
    with contextlib.suppress(ImportError):  # what is missing here is among the errors already
        from visionloop.datasets.cache.store_files import cache_folder

        paths["cache"] = cache_folder()
        constants = importlib.import_module("huggingface_hub.constants")
        paths["weights"] = Path(constants.HF_HUB_CACHE)
    return paths


def check_disk(report: "JsonObject", use: str, folder: Path) -> "JsonObject":
    """Return {"path", "free_gib", "writable"} of a folder.

    One that does not exist is measured at the nearest folder above it that does.
    """
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    free, writable = shutil.disk_usage(existing).free / GIB, os.access(existing, os.W_OK)
    if not writable:
        report["warnings"].append(f"{existing}: cannot be written, the {use} folder")
    elif use == "current" and free < MIN_FREE_DISK:
        report["errors"].append(f"{existing}: the disk is full, {free:.2f} GiB are free")
    elif free < LOW_FREE_DISK:
        report["warnings"].append(f"{existing}: {free:.1f} GiB are free, the {use} folder")
    return {"path": str(folder), "free_gib": round(free, 1), "writable": writable}


def check_shared_memory(report: "JsonObject", folder: str = FOLDER) -> float | None:
    """Return the size in GiB of the folder through which workers pass images.

    None where the system has no such folder.
    """
    if warning := low_shared_memory(folder):
        report["warnings"].append(warning)
    size = shared_memory_gib(folder)
    return None if size is None else round(size, 2)


def lines_of(report: "JsonObject") -> Iterator[str]:
    """Yield the lines of the report for people."""
    versions = [f"{name} {version or 'missing'}" for name, version in report["versions"].items()]
    yield f"Python {report['python']}, " + ", ".join(versions)
    for device in report["devices"]:
        memory = f", {device['memory_gib']} GiB" if device["memory_gib"] is not None else ""
        yield f"{device['kind']}: {device['name']}{memory}"
    if precision := report["precision"]:
        yield f"precision {precision['value']}: {precision['reason']}"
    for use, disk in report["disks"].items():
        problem = "" if disk["writable"] else ", cannot be written"
        yield f"{use} folder {disk['path']}: {disk['free_gib']} GiB free{problem}"
    shared = report["shared_memory_gib"]
    yield "shared memory: " + (f"{shared} GiB" if shared is not None else "no /dev/shm")
    for kind in ("errors", "warnings"):
        yield from (f"{kind[:-1]}: {text}" for text in report[kind])
    yield "usable" if report["usable"] else "not usable"
