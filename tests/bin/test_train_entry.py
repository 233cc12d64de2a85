"""The entry for platforms passes its arguments to the command of the task."""

import json

import pytest

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.train import command

GIVEN = {
    "model_name": "tiny",
    "dataset_path": "images",
    "epochs": "2.5",
    "batch_size": "12",
    "learning_rate": "0.00012345678",
    "job_id": "17",
}


def settings_of(capsys, *words):
    run_commands(command, [*words, "--dry-run"])
    return {name: setting["value"] for name, setting in json.loads(capsys.readouterr().out).items()}


@pytest.mark.parametrize("task_type", [table.value for table in MODEL_ZOOS])
def test_every_task_gets_its_settings(capsys, tmp_path, task_type):
    words = [word for name, value in GIVEN.items() for word in (f"--{name}", value)]
    given = [
        "--framework",
        "huggingface",
        "--task_type",
        task_type,
        "--output_path",
        str(tmp_path),
        *words,
        "--precision",
        "bf16",
    ]
    settings = settings_of(capsys, *given)
    expected = {
        "model": "tiny",
        "data": "images",
        "epochs": 2.5,
        "batch_size": 12,
        "lr": 0.00012345678,
        "precision": "bf16",
    }
    assert settings | expected | {"output": str(tmp_path / "17")} == settings


def test_a_folder_that_is_the_jobs_own_is_taken_as_it_is(capsys, tmp_path):
    words = [
        "--task-type",
        "classification",
        "--model-name",
        "tiny",
        "--dataset-path",
        "p",
        "--output-path",
        str(tmp_path / "17"),
    ]
    assert settings_of(capsys, *words, "--job-id", "17")["output"] == str(tmp_path / "17")
    assert settings_of(capsys, *words)["output"] == str(tmp_path / "17")


def test_a_job_cannot_name_a_folder_elsewhere(capsys):
    for name in ("../17", "/tmp/17", ".."):
        with pytest.raises(SystemExit) as left:
            settings_of(
                capsys,
                "--task_type",
                "detection",
                "--model_name",
                "tiny",
                "--dataset_path",
                "p",
                "--job_id",
                name,
            )
        assert left.value.code == 2 and "expected the name of a folder" in capsys.readouterr().err


def test_mistakes_in_options_of_the_task_are_reported_by_it(capsys, tmp_path):
    words = [
        "--task_type",
        "segmentation",
        "--model_name",
        "tiny",
        "--dataset_path",
        "none",
        "--output_path",
        str(tmp_path),
    ]
    with pytest.raises(SystemExit) as left:
        run_commands(command, [*words, "--epochs", "1", "--no-such"])
    assert left.value.code == 2 and "--no-such" in capsys.readouterr().err
