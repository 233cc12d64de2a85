"""fp32, bf16 and fp16 on CUDA, MPS and the CPU: one path for all."""

from dataclasses import dataclass

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Autocast and its gradient scaler; both do nothing in fp32, the scaler nothing in bf16."""

    name: str
    device_type: str
    scaler: torch.amp.GradScaler

    def autocast(self):
        return torch.autocast(
            self.device_type, dtype=DTYPES[self.name], enabled=self.name != "fp32"
        )

    def scaler_state(self):
        """The scaler's state as json-able numbers; empty when it is disabled."""
        return self.scaler.state_dict()

    def load_scaler_state(self, state):
        if state:  # an empty state cannot be loaded into an enabled scaler
            self.scaler.load_state_dict(state)


def build_precision(name, device, *, tf32=True):
    """The precision of a run; also switches TF32 matrix products on CUDA."""
    if device.type == "cuda":  # on the CPU the same switch would change oneDNN's products
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
    scaler.scale(
        torch.ones((), device=device)
    )  # creates the scale now, so that a state can be loaded into it
    return Precision(name, device.type, scaler)
