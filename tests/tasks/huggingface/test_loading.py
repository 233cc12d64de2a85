"""Configs of Hugging Face folders."""

import json

import pytest

from visionloop.engine.errors import UserError
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
