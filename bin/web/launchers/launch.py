"""Command that a launcher makes of a job: it is shown, and run exactly so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]
MOST_PROCESSES = 4096
Count = Annotated[int, Field(ge=1, le=MOST_PROCESSES)]


@dataclass(frozen=True)
class Launch:
    """A command line, and what belongs to it.

    Attributes:
        command: argument list; no shell reads it.
        environment: variables that are set beside those of the server.
        files: {path: text} that are written before the command runs, such as a manifest.
        stop: command that asks the job to save and stop; None: SIGTERM to the process.
        kill: command that ends the job at once; None: SIGKILL to all its processes.
        folder: working folder of the command; None: that of the job.
        submits: the command submits the job and ends; from then on the run folder says how it
            is, and `probe` that it is still there.
        probe: command that prints something while the submitted job waits or runs.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    stop: tuple[str, ...] | None = None
    kill: tuple[str, ...] | None = None
    folder: str | None = None
    submits: bool = False
    probe: tuple[str, ...] | None = None


class Options(BaseModel):
    """Options of a launcher."""

    model_config = ConfigDict(extra="forbid")


class LocalOptions(Options):
    """One process on this machine. devices: index of the GPU, empty for the CPU."""

    kind: Literal["local"] = "local"
    devices: list[Annotated[int, Field(ge=0, le=255)]] = Field(default=[], max_length=1)


class TorchrunOptions(Options):
    """Several processes on this machine: one for each GPU in `devices`, or `processes` on CPU."""

    kind: Literal["torchrun"]
    devices: list[Annotated[int, Field(ge=0, le=255)]] = Field(default=[], max_length=64)
    processes: Count = 2
    max_restarts: Annotated[int, Field(ge=0, le=100)] = 3


class DockerOptions(Options):
    """A container on this machine."""

    kind: Literal["docker"]
    image: Name = "visionloop:cuda"
    devices: list[Annotated[int, Field(ge=0, le=255)]] = Field(default=[], max_length=64)
    processes: Count = 1
    shared_memory_gib: Annotated[int, Field(ge=1, le=1024)] = 8


class SlurmOptions(Options):
    """A SLURM job of bin/launches/train.sbatch."""

    kind: Literal["slurm"]
    nodes: Count = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    processes: Count | None = None
    cpus_per_task: Count | None = None
    time: Annotated[str, Field(pattern=r"^[0-9:-]{1,20}$")] = "08:00:00"
    partition: Name | None = None
    account: Name | None = None


class ClaimMount(Options):
    """A persistent volume claim, and the folder that it is mounted at."""

    claim: Name
    path: Annotated[str, Field(pattern=r"^/[^\x00-\x1f]{0,254}$")]


class KubernetesOptions(Options):
    """A Job, or with several nodes a JobSet. mounts: claims that hold data and runs."""

    kind: Literal["kubernetes"]
    image: Name = "visionloop:cuda"
    namespace: Name = "default"
    nodes: Count = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    processes: Count = 1
    cpus: Count = 4
    memory_gib: Count = 16
    shared_memory_gib: Annotated[int, Field(ge=1, le=1024)] = 8
    mounts: list[ClaimMount] = Field(default=[], max_length=16)


LauncherOptions = Annotated[
    LocalOptions | TorchrunOptions | DockerOptions | SlurmOptions | KubernetesOptions,
    Field(discriminator="kind"),
]
