"""`health`, the same for every task: whether a machine or a container can do its work. No torch here: it may be what is broken."""

import contextlib
import importlib
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from visionloop.engine.errors import DEFECT, FINISHED, UserError

GIB = 2**30
# what a module is called where it is not the distribution's name
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage"}
LEAST_DISK = (
    0.1  # GiB in the current folder: less holds no checkpoint of any model but the tiny ones
)
LITTLE_DISK = 5  # GiB: a few checkpoints of the larger models
# GiB; a container without --shm-size has 1/16, and a worker that finds it full is killed
LITTLE_SHARED = 1


def run_health(load_task_class, device, *, as_json):
    """Print what was found, and every problem. Returns the exit code: 1 with an error. device: of `--device`, None: the best."""
    report = {"usable": True, "errors": [], "warnings": [], "python": platform.python_version()}
    report["versions"] = check_versions(report)
    check_imports(report, load_task_class)
    report["devices"] = check_devices(report, device)
    report["disks"] = {what: check_disk(report, what, folder) for what, folder in folders().items()}
    report["shared_memory_gib"] = check_shared_memory(report)
    report["usable"] = not report["errors"]
    print(json.dumps(report) if as_json else "\n".join(lines_of(report)))
    return FINISHED if report["usable"] else DEFECT


def check_versions(report):
    """{distribution: version or None} of what the package requires. An error for each that is absent or of another version."""
    try:
        required = metadata.requires("visionloop") or []
    except metadata.PackageNotFoundError:
        report["warnings"].append(
            "visionloop is not installed as a package: which versions it needs is not known"
        )
        return {}
    found = {"visionloop": metadata.version("visionloop")}
    for requirement in map(Requirement, required):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found[requirement.name] = version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found[requirement.name] = None
            report["errors"].append(f"{requirement.name}: not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            report["errors"].append(
                f"{requirement.name}: version {version}, needed is {requirement.specifier}"
            )
    return found


def check_imports(report, load_task_class):
    """Import every library that is installed, and the task itself; an error for each that fails."""
    for name, version in report["versions"].items():
        if version is not None:
            _try(
                report,
                name,
                lambda name=name: importlib.import_module(
                    MODULES.get(name.lower(), name.replace("-", "_"))
                ),
            )
    _try(report, "the task", load_task_class)


def _try(report, name, action):
    """What the action returns; None, and an error in the report, when it fails."""
    try:
        return action()
    except Exception as error:  # broken binaries raise anything
        first_line = (str(error).splitlines() or [""])[0]
        report["errors"].append(f"{name}: {type(error).__name__}: {first_line}")
        return None


def check_devices(report, wanted):
    """[{"name", "kind", "memory_gib"}] of every device that PyTorch sees; the chosen one has to multiply two matrices."""
    return _try(report, "devices", lambda: find_devices(report, wanted)) or []


def find_devices(report, wanted):
    """The devices; an error when the wanted one is not there. Needs torch."""
    import torch

    from visionloop.engine.distributed import pick_device

    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": properties.name,
                "kind": "cuda",
                "memory_gib": round(properties.total_memory / GIB, 1),
            }
        )
    if torch.backends.mps.is_available():
        found.append({"name": platform.machine(), "kind": "mps", "memory_gib": None})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found.append(
        {
            "name": f"{platform.machine()}, {cores} cores",
            "kind": "cpu",
            "memory_gib": round(memory / GIB, 1),
        }
    )
    try:
        device = pick_device(wanted)
        ones = torch.ones(8, 8, device=device)
        if (ones @ ones).sum().item() != 512:
            report["errors"].append(f"{device}: a product of two matrices is wrong")
    except UserError as error:
        report["errors"].append(str(error))
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        report["warnings"].append(
            f"{device}: its memory is taken, so that it could not be tried"
        )  # by a training, most likely
    return found


def folders():
    """{what it is: Path} of the folders that fill up: where runs are written, decoded images, weights of the hub."""
    found = {"current": Path.cwd()}
    with contextlib.suppress(ImportError):  # what is missing here is among the errors already
        from visionloop.datasets.cache.store_files import cache_folder

        found["cache"] = cache_folder()
        found["weights"] = Path(importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE)
    return found


def check_disk(report, what, folder):
    """{"path", "free_gib", "writable"} of a folder, or of the nearest one above it that exists."""
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    free, writable = shutil.disk_usage(existing).free / GIB, os.access(existing, os.W_OK)
    if not writable:
        report["warnings"].append(f"{existing}: cannot be written, the {what} folder")
    elif what == "current" and free < LEAST_DISK:
        report["errors"].append(f"{existing}: the disk is full, {free:.2f} GiB are free")
    elif free < LITTLE_DISK:
        report["warnings"].append(f"{existing}: {free:.1f} GiB are free, the {what} folder")
    return {"path": str(folder), "free_gib": round(free, 1), "writable": writable}


def check_shared_memory(report, folder="/dev/shm"):
    """Size in GiB of what workers hand images over in; None where the system has no such folder."""
    if not os.path.isdir(folder):
        return None
    size = shutil.disk_usage(folder).total / GIB
    if size < LITTLE_SHARED:
        report["warnings"].append(
            f"{folder}: {size:.2f} GiB; start the container with --shm-size 8g, or train with --workers 0"
        )
    return round(size, 2)


def lines_of(report):
    """The report for people."""
    yield f"Python {report['python']}, " + ", ".join(
        f"{name} {version or 'missing'}" for name, version in report["versions"].items()
    )
    for device in report["devices"]:
        memory = f", {device['memory_gib']} GiB" if device["memory_gib"] is not None else ""
        yield f"{device['kind']}: {device['name']}{memory}"
    for what, disk in report["disks"].items():
        yield f"{what} folder {disk['path']}: {disk['free_gib']} GiB free" + (
            "" if disk["writable"] else ", cannot be written"
        )
    shared = report["shared_memory_gib"]
    yield "shared memory: " + (f"{shared} GiB" if shared is not None else "no /dev/shm")
    for kind in ("errors", "warnings"):
        yield from (f"{kind[:-1]}: {text}" for text in report[kind])
    yield "usable" if report["usable"] else "not usable"
