"""LPIPS (AlexNet, version 0.1): distance of two images in the features of a network, weighted to agree with people.

Zhang et al. 2018; facts from richzhang/PerceptualSimilarity lpips/lpips.py. AlexNet is the version
for reporting, VGG that for losses. One safetensors file holds all in float32, the backbone under
torchvision's names and the five heads; `bin/convert.py lpips` makes it:

    features.{0,3,6,8,10}.weight, .bias   convolutions of torchvision's AlexNet
    heads.{0..4}.weight                   [1, C, 1, 1]: one weight for each channel behind each
    convolution's ReLU
"""

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.utils import skip_init

# [in, out, kernel, stride, padding] by place in torchvision's `features`; a 3 x 3 max pooling of
# stride 2 stands before 3 and 6.
CONVOLUTIONS = {
    "0": (3, 64, 11, 4, 2),
    "3": (64, 192, 5, 1, 2),
    "6": (192, 384, 3, 1, 1),
    "8": (384, 256, 3, 1, 1),
    "10": (256, 256, 3, 1, 1),
}
POOLED_BEFORE = ("3", "6")
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in -1..1
SMALLEST_SIDE = 31  # one position is left behind the second pooling


def tensor_shapes():
    """{key in the file: shape}."""
    shapes = {}
    for head, (place, (channels_in, channels, kernel, _, _)) in enumerate(CONVOLUTIONS.items()):
        shapes[f"features.{place}.weight"] = (channels, channels_in, kernel, kernel)
        shapes[f"features.{place}.bias"] = (channels,)
        shapes[f"heads.{head}.weight"] = (1, channels, 1, 1)
    return shapes


SHAPES = tensor_shapes()


class Lpips(nn.Module):
    """A fixed measure: fp32 under autocast too, no gradients for its weights."""

    def __init__(self, tensors):
        """tensors: {key: float32 tensor}, keys and shapes as in the file."""
        super().__init__()
        # skip_init: the weights come from `tensors`, so that making one draws no random numbers
        self.features = nn.ModuleDict(
            {place: skip_init(nn.Conv2d, *shape) for place, shape in CONVOLUTIONS.items()}
        )
        self.heads = nn.ModuleList(
            skip_init(nn.Conv2d, shape[1], 1, 1, bias=False) for shape in CONVOLUTIONS.values()
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.load_state_dict(tensors)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path):
        """The measure of one file, on the CPU. ValueError with the file and the first key that is missing or has another shape."""
        return cls(read_tensors(path, {key: (key,) for key in SHAPES}))

    def forward(self, prediction, target):
        """float32 [B], 0 for equal images. Both: uint8 or float RGB [B, 3, H, W] in 0..255, on the device of the weights.

        Raises ValueError for two shapes, another number of channels, or sides below 31 pixels.
        """
        if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[1] != 3:
            raise ValueError(
                f"LPIPS: expected two [B, 3, H, W], got {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        if min(prediction.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"LPIPS: expected sides of at least {SMALLEST_SIDE} pixels, got {tuple(prediction.shape[2:])}"
            )
        with torch.autocast(prediction.device.type, enabled=False):
            layers = zip(
                self.unit_features(prediction), self.unit_features(target), self.heads, strict=True
            )
            return sum(head((x - y).square()).mean(dim=(1, 2, 3)) for x, y, head in layers)

    def unit_features(self, images):
        """The five activations [B, C, h, w], each position of length 1 over its channels."""
        x = (images.float() / 127.5 - 1 - self.mean) / self.std
        activations = []
        for place, convolution in self.features.items():
            x = F.relu(convolution(F.max_pool2d(x, 3, 2) if place in POOLED_BEFORE else x))
            activations.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return activations


def read_tensors(path, spellings):
    """{key: float32 tensor} of a safetensors file, in the order of the spellings; others in it are left alone.

    spellings: {key: names it may have in the file}. Raises ValueError with the file and the first
    key that is missing or has another shape than `SHAPES` says.
    """
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            for key, names in spellings.items():
                name = next((name for name in names if name in there), None)
                if name is None:
                    raise ValueError(f"{path}: {' or '.join(names)} is missing")
                tensors[key] = file.get_tensor(name).float()
                if tensors[key].shape != SHAPES[key]:
                    raise ValueError(
                        f"{path}: {name}: expected shape {SHAPES[key]}, got {tuple(tensors[key].shape)}"
                    )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a safetensors file ({error})") from None
    return tensors
