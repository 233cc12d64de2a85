"""fp32, bf16 and fp16 on CUDA, MPS and the CPU: one path for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from visionloop.engine.types import JsonObject

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Autocast and its gradient scaler; both do nothing in fp32, the scaler nothing in bf16."""

    name: str
    device_type: str
    scaler: torch.amp.GradScaler

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass."""
        return torch.autocast(
            self.device_type, dtype=DTYPES[self.name], enabled=self.name != "fp32"
        )

    def scaler_state(self) -> JsonObject:
        """Return the state of the scaler as numbers for json; empty when it is disabled."""
        return self.scaler.state_dict()

    def load_scaler_state(self, state: JsonObject) -> None:
        """Load a state of `scaler_state`; an empty one, of another precision, changes nothing."""
        if state:  # an empty state cannot be loaded into an enabled scaler
            self.scaler.load_state_dict(state)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Compute fp32 products and convolutions on CUDA without TF32 inside the context.

    Scores and predictions are then those of fp32, in training, `evaluate` and `predict` alike.
    """
    if device.type != "cuda":
        yield
        return
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


def build_precision(name: str, device: torch.device, *, tf32: bool = True) -> Precision:
    """Build the precision of a run; also switch TF32 matrix products on CUDA on or off."""
    if device.type == "cuda":  # on the CPU the same switch would change oneDNN's products
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
    # creates the scale now, so that a state can be loaded into it
    scaler.scale(torch.ones((), device=device))
    return Precision(name, device.type, scaler)
