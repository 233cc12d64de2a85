"""Folders of models: configs that cannot be read, weights that are not there."""

import json

import pytest

from visionloop.engine.errors import UserError
from visionloop.tasks.huggingface.hub import check_folder
from visionloop.tasks.huggingface.loading import load_config


@pytest.mark.parametrize("model_type", ["vit", "d_fine", "eomt", "swin2sr"])
def test_a_field_of_the_wrong_type_is_an_error_that_names_it(tmp_path, model_type):
    field = {"d_fine": "num_queries", "swin2sr": "embed_dim"}.get(model_type, "hidden_size")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, field: "many"}))
    with pytest.raises(UserError, match=rf"config\.json.*{field}") as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "nothing of ours"}', "{}"])
def test_a_config_that_transformers_does_not_know_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="--model") as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_shards_is_one_line_with_the_command_that_makes_it_whole(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights-00001-of-00002.safetensors").touch()
    with pytest.raises(UserError) as caught:
        check_folder(tmp_path)
    assert str(caught.value) == (
        f"--model {tmp_path}: a checkpoint of a sharded run; use best/ of the run, or write it "
        f"whole: visionloop-checkpoint consolidate {tmp_path} OUTPUT"
    )
    assert check_folder(tmp_path, weights=False) == tmp_path
