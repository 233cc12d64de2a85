"""`convert lpips`: all published spellings are read, pickles never; errors name file and key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from visionloop.bin import convert as launcher
from visionloop.metrics.lpips import SHAPES, Lpips

commands = launcher.command  # of the fixture `command`
CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture(scope="module")
def alexnet():
    """torchvision's AlexNet, random, without the two layers of its classifier that make 220 MB."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {
            key: value.shape
            for key, value in torchvision.models.alexnet(weights=None).state_dict().items()
        }
    shapes = {
        key: shape
        for key, shape in shapes.items()
        if not key.startswith(("classifier.1", "classifier.4", "classifier.6.weight"))
    }
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def published_heads(spelling="lin{}.model.1.weight"):
    generator = torch.Generator().manual_seed(1)
    return {
        spelling.format(i): torch.rand(1, channels, 1, 1, generator=generator)
        for i, channels in enumerate(CHANNELS)
    }


@pytest.fixture
def files(tmp_path, alexnet):
    """(backbone, heads, output) of which the first two exist."""
    backbone, heads = tmp_path / "alexnet.safetensors", tmp_path / "alex.safetensors"
    save_file(alexnet, backbone)
    save_file(published_heads(), heads)
    return backbone, heads, tmp_path / "new" / "lpips.safetensors"


@pytest.fixture
def convert(convert):
    """(backbone, heads, output) -> (exit code, stdout, stderr) of `convert lpips`."""

    def convert_lpips(backbone, heads, output):
        return convert("lpips", "--backbone", backbone, "--heads", heads, "--output", output)

    return convert_lpips


def refusal(result):
    """The one line on stderr of a UserError."""
    status, out, err = result
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_the_file_holds_both_and_is_read(files, convert, alexnet):
    output = files[2]
    status, out, err = convert(*files)
    assert status == 0 and err == "" and str(output) in out
    tensors = load_file(output)
    assert set(tensors) == set(SHAPES) and os.listdir(output.parent) == ["lpips.safetensors"]
    assert all(
        torch.equal(tensors[key], alexnet[key]) for key in SHAPES if key.startswith("features.")
    )
    assert all(
        torch.equal(tensors[f"heads.{i}.weight"], value)
        for i, value in enumerate(published_heads().values())
    )
    x = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    assert Lpips.load(output)(x, x + 9).item() > 0


@pytest.mark.parametrize("spelling", ["lins.{}.model.1.weight", "heads.{}.weight"])
def test_other_spellings_of_the_heads_give_the_same_bytes(files, convert, spelling):
    _, heads, output = files
    convert(*files)
    expected = output.read_bytes()
    save_file(published_heads(spelling), heads)
    assert convert(*files)[0] == 0 and output.read_bytes() == expected


def test_one_file_may_be_backbone_and_heads(files, convert, alexnet, tmp_path):
    both = tmp_path / "both.safetensors"
    save_file(alexnet | published_heads(), both)
    convert(*files)
    expected = files[2].read_bytes()
    assert convert(both, both, files[2])[0] == 0 and files[2].read_bytes() == expected


def test_a_pickle_is_not_opened_and_the_command_that_rewrites_it_works(files, convert, tmp_path):
    backbone, heads, output = files
    marker, pickled = tmp_path / "opened", tmp_path / "alex.pth"

    class Trap:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save(published_heads() | {"trap": Trap()}, pickled)
    line = refusal(convert(backbone, pickled, output))
    assert (
        f"--heads {pickled}: a pickle, which can run code and is not opened" in line
        and not marker.exists()
        and not output.exists()
    )
    # by its content too
    renamed = pickled.rename(tmp_path / "renamed.safetensors")
    assert "a pickle" in refusal(convert(backbone, renamed, output)) and not marker.exists()

    torch.save(
        {key: torch.nn.Parameter(value) for key, value in published_heads().items()}, pickled
    )
    command = refusal(convert(backbone, pickled, output)).partition('python -c "')[2].rstrip('"\n')
    heads.unlink()
    subprocess.run([sys.executable, "-c", command], check=True)
    assert heads.is_file() and convert(*files)[0] == 0


def test_a_safetensors_file_that_begins_like_a_pickle_is_read(files, convert, alexnet):
    heads = files[1]
    content = heads.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip().ljust(0x280)  # b"\x80\x02", a pickle of protocol 2
    heads.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    assert heads.read_bytes().startswith(b"\x80\x02") and convert(*files)[0] == 0


def test_a_missing_or_wrong_key_is_named_with_its_file(files, convert, alexnet):
    backbone, heads, output = files
    save_file({key: value for key, value in alexnet.items() if key != "features.6.bias"}, backbone)
    assert f"--backbone {backbone}: features.6.bias is missing" in refusal(convert(*files))
    save_file(alexnet | {"features.0.weight": torch.zeros(64, 3, 3, 3)}, backbone)
    assert "features.0.weight: expected shape (64, 3, 11, 11), got (64, 3, 3, 3)" in refusal(
        convert(*files)
    )
    save_file(alexnet, backbone)
    save_file({key: value for key, value in published_heads().items() if "3" not in key}, heads)
    assert (
        f"--heads {heads}: lin3.model.1.weight or lins.3.model.1.weight or heads.3.weight "
        "is missing" in refusal(convert(*files))
    )
    heads.write_bytes(b"nothing of use")
    assert f"--heads {heads}: expected a safetensors file" in refusal(convert(*files))
    assert (
        "No such file" in refusal(convert(backbone, "nowhere.safetensors", output))
        and not output.exists()
    )


def test_foreign_files_are_left_alone(files, convert, tmp_path):
    backbone, heads, _ = files
    assert "is the file of --heads" in refusal(convert(backbone, heads, heads))
    text = tmp_path / "notes.txt"
    text.write_text("mine")
    assert (
        "exists and is not an LPIPS file" in refusal(convert(backbone, heads, text))
        and text.read_text() == "mine"
    )
    assert "exists and is not an LPIPS file" in refusal(convert(backbone, heads, tmp_path))
    assert convert(*files)[0] == 0 and convert(*files)[0] == 0  # an earlier output is replaced


def test_all_three_files_must_be_given(command):
    code, _, err = command("lpips", "--backbone", "a")
    assert code == 2 and "--heads" in err
