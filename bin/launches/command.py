"""Command line of a training in a container: one process, or torchrun with several."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionloop.engine.errors import UserError

BIN = Path(__file__).resolve().parents[1]
SHUTDOWN_SECONDS = 110  # for a checkpoint; below the 120 s that a container is given to stop


@dataclass(frozen=True)
class Nodes:
    """Nodes of a run, each with one start of its own.

    Attributes:
        number: of nodes.
        rank: of this node.
        address, port: of the first node, for several.
    """

    number: int = 1
    rank: int = 0
    address: str | None = None
    port: int = 29500


def train_command(
    task: str, run: Path, options: Sequence[str], *, processes: int, nodes: Nodes
) -> tuple[str, ...]:
    """Return the command of a training on this node.

    Args:
        task: name of the command, such as "super_resolution".
        run: folder of the run.
        options: of the task's `train`.
        processes: of this node.
        nodes: of the run.
    """
    script = str(BIN / f"{task}.py")
    train = (script, "train", "--output", str(run), *options)
    if processes == nodes.number == 1:
        return (sys.executable, *train)
    if nodes.number == 1:
        rendezvous: tuple[str, ...] = ("--standalone",)
    else:
        if nodes.address is None:
            raise UserError(
                f"--nodes {nodes.number}: expected --master-address, the name of the first node",
                field="master_address",
            )
        rendezvous = ("--nnodes", str(nodes.number), "--node-rank", str(nodes.rank))
        rendezvous += ("--master-addr", nodes.address, "--master-port", str(nodes.port))
    torchrun = (sys.executable, "-P", "-m", "visionloop.bin.launches.torchrun", *rendezvous)
    limits = ("--nproc-per-node", str(processes), "--shutdown-timeout", str(SHUTDOWN_SECONDS))
    return (*torchrun, *limits, *train)
