"""LPIPS (AlexNet, version 0.1): a perceptual distance of two images.

Zhang et al. 2018, after richzhang/PerceptualSimilarity lpips/lpips.py: the distance of the features
of a network, weighted to agree with human judgement. AlexNet is the version for reporting, VGG that
for losses. One safetensors file holds all tensors in float32, the backbone under torchvision's
names and the five heads; `bin/convert.py lpips` writes it:

    features.{0,3,6,8,10}.weight, .bias   convolutions of torchvision's AlexNet
    heads.{0..4}.weight                   [1, C, 1, 1]: one weight for each channel after a ReLU
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.utils import skip_init

# (in, out, kernel, stride, padding) by index in torchvision's `features`; 3 x 3 max pooling of
# stride 2 comes before 3 and 6.
CONVOLUTIONS = {
    "0": (3, 64, 11, 4, 2),
    "3": (64, 192, 5, 1, 2),
    "6": (192, 384, 3, 1, 1),
    "8": (384, 256, 3, 1, 1),
    "10": (256, 256, 3, 1, 1),
}
POOLED_BEFORE = ("3", "6")
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in -1..1
SMALLEST_SIDE = 31  # pixels; one position is left after the second pooling


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return {key in the file: shape}."""
    shapes: dict[str, tuple[int, ...]] = {}
    for head, (index, (channels_in, channels, kernel, _, _)) in enumerate(CONVOLUTIONS.items()):
        shapes[f"features.{index}.weight"] = (channels, channels_in, kernel, kernel)
        shapes[f"features.{index}.bias"] = (channels,)
        shapes[f"heads.{head}.weight"] = (1, channels, 1, 1)
    return shapes


SHAPES = tensor_shapes()


class Lpips(nn.Module):
    """The LPIPS network with frozen weights, computed in fp32 even under autocast."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Make the network.

        Args:
            tensors: {key: float32 tensor}, keys and shapes as in the file.
        """
        super().__init__()
        # skip_init: the weights come from `tensors`, so that no random numbers are drawn
        self.features = nn.ModuleDict(
            {index: skip_init(nn.Conv2d, *shape) for index, shape in CONVOLUTIONS.items()}
        )
        self.heads = nn.ModuleList(
            skip_init(nn.Conv2d, shape[1], 1, 1, bias=False) for shape in CONVOLUTIONS.values()
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.load_state_dict(tensors)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Lpips:
        """Read the network from a file, on the CPU.

        Raises:
            ValueError: with the file and the first key that is missing or has another shape.
        """
        return cls(read_tensors(path, {key: (key,) for key in SHAPES}))

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the distance of each pair of images, float32 [B], 0 for equal images.

        Args:
            prediction, target: uint8 or float RGB [B, 3, H, W] in 0..255, on the device of the
                weights.

        Raises:
            ValueError: for different shapes, another number of channels, or sides below 31 pixels.
        """
        if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[1] != 3:
            raise ValueError(
                f"LPIPS: expected two [B, 3, H, W], got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}"
            )
        if min(prediction.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"LPIPS: expected sides of at least {SMALLEST_SIDE} pixels, "
                f"got {tuple(prediction.shape[2:])}"
            )
        with torch.autocast(prediction.device.type, enabled=False):
            layers = zip(
                self.unit_features(prediction), self.unit_features(target), self.heads, strict=True
            )
            distances = [head((x - y).square()).mean(dim=(1, 2, 3)) for x, y, head in layers]
            return sum(distances[1:], distances[0])

    def unit_features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the five activations [B, C, h, w], of length 1 over the channels."""
        x = (images.float() / 127.5 - 1 - self.mean) / self.std
        activations = []
        for index, convolution in self.features.items():
            x = F.relu(convolution(F.max_pool2d(x, 3, 2) if index in POOLED_BEFORE else x))
            activations.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return activations


def read_tensors(
    path: str | PathLike[str], aliases: Mapping[str, Sequence[str]]
) -> dict[str, torch.Tensor]:
    """Read {key: float32 tensor} from a safetensors file; other tensors in it are ignored.

    Args:
        path: of the file.
        aliases: {key: names it may have in the file}.

    Raises:
        ValueError: with the file and the first key that is missing or whose shape is not that of
            `SHAPES`.
    """
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            file_names = set(file.keys())
            for key, names in aliases.items():
                name = next((name for name in names if name in file_names), None)
                if name is None:
                    raise ValueError(f"{path}: {' or '.join(names)} is missing")
                tensors[key] = file.get_tensor(name).float()
                if tensors[key].shape != SHAPES[key]:
                    raise ValueError(
                        f"{path}: {name}: expected shape {SHAPES[key]}, "
                        f"got {tuple(tensors[key].shape)}"
                    )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a safetensors file ({error})") from None
    return tensors
