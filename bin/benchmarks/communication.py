"""The messages of a training step with DDP, FSDP2 and FSDP2 inside of nodes, by their arithmetic.

Ring algorithms send, for n bytes over R ranks, 2 (R - 1) / R n from each rank for an all-reduce,
and half of that for an all-gather or a reduce-scatter. A step costs messages times latency plus
bytes over bandwidth, less what is hidden behind the computation.
"""

from dataclasses import dataclass

from visionloop.engine.config.train_config import Shard
from visionloop.engine.sharding.memory_estimate import FP32_BYTES, ModelSizes

# of DDP's gradients: the first bucket, and the others (torch's defaults)
FIRST_BUCKET_BYTES, BUCKET_BYTES = 2**20, 25 * 2**20


@dataclass(frozen=True)
class Traffic:
    """The messages of a step, and what each rank sends.

    Attributes:
        messages: collectives one after the other, besides the small one that starts the step.
        sent_bytes: by each rank.
        between_nodes_bytes: the part of it for which other nodes wait with `--shard node`, where
            the rest stays inside of a node; with none and full, all of it may cross nodes.
    """

    messages: int
    sent_bytes: float
    between_nodes_bytes: float = 0.0


def traffic_of(
    sizes: ModelSizes,
    shard: Shard,
    *,
    ranks: int,
    per_node: int,
    micro_batches: int = 1,
    gather_bytes: int = FP32_BYTES,
) -> Traffic:
    """Return the traffic of a training step in which every weight is trained.

    Args:
        sizes: of the model.
        shard: none, full or node.
        ranks: number of processes.
        per_node: number of processes of a node.
        micro_batches: of each rank.
        gather_bytes: bytes of a gathered weight: 4 for fp32, 2 for bf16.
    """
    gradients = FP32_BYTES * sizes.num_weights
    if ranks == 1:
        return Traffic(0, 0.0)
    if shard == "none":
        buckets = 1 + max(0, -(-(gradients - FIRST_BUCKET_BYTES) // BUCKET_BYTES))
        return Traffic(buckets, 2 * _share(ranks) * gradients)
    shards = ranks if shard == "full" else per_node
    copies = ranks // shards
    # the root is gathered once, a unit for the forward and again for the backward
    in_units = sizes.num_weights - sizes.num_in_root()
    gathered = gather_bytes * (sizes.num_in_root() + 2 * in_units)
    messages = 2 + 3 * len(sizes.units)  # the gradient norm is one more, at the end of the step
    inside = _share(shards) * (gathered + gradients)
    between = 2 * _share(copies) * gradients / shards
    if copies > 1:
        messages += 1 + len(sizes.units)
    return Traffic(
        micro_batches * messages + 1, micro_batches * (inside + between), micro_batches * between
    )


def _share(ranks: int) -> float:
    """Return the share of a tensor that each rank of a ring sends once."""
    return (ranks - 1) / ranks
