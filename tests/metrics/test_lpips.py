"""LPIPS on random weights: a second implementation, torchmetrics where installed, the file."""

import math

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from visionloop.metrics.lpips import SHAPES, Lpips

RELU_PLACES = (1, 4, 7, 9, 11)  # in torchvision's AlexNet.features


def random_tensors(seed=0):
    """He initialization, heads above 0 as the published ones: features neither die nor explode."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in SHAPES.items():
        values = torch.randn(shape, generator=generator)
        scale = 0.1 if len(shape) == 1 else math.sqrt(2 / math.prod(shape[1:]))
        tensors[key] = values.abs() * scale if key.startswith("heads") else values * scale
    return tensors


def images(count=2, height=75, width=64, seed=0):
    """Two batches of uint8 [B, 3, H, W]."""
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 256, (count, 3, height, width))
    close = (target + generator.normal(0, 30, target.shape)).clip(0, 255)
    return torch.tensor(close, dtype=torch.uint8), torch.tensor(target, dtype=torch.uint8)


def plain_distance(tensors, x, y):
    """The formula of the paper in float64 on torchvision's network, image by image."""
    network = (
        torchvision.models.alexnet(weights=None).features[:12].double()
    )  # without the last pooling
    network.load_state_dict(
        {
            key.removeprefix("features."): value.double()
            for key, value in tensors.items()
            if "features" in key
        }
    )
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    totals = []
    for image, other in zip(x, y, strict=True):
        total, level = 0.0, 0
        with torch.no_grad():
            a, b = (
                ((one.double() / 255 * 2 - 1) - shift[:, None, None]) / scale[:, None, None]
                for one in (image, other)
            )
            for place, layer in enumerate(network):
                a, b = layer(a), layer(b)
                if place in RELU_PLACES:
                    weights = tensors[f"heads.{level}.weight"].double().flatten()
                    p, q = (
                        one.numpy() / np.maximum(np.linalg.norm(one.numpy(), axis=0), 1e-10)
                        for one in (a, b)
                    )
                    total += np.einsum("c,chw->hw", weights.numpy(), (p - q) ** 2).mean()
                    level += 1
        totals.append(total)
    return totals


@pytest.mark.parametrize("size_hw", [(64, 64), (75, 64), (31, 90)])
def test_distances_are_those_of_the_plain_formula(size_hw):
    tensors, (x, y) = random_tensors(), images(2, *size_hw)
    distances = Lpips(tensors)(x, y)
    assert distances.shape == (2,) and distances.dtype == torch.float32
    assert distances.tolist() == pytest.approx(plain_distance(tensors, x, y), abs=1e-6)
    assert distances.min() > 0.01  # the tolerance means something


def test_distances_are_those_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image.lpips")
    tensors, (x, y) = random_tensors(1), images(3, seed=1)
    theirs = functional._LPIPS(pretrained=False, net="alex", pnet_rand=True)
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    names = {f"heads.{level}.weight": f"lin{level}.model.1.weight" for level in range(5)}
    for part in ("weight", "bias"):
        names |= {
            f"features.{place}.{part}": f"net.slice{number}.{place}.{part}"
            for place, number in slices.items()
        }
    assert (
        theirs.load_state_dict(
            {names[key]: value for key, value in tensors.items()}, strict=False
        ).unexpected_keys
        == []
    )
    with torch.no_grad():
        expected = theirs(x / 127.5 - 1, y / 127.5 - 1).flatten()
    assert Lpips(tensors)(x, y).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_bytes_and_floats_of_the_same_pixels_are_one_distance():
    module, (x, y) = Lpips(random_tensors()), images()
    assert torch.equal(module(x, y), module(x.float(), y.double()))


def test_equal_images_have_no_distance_and_the_order_is_no_matter():
    module, (x, y) = Lpips(random_tensors()), images()
    assert module(x, x).tolist() == [0, 0] and torch.equal(module(x, y), module(y, x))
    black = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    assert torch.isfinite(module(black, black + 255)).all()


def test_a_batch_is_its_images_one_by_one():
    module, (x, y) = Lpips(random_tensors()), images(3)
    alone = [module(x[i : i + 1], y[i : i + 1]).item() for i in range(3)]
    assert module(x, y).tolist() == pytest.approx(alone, abs=1e-6)


def test_it_measures_in_fp32_and_trains_nothing():
    module, (x, y) = Lpips(random_tensors()), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            torch.equal(module(x, y), Lpips(random_tensors())(x, y))
            and module(x, y).dtype == torch.float32
        )
    assert (
        not any(parameter.requires_grad for parameter in module.parameters())
        and not module.training
    )
    prediction = x.float().requires_grad_()
    module(prediction, y).sum().backward()
    assert prediction.grad.abs().sum() > 0  # and may serve as a loss


def test_making_one_draws_no_random_numbers():
    state = torch.get_rng_state()
    Lpips(random_tensors())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_file_gives_back_the_same_measure(tmp_path):
    tensors, (x, y) = random_tensors(2), images()
    save_file(tensors | {"classifier.6.bias": torch.zeros(1000)}, tmp_path / "lpips.safetensors")
    loaded = Lpips.load(tmp_path / "lpips.safetensors")
    assert set(loaded.state_dict()) == set(SHAPES) and torch.equal(
        loaded(x, y), Lpips(tensors)(x, y)
    )


def test_a_file_in_half_precision_is_read_as_fp32(tmp_path):
    tensors = {key: value.half() for key, value in random_tensors().items()}
    save_file(tensors, tmp_path / "half.safetensors")
    assert {
        parameter.dtype for parameter in Lpips.load(tmp_path / "half.safetensors").parameters()
    } == {torch.float32}


def test_a_wrong_file_is_named_with_its_first_wrong_key(tmp_path):
    path, tensors = tmp_path / "bad.safetensors", random_tensors()

    def refusal():
        with pytest.raises(ValueError, match=r"bad\.safetensors: ") as caught:
            Lpips.load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "expected a safetensors file" in refusal()
    path.write_bytes(b"no weights at all")
    assert "expected a safetensors file" in refusal()
    save_file(
        {
            key: value
            for key, value in tensors.items()
            if key not in ("features.3.bias", "heads.4.weight")
        },
        path,
    )
    assert refusal().endswith("features.3.bias is missing")
    save_file(tensors | {"heads.2.weight": torch.ones(1, 512, 1, 1)}, path)
    assert refusal().endswith("heads.2.weight: expected shape (1, 384, 1, 1), got (1, 512, 1, 1)")


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "words"),
    [
        (
            (1, 3, 40, 40),
            (1, 3, 40, 41),
            r"expected two \[B, 3, H, W\], got \(1, 3, 40, 40\) and \(1, 3, 40, 41\)",
        ),
        ((1, 1, 40, 40), (1, 1, 40, 40), r"expected two \[B, 3, H, W\]"),
        ((3, 40, 40), (3, 40, 40), r"expected two \[B, 3, H, W\]"),
        ((1, 3, 30, 40), (1, 3, 30, 40), r"at least 31 pixels, got \(30, 40\)"),
    ],
)
def test_what_cannot_be_compared_is_named(x_shape, y_shape, words):
    with pytest.raises(ValueError, match=words):
        Lpips(random_tensors())(torch.zeros(x_shape), torch.zeros(y_shape))
