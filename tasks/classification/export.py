"""ONNX beside the Hugging Face folder, checked against PyTorch on the spot."""

from pathlib import Path

import torch
from torch import nn

from visionloop.engine.errors import UserError

FILE_NAME = "model.onnx"
TOLERANCE = 1e-4  # of the largest logit's size
BATCH = 3  # of the trial pictures: not the size it was exported with


class _LogitsAlone(nn.Module):
    """pixel_values -> logits, as a tensor instead of the library's output object."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixel_values):
        return self.module(pixel_values=pixel_values).logits


def export_onnx(module, folder, size):
    """Write model.onnx (input pixel_values [batch, 3, size, size], normalised; output logits). Returns lines that say what was done.

    Raises UserError when the packages of the `onnx` extra are missing, or when onnxruntime's logits differ from ours.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  the exporter needs it and says so less clearly
    except ImportError as error:
        raise UserError(f"--onnx: {error.name} is not installed; pip install 'visionloop[onnx]'", field="onnx") from None
    path = Path(folder) / FILE_NAME
    wrapped = _LogitsAlone(module).eval()
    trial = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        wrapped,
        (trial[:2],),
        dynamo=True,
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(["logits"], {"pixel_values": trial.numpy()})[0])
    with torch.no_grad():
        ours = wrapped(trial)
    difference = ((theirs - ours).abs().max() / ours.abs().max().clamp(min=1)).item()
    if difference > TOLERANCE:
        why = f"onnxruntime's logits differ from PyTorch's by {difference:.1e}, more than {TOLERANCE:.0e}"
        raise UserError(f"--onnx: {why}", code="onnx_differs", file=str(path))
    return [f"{FILE_NAME}: onnxruntime and PyTorch agree to {difference:.1e} on {BATCH} random pictures"]
