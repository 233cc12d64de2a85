"""Gradient checkpointing: activations are recomputed in the backward pass."""

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from visionloop.engine.optim import batch_norms

P = ParamSpec("P")
T = TypeVar("T")


def apply_grad_checkpointing(blocks: Sequence[nn.Module]) -> None:
    """Make each module recompute its forward in the backward pass instead of keeping activations.

    Several of our models refuse the switch of transformers, so the wrapper is ours. Names in the
    state dict do not change.
    """
    for block in blocks:
        trained = [
            layer for layer in batch_norms(block) if layer.training and layer.track_running_stats
        ]
        assert not trained, (
            "a trained BatchNorm inside a recomputed block would count its statistics twice"
        )
        block.forward = functools.partial(_recomputed, block.forward)


def _recomputed(forward: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # preserve_rng_state (the default) replays drop path and dropout
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)  # type: ignore[arg-type]  # of forward
