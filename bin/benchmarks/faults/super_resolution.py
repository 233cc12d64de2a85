"""What we say of the library's Swin2SR."""

import inspect
from functools import partial

from visionloop.bin.benchmarks.faults.report import NOTHING, Claim, biggest, failure_of, named_version

TASK = "super_resolution"
PAGE = "tasks/super_resolution/README.md"
HEADS, NETWORK, MODEL, SIZES = (f"tasks/super_resolution/{name}.py" for name in ("heads", "network", "model", "sizes"))
SIDE = 16


def small_swin(upsampler="pixelshuffledirect", upscale=2, **fields):
    """The library's Swin2SR with random weights, in eval mode."""
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    sizes = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "mlp_ratio": 2.0, "image_size": SIDE}
    return Swin2SRForImageSuperResolution(Swin2SRConfig(**sizes | {"upsampler": upsampler, "upscale": upscale} | fields)).eval()


def picture(height=SIDE, width=SIDE):
    import torch

    return torch.rand(1, 3, height, width)


def answer_of(network, pixels):
    """The picture that the library's forward gives."""
    import torch

    with torch.no_grad():
        return network(pixels).reconstruction


def refused_labels():
    failed = failure_of(partial(small_swin(), picture(), labels=picture(2 * SIDE, 2 * SIDE)), NotImplementedError)
    return failed != NOTHING, {"with labels": failed}


def head_at_x1():
    """With a residual of zero the authors' network gives the picture back."""
    import torch

    pixels, answers = picture(), {}
    for scale in (1.0, 255.0):
        network = small_swin("", 1, img_range=scale)
        torch.nn.init.zeros_(network.final_convolution.weight)
        torch.nn.init.zeros_(network.final_convolution.bias)
        answers[scale] = answer_of(network, pixels)
    added = [round(value, 4) for value in (answers[1] - pixels).mean((0, 2, 3)).tolist()]
    off = max(biggest(answer - (pixels / scale + network.swin2sr.mean)) for scale, answer in answers.items())
    spread = (answers[255].std((2, 3)) / pixels.std((2, 3))).mean().item()
    return off < 1e-5, {"added at range 1": added, "contrast kept at range 255": spread}


def head_with_aux():
    import torch
    from torch.nn import functional as F

    network, pixels, seen = small_swin("pixelshuffle_aux", 4, img_range=2.0), picture(), []
    network.upsample.conv_bicubic.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        answer = network(pixels)
    large = partial(F.interpolate, size=(4 * SIDE,) * 2, mode="bicubic", align_corners=False)
    raw, official = large(pixels), large((pixels - network.swin2sr.mean) * 2.0)
    off = {"off the raw picture": biggest(seen[0] - raw), "off the authors'": biggest(seen[0] - official)}
    lost = list(answer.keys()) == ["reconstruction"]
    return lost and off["off the raw picture"] < 1e-6 < off["off the authors'"], off | {"answers": list(answer.keys())}


def sizes_that_windows_do_not_divide():
    network, sizes = small_swin(), ((17, 16), (18, 18), (16, 20))
    figures = {f"{size[0]} x {size[1]}": failure_of(partial(answer_of, network, picture(*size)), RuntimeError) for size in sizes}
    *odd, even = figures.values()
    return NOTHING not in odd and even == NOTHING, figures


def padding_of_the_processor():
    import torch
    from transformers import Swin2SRImageProcessor

    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    padded = Swin2SRImageProcessor(size_divisor=8)(pixels, return_tensors="pt").pixel_values[0]
    mirrored = padded[:, 64:65, :64].equal(padded[:, 63:64, :64])
    return padded.shape[-2:] == (72, 72) and mirrored, {"64 px become": padded.shape[-1], "the edge is there twice": mirrored}


def widths_of_convolutions(**fields):
    """{name: deviation of the library's start over torch's} of the convolutions."""
    import torch

    found = {}
    for name, layer in small_swin(**fields).named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            theirs = layer.weight.std()
            layer.reset_parameters()
            found[name] = (theirs / layer.weight.std()).item()
    return found


def start_of_convolutions():
    from visionloop.tasks.super_resolution.sizes import ARCHITECTURES

    tiny, classical = (widths_of_convolutions(embed_dim=ARCHITECTURES[name].fields["embed_dim"]) for name in ("tiny", "classical"))
    found = {
        "first": (tiny["swin2sr.first_convolution"], 0.18),
        "3 x 3 of tiny": (tiny["swin2sr.conv_after_body"], 0.8),
        "of classical": (classical["swin2sr.conv_after_body"], 1.4),
    }
    return all(abs(ratio - said) < 0.05 for ratio, said in found.values()), {name: ratio for name, (ratio, _) in found.items()}


def start_at_24_channels():
    width = widths_of_convolutions()["swin2sr.conv_after_body"]
    return abs(width - 0.5) < 0.05, {"library's over torch's deviation": width}


def absolute_embeddings():
    failed = failure_of(lambda: answer_of(small_swin(use_absolute_embeddings=True), picture()), RuntimeError)
    return failed != NOTHING, {"forward": failed}


def three_convolutions():
    network = small_swin(resi_connection="3conv")
    last, stage = network.swin2sr.conv_after_body, network.swin2sr.encoder.stages[0].conv
    parts = [sum(1 for part in module.modules() if type(part).__name__ == "Conv2d") for module in (stage, last)]
    return parts == [3, 1], {"convolutions of a stage": parts[0], "after the body": parts[1]}


def rate_of_drop_path():

    network, pixels = small_swin(drop_path_rate=0.9).train(), picture()
    difference = biggest(answer_of(network, pixels) - answer_of(network, pixels))
    return difference == 0, {"difference of two answers at 0.9": difference}


def id_in_its_documentation():
    import transformers

    text = inspect.getsource(inspect.getmodule(transformers.Swin2SRConfig))
    return "caidas/swin2sr-classicalsr-x2-64" in text, {"times": text.count("caidas/swin2sr-classicalsr-x2-64")}


CLAIMS = (
    Claim(
        "our network is the library's, of the release named",
        ((PAGE, "the network is the `Swin2SRForImageSuperResolution` of `transformers` 5.23"),),
        partial(named_version, "visionloop.tasks.super_resolution.network", "Swin2SRForImageSuperResolution"),
    ),
    Claim(
        "labels are refused",
        (
            (PAGE, "transformers 5.23.0 refuses to train it (`NotImplementedError` when labels are given)"),
            ("tasks/super_resolution/loss.py", "The library has no loss at all"),
        ),
        refused_labels,
    ),
    Claim(
        "at x1 the mean is added once more and the picture divided by the range",
        (
            (PAGE, "at x1 it adds the mean once more and divides the picture by `img_range`"),
            (HEADS, "without an upsampler it divides the input by `img_range` and adds the mean once more"),
            ("tasks/super_resolution/correction.py", "x1: plain transformers gives (x + r) / range + mean"),
            ("tasks/super_resolution/card.py", "the mean colour to the input once more"),
            ("tasks/super_resolution/folder.py", "computes something else with the x1 and the auxiliary head"),
            (NETWORK, "where the library's head is not the authors'"),
        ),
        head_at_x1,
    ),
    Claim(
        "the auxiliary head resizes raw pixels, and its picture is dropped",
        (
            (PAGE, "with the auxiliary head it resizes raw pixels"),
            (HEADS, "it resizes the raw input where the authors resize what the network reads, and it drops the auxiliary picture"),
            ("tasks/super_resolution/correction.py", "the library gives conv_bicubic the input x where (x - mean) * range is meant"),
            ("tasks/super_resolution/card.py", "the bicubic picture of raw pixels"),
        ),
        head_with_aux,
    ),
    Claim(
        "sizes that windows do not divide fail",
        (
            (PAGE, "The library's forward (5.23.0) fails on sizes that windows do not divide"),
            (NETWORK, "its own forward, which fails on sizes that windows do not divide"),
        ),
        sizes_that_windows_do_not_divide,
    ),
    Claim(
        "the processor adds a whole window where nothing is missing, with the edge mirrored",
        (
            (PAGE, "its image processor adds a whole window where nothing is missing"),
            ("tasks/super_resolution/folder.py", "adds a whole window where nothing is missing, and mirrors the edge too"),
            ("tasks/super_resolution/card.py", "adds 1 to {window} pixels"),
        ),
        padding_of_the_processor,
    ),
    Claim(
        "all convolutions start from 0.02, whatever their width",
        ((PAGE, "a fifth as wide at the first one, 0.8 times at the 3 x 3 ones of `tiny`, 1.4 times at those of `classical`"),),
        start_of_convolutions,
    ),
    Claim(
        "with 24 channels that is half of torch's",
        (("tasks/super_resolution/initialization.py", "half as wide as theirs for 24 channels"),),
        start_at_24_channels,
    ),
    Claim("absolute embeddings fail", ((MODEL, "the library's forward fails with them"),), absolute_embeddings),
    Claim("of 3conv the half is built", ((MODEL, "the library builds half of the other kind"),), three_convolutions),
    Claim("drop_path_rate does nothing", ((SIZES, "The library ignores drop_path_rate"),), rate_of_drop_path),
    Claim(
        "its documentation names an id that never was",
        ((SIZES, "`caidas/swin2sr-classicalsr-x2-64` stands in the library's own documentation"),),
        id_in_its_documentation,
    ),
)
