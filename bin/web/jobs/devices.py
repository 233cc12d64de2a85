"""The devices of this machine that jobs wait for: GPUs by index, or one CPU slot."""

import functools
import subprocess
from dataclasses import dataclass

from visionloop.bin.web.jobs.spec import JobKind
from visionloop.bin.web.launchers.launch import (
    DockerOptions,
    LauncherOptions,
    LocalOptions,
    TorchrunOptions,
)

CPU = "cpu"
SERVICE = "service"  # checks, replays and comparisons run one at a time, beside training
QUERY_SECONDS = 10
QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Device:
    """A device of this machine.

    Attributes:
        name: "cpu", or "gpu0" for the GPU that nvidia-smi lists with index 0.
        kind: "cpu" or "gpu".
        label: its name for people.
        memory_gib: of a GPU.
    """

    name: str
    kind: str
    label: str
    memory_gib: float | None = None


@functools.cache
def gpus() -> tuple[Device, ...]:
    """Return the GPUs as nvidia-smi lists them; none where there is no such program."""
    try:
        listed = subprocess.run(
            QUERY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=QUERY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(parse_gpus(listed.stdout)) if listed.returncode == 0 else ()


def parse_gpus(text: str) -> list[Device]:
    """Return the GPUs of lines such as "0, NVIDIA H200, 143771"."""
    devices = []
    for line in text.splitlines():
        index, _, rest = line.partition(",")
        label, _, mebibytes = rest.rpartition(",")
        if not index.strip().isdigit():
            continue
        memory = mebibytes.strip()
        gib = round(int(memory) / 1024, 1) if memory.isdigit() else None
        devices.append(Device(f"gpu{int(index)}", "gpu", label.strip(), gib))
    return devices


def devices() -> tuple[Device, ...]:
    """Return all devices, the CPU last."""
    return (*gpus(), Device(CPU, "cpu", "CPU"))


def devices_of(kind: JobKind, options: LauncherOptions) -> tuple[str, ...]:
    """Return the names of the devices that a job occupies while it runs.

    A job that is submitted to a cluster occupies none here.
    """
    if kind is not JobKind.TRAIN:
        return (SERVICE,)
    if isinstance(options, LocalOptions | TorchrunOptions | DockerOptions):
        return tuple(f"gpu{index}" for index in sorted(set(options.devices))) or (CPU,)
    return ()
