"""`visionloop-models convert-weights`: pickled weights become a folder that `--model` loads."""

import json
import os
import shutil

import pytest
import torch

from visionloop.bin import models
from visionloop.bin.model_zoo.pickle_process import convert
from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.export import IMAGENET_MEAN, IMAGENET_STD, save_folder
from visionloop.tasks.segmentation.model import load_model, new_config, new_model
from visionloop.tasks.segmentation.recipes import PANOPTIC
from visionloop.tasks.segmentation.weight_conversion import to_transformers

commands = models.command  # what the fixture `command` runs
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_blocks": 1,
    "image_size": 32,
    "num_queries": 5,
}


class Malicious:
    """Creates a file where its pickle is opened by an unpickler that runs code."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def make_module(**fields):
    torch.manual_seed(0)
    config = new_config("tiny")
    for name, value in (SMALL | fields).items():
        setattr(config, name, value)
    return new_model(config, ["sky", "road", "tree"])


def authors_weights(module):
    """The weights of an EoMT as the authors' code on timm's ViT saves them."""
    weights = dict(module.state_dict())
    named = {"network.encoder.pixel_mean": torch.zeros(1, 3, 1, 1), "criterion.x": torch.ones(2)}
    backbone = "network.encoder.backbone."
    for i in range(len(module.layers)):
        layer, block = f"layers.{i}.", f"{backbone}blocks.{i}."
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{layer}attention.{q}_proj.{kind}") for q in "qkv"]
            named[f"{block}attn.qkv.{kind}"] = torch.cat(parts)
            named[f"{block}attn.proj.{kind}"] = weights.pop(f"{layer}attention.out_proj.{kind}")
            for norm in ("norm1", "norm2"):
                named[f"{block}{norm}.{kind}"] = weights.pop(f"{layer}{norm}.{kind}")
            if module.config.use_swiglu_ffn:
                mlp = [weights.pop(f"{layer}mlp.{p}_proj.{kind}") for p in ("gate", "up", "down")]
                named[f"{block}mlp.fc1.{kind}"] = torch.cat(mlp[:2])
                named[f"{block}mlp.fc2.{kind}"] = mlp[2]
            else:
                for fc in ("fc1", "fc2"):
                    named[f"{block}mlp.{fc}.{kind}"] = weights.pop(f"{layer}mlp.{fc}.{kind}")
        for n in "12":
            named[f"{block}ls{n}.gamma"] = weights.pop(f"{layer}layer_scale{n}.lambda1")
    positions = weights.pop("embeddings.position_embeddings.weight")
    named[backbone + "pos_embed"] = positions[None]
    registers = weights.pop("embeddings.register_tokens")
    if registers.numel():
        named[backbone + "reg_token"] = registers
    renamed = (
        ("embeddings.cls_token", backbone + "cls_token"),
        ("embeddings.patch_embeddings.projection.", backbone + "patch_embed.proj."),
        ("layernorm.", backbone + "norm."),
        ("query.", "network.q."),
        ("class_predictor.", "network.class_head."),
        ("mask_head.fc1.", "network.mask_head.0."),
        ("mask_head.fc2.", "network.mask_head.2."),
        ("mask_head.fc3.", "network.mask_head.4."),
        ("upscale_block.block.0.layernorm2d.", "network.upscale.0.norm."),
        ("upscale_block.block.0.", "network.upscale.0."),
        ("attn_mask_probs", "network.attn_mask_probs"),
        ("criterion.", "criterion."),
    )
    for name, tensor in weights.items():
        old, new = next(pair for pair in renamed if name.startswith(pair[0]))
        named[name.replace(old, new)] = tensor
    return named


@pytest.fixture
def pickled(tmp_path):
    """Return make(content, module): a folder with config.json and pytorch_model.bin alone."""

    def make(content, module, **options):
        folder = tmp_path / "pickled"
        shutil.rmtree(folder, ignore_errors=True)
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        save_folder(module, module.state_dict(), folder, module.config.image_size, mean, std)
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "pytorch_model.bin", **options)
        return folder

    return make


@pytest.mark.parametrize("names", ["transformers", "authors"])
@pytest.mark.parametrize(
    "fields", [{}, {"use_swiglu_ffn": True, "num_register_tokens": 4}], ids=["mlp", "swiglu"]
)
def test_every_weight_of_a_converted_folder_is_that_of_the_pickle(pickled, tmp_path, names, fields):
    module = make_module(**fields)
    weights = module.state_dict() if names == "transformers" else authors_weights(module)
    folder, output = pickled(weights, module), tmp_path / "output"
    convert_here(folder, output)
    stored = load_model(output).state_dict()
    for name, tensor in module.state_dict().items():
        assert torch.equal(stored[name], tensor) or name == "attn_mask_probs", name


def convert_here(folder, output):
    """What the command does, without a process of its own: that one takes seconds to start."""
    output.mkdir()
    convert(folder, output)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(folder / name, output / name)


def test_the_command_writes_a_folder_that_model_loads(command, pickled, tmp_path):
    module = make_module()
    folder, output = pickled(module.state_dict(), module), tmp_path / "output"
    with pytest.raises(UserError, match=rf"`visionloop-models convert-weights {folder} OUTPUT`"):
        PANOPTIC.names.find(str(folder), False)
    assert command("convert-weights", str(folder), str(output)) == (0, f"{output}\n", "")
    assert PANOPTIC.names.find(str(output), False).folder == output
    assert torch.equal(load_model(output).query.weight, module.query.weight)
    code, _, err = command("convert-weights", str(folder), str(output))
    assert (code, err) == (2, f"error: {output}: exists, expected a new folder\n")


def test_a_malicious_pickle_is_refused_and_runs_nothing(command, pickled, tmp_path):
    marker = tmp_path / "marker"
    folder = pickled({"query.weight": Malicious(marker)}, make_module())
    code, out, err = command("convert-weights", str(folder), str(tmp_path / "output"))
    assert (code, out) == (2, "") and err.count("\n") == 1 and not marker.exists()
    assert f"error: {folder}: pytorch_model.bin: not a file of tensors alone" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pickled"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([torch.ones(2)], "expected a dictionary of tensors"),
        ({}, "expected a dictionary of tensors"),
        ({"epoch": 3, "state_dict": {}}, "epoch: expected a dense tensor"),
        ({3: torch.ones(2)}, "3: expected a dense tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a: expected a dense tensor"),
        ({"network.blocks.0.x": torch.ones(2)}, "not a weight of EoMT on timm's ViT"),
    ],
)
def test_anything_but_named_tensors_is_refused(pickled, tmp_path, content, why):
    with pytest.raises(ValueError, match=why):
        convert(pickled(content, make_module()), tmp_path)


def test_files_of_another_kind_are_refused(pickled, tmp_path):
    module = make_module()
    old = pickled(module.state_dict(), module, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="not a file of tensors alone"):
        convert(old, tmp_path)
    (old / "pytorch_model.bin").write_bytes(b"no zip archive")
    with pytest.raises(ValueError, match="not a file of tensors alone"):
        convert(old, tmp_path)


def test_a_split_pickle_is_read_whole_and_only_within_its_folder(pickled, tmp_path):
    module = make_module()
    folder = pickled(module.state_dict(), module)
    (folder / "pytorch_model.bin").unlink()
    files, weights = ("a.bin", "b.bin"), list(module.state_dict().items())
    for file, part in zip(files, (weights[:9], weights[9:]), strict=True):
        torch.save(dict(part), folder / file)
    file_of = {name: files[i >= 9] for i, (name, _) in enumerate(weights)}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": file_of}))
    convert_here(folder, tmp_path / "output")
    assert torch.equal(load_model(tmp_path / "output").query.weight, module.query.weight)
    for text, why in (('{"weight_map": {"a": "../a.bin"}}', "outside"), ("[]", "weight_map")):
        index.write_text(text)
        with pytest.raises(ValueError, match=why):
            convert(folder, tmp_path)


def test_weights_of_another_shape_than_the_config_are_refused(command, pickled, tmp_path):
    folder = pickled(make_module(num_queries=7).state_dict(), make_module())
    code, _, err = command("convert-weights", str(folder), str(tmp_path / "output"))
    assert code == 2 and "query.weight is [7, 32], config.json asks for [5, 32]" in err
    assert not (tmp_path / "output").exists()


def test_a_folder_without_config_or_pickle_is_one_line(command, tmp_path):
    folder, output = tmp_path / "folder", str(tmp_path / "output")
    folder.mkdir()
    assert "no pytorch_model.bin" in command("convert-weights", str(folder), output)[2]
    (folder / "pytorch_model.bin").write_bytes(b"x")
    (folder / "config.json").write_text('{"backbone": "vit"}')
    code, _, err = command("convert-weights", str(folder), output)
    assert code == 2 and err.endswith("expected the config of transformers, with model_type\n")


def test_the_parts_of_a_renamed_weight_are_views_of_it():
    qkv = torch.randn(12, 4)
    name = "network.encoder.backbone.blocks.3.attn.qkv.weight"
    parts = to_transformers({name: qkv}, use_swiglu=False)
    storage = qkv.untyped_storage().data_ptr()
    assert list(parts) == [f"layers.3.attention.{q}_proj.weight" for q in "qkv"]
    assert all(part.untyped_storage().data_ptr() == storage for part in parts.values())


def test_a_name_whose_weights_are_a_pickle_names_the_command(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("eomt-7b", "eomt-7b-panoptic", "tue-mps/coco_panoptic_eomt_7b_640"):
        with pytest.raises(UserError, match=r"are a pickle, .* convert-weights FOLDER OUTPUT"):
            PANOPTIC.names.find(name, False)
        assert PANOPTIC.names.find(name, True).name == "eomt-7b"
