"""Tables of tasks, models, metrics and settings of the studio."""

import json
import subprocess
import sys

import pytest

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.web.jobs.spec import python_command
from visionloop.bin.web.tables.settings import (
    CHOSEN_ELSEWHERE,
    OWN_AUGMENTATION,
    important_settings,
)
from visionloop.engine.config.options import fields_of
from visionloop.engine.config.train_config import TrainConfig

TASKS = [
    "classification",
    "detection",
    "segmentation",
    "instance_segmentation",
    "panoptic_segmentation",
    "super_resolution",
]


def printed(*words):
    """Return the JSON that a command prints."""
    done = subprocess.run(python_command("models", *words), capture_output=True, check=True)
    return json.loads(done.stdout)


def test_tasks_and_models_are_the_rows_of_the_contract(get):
    tasks = get("/tasks")["tasks"]
    models = get("/models")["models"]

    assert [{k: v for k, v in row.items() if k != "command"} for row in tasks] == printed(
        "tasks", "--json"
    )
    assert [row["command"] for row in tasks] == TASKS
    more = ("command", "weights")
    assert [{k: v for k, v in row.items() if k not in more} for row in models] == printed(
        "list", "--json"
    )
    assert get("/models", task="detection")["models"] == [
        row for row in models if row["command"] == "detection"
    ]
    assert get("/models", status=404, task="nonsense")["field"] == "task"


def test_weights_of_a_model_are_in_the_cache_or_on_the_hub_or_nowhere(get, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    name = "google/vit-base-patch16-224"
    before = {row["model_id"]: row["weights"] for row in get("/models")["models"]}
    repository = cache / "models--google--vit-base-patch16-224"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "model.safetensors").write_bytes(b"")
    after = {row["model_id"]: row["weights"] for row in get("/models")["models"]}

    assert before["tiny"] == after["tiny"] == "none"
    assert before[name] == "hub"
    assert after[name] == "cached"
    assert {k for k in before if before[k] != after[k]} == {name}


def test_metrics_are_those_that_the_command_prints(get):
    assert get("/metrics") == printed("metrics", "--json")


@pytest.mark.parametrize("zoo", MODEL_ZOOS, ids=TASKS)
def test_every_setting_of_a_task_is_in_one_group_and_ten_matter_first(get, zoo):
    table = get(f"/tasks/{zoo.command}/settings")
    rows = [row for group in table["groups"] for row in group["settings"]]
    names = [row["name"] for row in rows]

    assert sorted(names) == sorted(
        set(fields_of(zoo.config_class, TrainConfig)) - {*CHOSEN_ELSEWHERE, *OWN_AUGMENTATION}
    )
    assert {row["name"] for row in rows if row["important"]} == set(important_settings(zoo))
    assert len(important_settings(zoo)) == 10
    assert [row["name"] for row in table["presets"]] == list(zoo.presets)
    assert table["error"] is None
    assert all((row["choices"] is not None) == (row["type"] == "choice") for row in rows)


def test_values_of_settings_follow_the_model_and_the_preset(get):
    def values(**query):
        table = get("/tasks/classification/settings", **query)
        rows = [row for group in table["groups"] for row in group["settings"]]
        return table, {row["name"]: row["value"] for row in rows}

    tiny, scratch = values(model="tiny")
    vit, finetune = values(model="google/vit-base-patch16-224")
    _, quick = values(model="google/vit-base-patch16-224", preset="quick")

    assert (tiny["preset"], vit["preset"]) == ("scratch", "finetune")
    assert (scratch["epochs"], finetune["epochs"], quick["epochs"]) == (100, 20, 3)
    assert vit["presets"][0]["values"]["epochs"] == 3


def test_a_wrong_preset_gives_the_defaults_and_the_reason(get):
    table = get("/tasks/detection/settings", preset="quick")

    assert table["error"]["field"] == "preset"
    assert "finetune, scratch" in table["error"]["message"]


def test_models_and_data_of_settings_are_of_the_table_or_below_the_roots(get, tmp_path):
    path = "/tasks/segmentation/settings"
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (tmp_path / "models" / "link").symlink_to(outside)

    assert get(path, status=422, model="someone/else")["code"] == "unknown_model"
    assert get(path, status=403, model=str(outside))["code"] == "outside_roots"
    assert get(path, status=403, model=str(tmp_path / "models" / "link"))["field"] == "model"
    assert get(path, status=403, data=str(outside))["field"] == "data"
    assert get(path, model=str(tmp_path / "models"))["error"] is None


def test_the_tables_import_neither_torch_nor_transformers():
    code = (
        "import sys, visionloop.bin.web.app as app\n"
        "from visionloop.bin.web.tables.tables import model_rows, task_rows, zoo_of\n"
        "from visionloop.bin.web.tables.settings import settings_table\n"
        "model_rows(None), task_rows(), settings_table(zoo_of('detection'), {})\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "set()", done.stderr
