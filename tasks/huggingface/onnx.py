"""ONNX export into a Hugging Face folder, checked against PyTorch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from visionloop.engine.errors import UserError

FILE_NAME = "model.onnx"
TOLERANCE = 1e-4  # relative to the largest output
# brings outputs of onnxruntime and of PyTorch into one order, where order has no meaning
Align = Callable[
    [list[torch.Tensor], Sequence[torch.Tensor]],
    tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
]


def export_onnx(
    network: nn.Module,
    example: torch.Tensor,
    folder: str | Path,
    output_names: Sequence[str],
    *,
    any_batch: bool = True,
    align: Align | None = None,
) -> list[str]:
    """Write model.onnx with the input "pixel_values", and check it with onnxruntime.

    Args:
        network: module of pixel_values -> one tensor for each output name.
        example: float [B, 3, H, W] with B at least 3, the images of the check.
        folder: takes model.onnx.
        output_names: names of the outputs.
        any_batch: the file takes batches of any size; False: one image at a time.
        align: (outputs of onnxruntime, outputs of PyTorch) -> both in one order.

    Returns:
        Lines about the check, for the user.

    Raises:
        UserError: the packages of the `onnx` extra are missing, or the outputs of onnxruntime
            differ from those of PyTorch.
    """
    path = Path(folder) / FILE_NAME
    _write(network, example[: 2 if any_batch else 1], path, output_names, any_batch=any_batch)
    worst = _largest_difference(
        network, [example] if any_batch else list(example.split(1)), path, output_names, align
    )
    batch = "a batch of any size" if any_batch else "one image at a time"
    agreement = f"onnxruntime and PyTorch agree to {worst:.1e} on {len(example)} random images"
    return [f"{FILE_NAME}: {batch}; {agreement}"]


def _write(
    network: nn.Module,
    images: torch.Tensor,
    path: Path,
    output_names: Sequence[str],
    *,
    any_batch: bool,
) -> None:
    """Export with images of another batch size than in the check."""
    try:
        import onnxruntime  # noqa: F401  checked before the export, which takes long
        import onnxscript  # noqa: F401  needed by the exporter, whose error is less clear
    except ImportError as error:
        raise UserError(
            f"--onnx: {error.name} is not installed; pip install -e '.[onnx]'", field="onnx"
        ) from None
    network.eval()
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        input_names=["pixel_values"],
        output_names=list(output_names),
        dynamic_shapes=({0: torch.export.Dim("batch")},) if any_batch else None,
        verbose=False,
    )
    assert program is not None  # it is None with dynamo=False alone
    program.save(path, external_data=False)


def _largest_difference(
    network: nn.Module,
    batches: Sequence[torch.Tensor],
    path: Path,
    output_names: Sequence[str],
    align: Align | None,
) -> float:
    """Return the largest difference over outputs and batches. Raises UserError above TOLERANCE."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in batches:
        arrays = session.run(list(output_names), {"pixel_values": images.numpy()})
        exported: Sequence[torch.Tensor] = [torch.from_numpy(array) for array in arrays]
        with torch.no_grad():
            original: Sequence[torch.Tensor] = network(images)
        if align:
            exported, original = align(list(exported), original)
        for name, left, right in zip(output_names, exported, original, strict=True):
            difference = ((left - right).abs().max() / right.abs().max().clamp(min=1)).item()
            if difference > TOLERANCE:
                raise UserError(
                    f"--onnx: onnxruntime's {name} differ from PyTorch's by {difference:.1e}, more "
                    f"than {TOLERANCE:.0e}",
                    code="onnx_differs",
                    file=str(path),
                )
            worst = max(worst, difference)
    return worst
