"""Whole weights written tensor by tensor, which safetensors and transformers read."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import EomtConfig, EomtForUniversalSegmentation

from visionloop.engine.checkpoints.weight_files import DTYPES, INDEX, WEIGHTS_FILE, write_weights
from visionloop.engine.testing.short_runs import same_bits

CONFIG = EomtConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_blocks=1,
    num_queries=4,
    image_size=32,
    patch_size=8,
    num_upscale_blocks=1,
    id2label={0: "sky", 1: "road"},
)


def test_every_dtype_and_shape_is_read_back_bit_for_bit(tmp_path):
    tensors = {}
    for i, dtype in enumerate(DTYPES):
        values = torch.arange(12).reshape(3, 4) % 2 + i
        tensors[f"matrix.{i}"] = values.to(dtype)
        tensors[f"scalar.{i}"] = values[1, 1].to(dtype)
        tensors[f"empty.{i}"] = torch.empty(1, 0, 3, dtype=dtype)
    tensors["transposed"] = torch.arange(6.0).reshape(2, 3).t()
    write_weights(tmp_path, tensors)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_FILE]
    read = load_file(tmp_path / WEIGHTS_FILE)
    assert read.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(read[name], tensors[name])] == []
    assert [name for name in tensors if read[name].dtype != tensors[name].dtype] == []


@pytest.mark.parametrize("largest_file", [10**9, 4000, 1])
def test_from_pretrained_reads_weights_in_one_file_or_split_with_an_index(largest_file, tmp_path):
    torch.manual_seed(0)
    module = EomtForUniversalSegmentation(CONFIG)
    tensors = module.state_dict()
    CONFIG.save_pretrained(tmp_path)
    write_weights(tmp_path, tensors, largest_file=largest_file)
    files = sorted(tmp_path.glob("*.safetensors"))
    if largest_file == 10**9:
        assert [path.name for path in files] == [WEIGHTS_FILE]
    else:
        assert not (tmp_path / WEIGHTS_FILE).exists()
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
        assert sorted(set(index["weight_map"].values())) == [path.name for path in files]
        contents = {path.name: load_file(path) for path in files}
        for name, content in contents.items():
            size = sum(tensor.nbytes for tensor in content.values())
            assert len(content) == 1 or size <= largest_file
            assert {key for key, file in index["weight_map"].items() if file == name} == set(
                content
            )
        assert len(files) > (1 if largest_file > 1 else len(tensors) - 1)
    read, report = EomtForUniversalSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    loaded = read.state_dict()
    assert [name for name in tensors if not same_bits(loaded[name], tensors[name])] == []
