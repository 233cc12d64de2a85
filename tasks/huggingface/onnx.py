"""ONNX beside a Hugging Face folder, checked against PyTorch on the spot."""

from pathlib import Path

import torch

from visionloop.engine.errors import UserError

FILE_NAME = "model.onnx"
TOLERANCE = 1e-4  # of the largest output's size


def export_onnx(network, trial, folder, output_names, *, any_batch=True, align=None):
    """Write model.onnx (input pixel_values, outputs as named). Returns lines that say what was done.

    network: a module, pixel_values -> a tensor for each name; trial: float [B, 3, H, W] with B at
    least 3, what the file is checked with; any_batch: the file takes batches of any size, otherwise
    one image at a time; align(theirs, ours): both in one order, where order means nothing. Raises
    UserError when the packages of the `onnx` extra are missing, or when onnxruntime's answers
    differ from PyTorch's.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  the exporter needs it and says so less clearly
    except ImportError as error:
        raise UserError(
            f"--onnx: {error.name} is not installed; pip install -e '.[onnx]'", field="onnx"
        ) from None
    path = Path(folder) / FILE_NAME
    network.eval()
    program = torch.onnx.export(
        network,
        (trial[: 2 if any_batch else 1],),  # another number of images than in the check
        dynamo=True,
        input_names=["pixel_values"],
        output_names=list(output_names),
        dynamic_shapes=({0: torch.export.Dim("batch")},) if any_batch else None,
        verbose=False,
    )
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in [trial] if any_batch else trial.split(1):
        theirs = [
            torch.from_numpy(array)
            for array in session.run(list(output_names), {"pixel_values": images.numpy()})
        ]
        with torch.no_grad():
            ours = network(images)
        theirs, ours = align(theirs, ours) if align else (theirs, ours)
        for name, their, our in zip(output_names, theirs, ours, strict=True):
            difference = ((their - our).abs().max() / our.abs().max().clamp(min=1)).item()
            if difference > TOLERANCE:
                why = f"onnxruntime's {name} differ from PyTorch's by {difference:.1e}, more than {TOLERANCE:.0e}"
                raise UserError(f"--onnx: {why}", code="onnx_differs", file=str(path))
            worst = max(worst, difference)
    batch = "a batch of any size" if any_batch else "one image at a time"
    return [
        f"{FILE_NAME}: {batch}; onnxruntime and PyTorch agree to {worst:.1e} on {len(trial)} random images"
    ]
