"""Command lines as other tools have them get one line that says what to give instead."""

import click
import pytest

from visionloop.bin import classification, detection
from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.usage_hints import HINT_OF
from visionloop.engine.checkpoints.start import find_start
from visionloop.engine.errors import UserError
from visionloop.tasks.classification.architectures import MODEL_NAMES
from visionloop.tasks.huggingface.hub import check_folder


def refuse(capsys, *arguments, group=classification.commands):
    """Run a command that exits with 2 and return its one line on stderr."""
    with pytest.raises(SystemExit) as ended:
        run_commands(group, arguments)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and text.count("\n") == 1 and text.startswith("error: ")
    return text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--batch", "8"], "--batch: no such option; give --batch-size"),
        (["train", "--batch_size", "8"], "it is written --batch-size"),
        (["train", "--imgsz", "640"], "give --image-size"),
        (["train", "--lr0", "0.01"], "give --lr"),
        (["train", "--weights", "best.pt"], "give --model"),
        (["train", "--num_workers", "2"], "give --workers"),
        (["train", "--gpus", "2"], "torchrun --nproc-per-node N"),
        (["train", "--local-rank", "0"], "torchrun"),
        (["--local-rank=0", "train"], "torchrun"),
        (["--local_rank=0", "train"], "torchrun"),
        (["train", "--fp16"], "give --precision"),
        (["train", "--device", "0"], "CUDA_VISIBLE_DEVICES=0"),
        (["train", "--device", "cuda:1"], "CUDA_VISIBLE_DEVICES=0"),
        (["predict", "--source", "x"], "give --input"),
        (["mode=train"], "the command train"),
        (["val", "--data", "x"], "No such command 'val'. Give the command evaluate."),
        (["infer"], "the command predict"),
        (["train", "data=x", "epochs=3"], "data=x: settings are given as flags"),
        (["train", "trainer.max_epochs=3"], "--epochs"),
        (["--data", "x"], "begin with a command: train, evaluate"),
    ],
)
def test_options_of_other_tools_are_answered_with_ours(capsys, arguments, expected):
    assert expected in refuse(capsys, *arguments)


def test_every_option_that_is_advised_is_one_of_ours():
    flags = {"--nproc-per-node", "--shutdown-timeout"}
    for group in (classification.commands, detection.commands):
        for command in group.commands.values():
            flags |= {flag for param in command.params for flag in param.opts}
    advised = {
        word.strip(".,:;")
        for hint in HINT_OF.values()
        for word in hint.split()
        if word.startswith("--")
    }
    assert advised <= flags
    assert isinstance(classification.commands, click.Group)


@pytest.mark.parametrize("name", ["best.pt", "runs/x/last.PTH", "model.ckpt", "pytorch_model.bin"])
def test_a_pickle_as_model_is_refused_by_its_name_there_or_not(tmp_path, name):
    (tmp_path / "best.pt").touch()
    for find in (lambda path: MODEL_NAMES.find(path, False), check_folder):
        for path in (name, str(tmp_path / "best.pt")):
            with pytest.raises(UserError, match=r"a pickle, .* not opened; expected a folder with"):
                find(path)


def test_exported_models_and_single_weight_files_say_which_folder_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"model\.onnx: an exported model"):
        MODEL_NAMES.find("model.onnx", False)
    with pytest.raises(UserError, match=rf"its folder with config.json: --model {tmp_path}$"):
        check_folder(tmp_path / "model.safetensors")


@pytest.mark.parametrize("resume", ["True", "last.pt", "auto"])
def test_a_resume_that_is_no_folder_says_how_runs_are_resumed(tmp_path, resume):
    with pytest.raises(
        UserError, match=r"no such folder, expected a checkpoint .* without --resume"
    ):
        find_start(tmp_path, resume, print)


@pytest.mark.parametrize(
    ("name", "expected"), [("data.yaml", "the folder of the data: "), ("data.zip", "extract")]
)
def test_a_file_as_data_says_which_folder_is_expected(tmp_path, capsys, name, expected):
    for exists in (False, True):
        if exists:
            (tmp_path / name).touch()
        for group in (classification.commands, detection.commands):
            line = refuse(
                capsys,
                *("train", "--data", str(tmp_path / name), "--model", "tiny", "--steps", "1"),
                *("--output", str(tmp_path / "run"), "--workers", "0", "--from-scratch"),
                group=group,
            )
            assert expected in line
