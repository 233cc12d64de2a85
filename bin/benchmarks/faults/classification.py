"""What we say of the library's image classifiers."""

import tempfile
import warnings
from functools import partial

from visionloop.bin.benchmarks.faults.report import Claim, biggest, failure_of

TASK = "classification"
PAGE = "tasks/classification/README.md"


def small_vit(**fields):
    """A ViT of the library with random weights, in eval mode."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(**sizes | {"patch_size": 8, "image_size": 32, "num_labels": 4} | fields)).eval()


def any_classifier():
    from importlib import metadata

    import torch
    from transformers import AutoModelForImageClassification

    version = metadata.version("transformers")
    network = AutoModelForImageClassification.from_config(small_vit().config)
    shape = tuple(network(pixel_values=torch.rand(2, 3, 32, 32)).logits.shape)
    return version.startswith("5.23.") and shape == (2, 4), {"version": version, "logits": shape}


def soft_targets():
    import torch
    from torch.nn import functional as F

    pixels, targets = torch.rand(6, 3, 32, 32), torch.rand(6, 4).softmax(-1)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        answer = small_vit()(pixel_values=pixels, labels=targets)
    loss = answer.loss.item()
    bce = F.binary_cross_entropy_with_logits(answer.logits, targets).item()
    entropy = F.cross_entropy(answer.logits, targets).item()
    figures = {"loss": loss, "BCE": bce, "cross-entropy": entropy, "warnings": len(heard)}
    return abs(loss - bce) < 1e-5 < abs(loss - entropy) and not heard, figures


def positions_of_another_size():
    import torch
    from torch.nn import functional as F
    from transformers import ViTForImageClassification

    network, tables = small_vit(), []
    table = network.vit.embeddings.position_embeddings
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        load = partial(ViTForImageClassification.from_pretrained, folder, image_size=48, use_safetensors=True)
        refused = failure_of(load, RuntimeError)
        for seed in (0, 1):
            torch.manual_seed(seed)
            tables.append(load(ignore_mismatched_sizes=True).vit.embeddings.position_embeddings[0, 1:].detach())
    grid = table.detach()[:, 1:].mT.reshape(1, -1, 4, 4)
    resized = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)[0].flatten(1).mT
    correlation = torch.corrcoef(torch.stack([tables[0].flatten(), resized.flatten()]))[0, 1].item()
    between = biggest(tables[0] - tables[1])
    figures = {"correlation with the resized table": correlation, "difference between two loads": between, "no switch": refused}
    return abs(correlation) < 0.3 and between > 0, figures


def resizing_without_antialias():
    import torch
    from torch.nn import functional as F

    field = F.interpolate(torch.randn(1, 32, 9, 9), size=(14, 14), mode="bicubic")  # [1, C, 14, 14], smooth
    embeddings = small_vit(image_size=112).vit.embeddings
    table = torch.cat([torch.zeros(1, 1, 32), field.flatten(2).mT], dim=1)
    embeddings.position_embeddings = torch.nn.Parameter(table)
    theirs = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + 10 * 10, 32), 80, 80)[0, 1:]
    plain, smooth = (F.interpolate(field, size=(10, 10), mode="bicubic", antialias=way)[0].flatten(1).mT for way in (False, True))
    deviation = ((theirs - smooth).std() / field.std()).item()
    figures = {"difference to no antialias": biggest(theirs - plain), "to antialias, of the field's deviation": deviation}
    return biggest(theirs - plain) < 1e-4 and 0.1 < deviation < 0.3, figures


def rest_of_a_picture():
    import torch

    network, pixels = small_vit(image_size=48), torch.rand(1, 3, 50, 50)
    other = pixels.clone()
    other[..., 48:] = other[..., 48:, :] = 0
    changed = [network(pixel_values=picture, interpolate_pos_encoding=True).logits for picture in (pixels, other)]
    difference = biggest(changed[0] - changed[1])
    return difference == 0, {"largest change of the logits when the last 2 of 50 px turn black": difference}


def narrow_start():
    import torch

    network = small_vit(hidden_size=96, intermediate_size=192)
    found = [layer.weight.std().item() for layer in network.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    figures = {"smallest deviation": min(found), "largest": max(found), "layers": len(found)}
    return min(found) > 0.017 and max(found) < 0.023, figures


def centre_of_a_crop():
    import torch
    from torchvision.transforms.v2.functional import center_crop
    from transformers import CLIPImageProcessor

    rows = torch.arange(5, dtype=torch.uint8)[:, None].expand(3, 5, 5)
    crop = CLIPImageProcessor(do_resize=False, do_rescale=False, do_normalize=False, crop_size={"height": 2, "width": 2})
    theirs, torchvisions = crop(rows, return_tensors="pt").pixel_values[0], center_crop(rows, [2, 2])
    figures = {"first row of 2 from 5": theirs.min().item(), "torchvision's": torchvisions.min().item()}
    return list(figures.values()) == [1, 2], figures


def transparent_pixels():
    import numpy as np
    from PIL import Image
    from transformers.image_utils import load_image

    colors = (200, 10, 30)
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGBA", (4, 4), (*colors, 0)).save(f"{folder}/picture.png")
        shown = tuple(np.asarray(load_image(f"{folder}/picture.png"))[0, 0].tolist())
    return shown == colors, {"pixel of alpha 0": colors, "read": shown}


CLAIMS = (
    Claim("our network is the library's, of the release named", ((PAGE, "Any image classifier of `transformers` 5.23"),), any_classifier),
    Claim(
        "soft targets become multi-label BCE",
        (
            (PAGE, "transformers 5.23.0 turns soft targets into multi-label BCE without a word"),
            ("tasks/classification/loss.py", "soft targets turn it into multi-label BCE without a word"),
        ),
        soft_targets,
    ),
    Claim(
        "positions for another size are drawn anew",
        ((PAGE, "transformers 5.23.0 draws them anew at random"),),
        positions_of_another_size,
    ),
    Claim(
        "positions are interpolated without antialias",
        (("tasks/classification/positions.py", "20 % of the field's standard deviation); the library's own interpolation has none"),),
        resizing_without_antialias,
    ),
    Claim(
        "pixels beyond the last whole patch are dropped",
        (("tasks/classification/positions.py", "the library would drop the rest silently"),),
        rest_of_a_picture,
    ),
    Claim(
        "a centre crop is rounded down, and torchvision's half to even",
        (("datasets/transforms.py", "rounded down like the library's centre crop; torchvision's rounds half to even"),),
        centre_of_a_crop,
    ),
    Claim(
        "load_image shows what lies under transparent pixels",
        (("datasets/pictures.py", "alpha is dropped, as torchvision, timm and `load_image` of transformers do"),),
        transparent_pixels,
    ),
    Claim(
        "a ViT of any width starts from 0.02",
        (("tasks/mimetic.py", "the library draws everything with 0.02"),),
        narrow_start,
    ),
)
