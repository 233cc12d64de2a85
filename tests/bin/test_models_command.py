"""`visionloop-models` as a person and a platform use it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from visionloop.bin import models
from visionloop.bin.model_zoo.listing import MODEL_ZOOS, find_model
from visionloop.bin.model_zoo.verify import verify_model
from visionloop.tasks.huggingface.hub import HUB_FILES
from visionloop.tasks.model_zoo import START
from visionloop.tasks.super_resolution.architectures import ARCHITECTURES

commands = models.command  # what the fixture `command` runs
CHOSEN = [
    "google/vit-base-patch16-224",
    "ustc-community/dfine-xlarge-coco",
    "tue-mps/ade20k_semantic_eomt_large_512",
    "tue-mps/coco_instance_eomt_large_640",
    "tue-mps/coco_panoptic_eomt_large_640",
    "caidas/swin2SR-classical-sr-x2-64",
]
TASK_TYPES = [
    "image_classification",
    "object_detection",
    "semantic_segmentation",
    "instance_segmentation",
    "panoptic_segmentation",
    "super_resolution",
]
SUPER_RESOLUTION = MODEL_ZOOS[TASK_TYPES.index("super_resolution")]


def as_json(result):
    code, out, err = result
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_chosen_models_come_first_then_their_families(command):
    rows = as_json(command("list", "--json"))
    assert [row["model_id"] for row in rows[: len(CHOSEN)]] == CHOSEN
    assert [row["task_type"] for row in rows[: len(CHOSEN)]] == TASK_TYPES
    families = [TASK_TYPES.index(row["task_type"]) for row in rows[len(CHOSEN) :]]
    assert families == sorted(families) and len(rows) == sum(len(zoo.models) for zoo in MODEL_ZOOS)


def test_the_list_for_people_has_a_line_for_each_model(command):
    code, out, _ = command("list")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 1 + sum(len(zoo.models) for zoo in MODEL_ZOOS)
    assert lines[1].split()[:3] == ["google/vit-base-patch16-224", "image_classification", "86.6"]
    assert "not measured" in lines[len(CHOSEN)] and "0.558" in lines[2]


@pytest.mark.parametrize("task", ["super_resolution", "super-resolution"])
def test_a_task_lists_its_own_models_alone(command, task):
    rows = as_json(command("list", "--task", task, "--json"))
    assert {row["task_type"] for row in rows} == {"super_resolution"}
    assert len(rows) == len(SUPER_RESOLUTION.models)


@pytest.mark.parametrize(
    ("name", "task_type"),
    [
        ("eomt-large-panoptic", "panoptic_segmentation"),
        ("tue-mps/coco_instance_eomt_large_1280", "instance_segmentation"),
        ("ade20k_semantic_eomt_large_512", "semantic_segmentation"),
    ],
)
def test_a_model_that_others_only_start_from_is_shown_by_the_task_it_was_trained_for(
    command, name, task_type
):
    row = as_json(command("show", name, "--json"))
    assert row["task_type"] == task_type and " are a start." not in row["description"]
    for other in {"segmentation", "instance_segmentation", "panoptic_segmentation"}:
        start = as_json(command("show", name, "--task", other, "--json"))
        is_own = start["task_type"] == task_type
        assert start["model_id"] == row["model_id"] and start["performance"] == row["performance"]
        assert (" are a start." in start["description"]) != is_own
        assert is_own == (start["priority"] < START)


def test_a_type_and_the_name_of_its_command_are_the_same_task(command):
    assert command("list", "--task", "object_detection") == command("list", "--task", "detection")


def test_an_alias_shows_the_row_of_its_model(command):
    by_alias = as_json(command("show", "caidas/swin2sr-classicalsr-x2-64", "--json"))
    assert by_alias == as_json(command("show", "caidas/swin2SR-classical-sr-x2-64", "--json"))
    assert by_alias["performance"] is None and by_alias["upscale_factor"] == 2
    assert by_alias in as_json(command("list", "--json"))


def test_show_tells_people_what_is_not_measured_and_the_source_of_each_number(command):
    code, out, _ = command("show", "classical-x2")
    assert code == 0 and max(map(len, out.splitlines())) <= 120
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
    assert lines["performance"] == "not measured"
    assert "verify" in lines["source of params"]


def test_a_name_of_several_tasks_needs_its_task(command):
    code, out, err = command("show", "tiny")
    names = " or ".join(zoo.command for zoo in MODEL_ZOOS)
    assert (code, out) == (2, "") and f"add --task {names}" in err
    assert (
        as_json(command("show", "tiny", "--task", "detection", "--json"))["task_type"]
        == "object_detection"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["show", "dfine_x"],
            "error: dfine_x: not in the model zoo, which `list` prints; "
            "did you mean dfine_x_coco?\n",
        ),
        (["show", "xyz"], "error: xyz: not in the model zoo, which `list` prints\n"),
        (
            ["list", "--task", "deblur"],
            f"error: --task deblur: expected one of {', '.join(TASK_TYPES)}\n",
        ),
        (
            ["download", "denoise"],
            "error: denoise: an architecture without released weights, nothing to download\n",
        ),
    ],
)
def test_what_the_table_does_not_have_is_one_line(command, arguments, message):
    assert command(*arguments) == (2, "", message)


def test_tasks_carry_what_a_user_interface_shows(command):
    tasks = as_json(command("tasks", "--json"))
    assert [task["value"] for task in tasks] == TASK_TYPES
    assert [task["label"]["ko"] for task in tasks] == [
        "이미지 분류",
        "객체 검출",
        "시맨틱 분할",
        "인스턴스 분할",
        "파놉틱 분할",
        "초해상도",
    ]
    primary_metrics = ["accuracy", "mAP50", "miou", "mAP", "pq", "psnr"]
    assert [task["primary_metric"] for task in tasks] == primary_metrics
    assert all(
        set(task) == {"value", "label", "icon", "primary_metric", "data_layout"} for task in tasks
    )
    assert all(task["icon"] and task["label"]["en"] and task["data_layout"] for task in tasks)


def test_columns_stay_in_line_beside_korean(command):
    code, out, _ = command("tasks")
    ends = [
        line.index(task["primary_metric"])
        for line, task in zip(out.splitlines()[1:], [t.as_json() for t in MODEL_ZOOS], strict=True)
    ]
    syllables = [sum("가" <= letter <= "힣" for letter in line) for line in out.splitlines()[1:]]
    assert code == 0 and len({end + wide for end, wide in zip(ends, syllables, strict=True)}) == 1


def test_metrics_name_the_primary_score_and_the_one_that_selects_the_best(command):
    metrics = as_json(command("metrics", "--json"))
    assert {task: (scores["primary"], scores["best"]) for task, scores in metrics.items()} == {
        "image_classification": ("accuracy", "accuracy"),
        "object_detection": ("mAP50", "mAP"),
        "semantic_segmentation": ("miou", "miou"),
        "instance_segmentation": ("mAP", "mAP"),
        "panoptic_segmentation": ("pq", "pq"),
        "super_resolution": ("psnr", "psnr"),
    }
    for scores in metrics.values():
        keys = [row["key"] for row in scores["metrics"]]
        assert {scores["primary"], scores["best"], "val_loss"} <= set(keys) and len(keys) == len(
            set(keys)
        )
        assert all(
            set(row) == {"key", "label", "format", "higher_is_better", "description"}
            for row in scores["metrics"]
        )
        assert {row["format"] for row in scores["metrics"]} <= {"float", "percent"}
    (lpips,) = [row for row in metrics["super_resolution"]["metrics"] if row["key"] == "lpips"]
    assert lpips["higher_is_better"] is False


def test_every_model_builds_offline_with_the_count_of_the_table(command):
    rows = as_json(command("verify", "--json"))
    assert len(rows) == sum(len(zoo.models) for zoo in MODEL_ZOOS)
    assert [row for row in rows if row["problem"] or row["counted"] is None] == []


@pytest.mark.parametrize(
    ("factor", "problem"), [(1.009, None), (1.02, "-2.0 % off"), (0.5, "+100.0 % off")]
)
def test_a_count_more_than_a_percent_off_is_reported(factor, problem):
    table, model = find_model("vit-tiny")
    row = verify_model(table, replace(model, params=round(model.params * factor)))
    assert row["problem"] == problem and row["counted"] == model.params


def test_a_model_that_does_not_build_is_reported_and_the_exit_code_is_1(command, monkeypatch):
    tiny = ARCHITECTURES["tiny"]
    monkeypatch.setitem(
        ARCHITECTURES, "tiny", replace(tiny, fields=tiny.fields | {"num_heads": [7, 7]})
    )  # of width 60
    code, out, _ = command("verify", "--task", "super-resolution")
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert code == 1 and "does not build: " in lines.pop("tiny")
    assert (
        all(line.endswith("ok") for line in lines.values())
        and len(lines) == len(SUPER_RESOLUTION.models) - 1
    )


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub in a folder: what was downloaded from it, as (id, patterns)."""
    asked = []

    def snapshot_download(hub_id, *, allow_patterns, local_files_only=False):
        folder = tmp_path / hub_id.replace("/", "--")
        if not folder.exists():
            if local_files_only:
                raise LocalEntryNotFoundError(hub_id)
            asked.append((hub_id, allow_patterns))
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            (folder / "model.safetensors").write_bytes(bytes(3_000_000))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr("visionloop.tasks.huggingface.hub.offline_reason", lambda: None)
    return asked


def test_download_fills_the_cache_once_with_the_files_that_training_reads(command, hub, tmp_path):
    folder = tmp_path / "ustc-community--dfine-xlarge-coco"
    said = f"ustc-community/dfine-xlarge-coco: 3 MB in {folder}\n"
    for name in ("dfine_x_coco", "ustc-community/dfine-xlarge-coco"):
        assert command("download", name) == (0, said, "")
    assert hub == [("ustc-community/dfine-xlarge-coco", HUB_FILES)]


def test_download_without_a_network_is_one_line_that_says_what_to_do(
    command, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, out, err = command("download", "google/vit-base-patch16-224")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "not on this machine and HF_HUB_OFFLINE is set" in err
    assert "run this on a machine with a network" in err


def test_help_list_show_and_tasks_import_no_torch():
    code = """
import sys
from visionloop.bin.models import command
for arguments in (
    ["--help"], ["list", "--json"], ["show", "dfine-xlarge-coco"], ["tasks"], ["download", "--help"]
):
    command.main(arguments, standalone_mode=False)
assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules), "imported"
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (run.returncode, run.stderr) == (0, "")
