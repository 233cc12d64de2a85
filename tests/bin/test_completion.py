"""Words that a shell completes, and suggestions for mistyped ones."""

import subprocess
import sys

import pytest
from click.shell_completion import get_completion_class

from visionloop.bin.classification import commands
from visionloop.bin.commands.cli import SHELLS, program_of, run_commands
from visionloop.bin.commands.usage_hints import DEVICE
from visionloop.bin.super_resolution import commands as super_resolution


def completed(monkeypatch, *words, group=commands):
    """[(kind, value)] for the last of these words, as bash asks for them."""
    monkeypatch.setenv("COMP_WORDS", "\n".join(["program", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    output = get_completion_class("bash")(group, {}, program_of(group), "_X").complete()
    return [tuple(line.split(",", 1)) for line in output.splitlines()]


@pytest.mark.parametrize(("words", "expected"), [
    (("tr",), [("plain", "train")]),
    (("train", "--micro"), [("plain", "--micro-batch")]),
    (("train", "--precision", "b"), [("plain", "bf16")]),
    (("completion", ""), [("plain", shell) for shell in SHELLS]),
])  # fmt: skip
def test_commands_options_and_choices_are_completed(words, expected, monkeypatch):
    assert completed(monkeypatch, *words) == expected


@pytest.mark.parametrize(
    "words",
    [("train", "--data", "pic"), ("predict", "--input", "pic"), ("evaluate", "--model", "pic")],
)
def test_paths_are_left_to_the_shell(words, monkeypatch):
    ((kind, value),) = completed(monkeypatch, *words)
    assert kind in ("dir", "file") and value == "pic"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_for_the_installed_name_and_takes_no_torch(shell):
    code = (
        "import sys; sys.argv = ['x', 'completion', sys.argv[1]]\n"
        "from visionloop.bin.super_resolution import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, shell], capture_output=True, text=True, check=True
    )
    assert (
        "visionloop-super-resolution" in done.stdout
        and "_VISIONLOOP_SUPER_RESOLUTION_COMPLETE" in done.stdout
    )


def refused(capsys, *arguments, group=commands):
    with pytest.raises(SystemExit) as left:
        run_commands(group, arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "expected"), [
    (("trian",), "error: No such command 'trian'. Did you mean 'train'?"),
    (("train", "--run-nam", "x"), "error: No such option '--run-nam'. Did you mean '--run-name'?"),
    (("train", "--precision", "fp23"), "'fp23' is not one of 'auto', 'fp32', 'bf16', 'fp16'."),
    (("train", "--device", "gpu"), "'cuda', 'mps', 'cpu'. " + DEVICE + "."),
    (("train", "--precision", "nonsense"), "'fp32', 'bf16', 'fp16'."),
    (("train", "--dry-run", "--preset", "scrach"), "got 'scrach'; did you mean scratch?"),
])  # fmt: skip
def test_a_mistyped_word_gets_a_suggestion(arguments, expected, capsys):
    assert refused(capsys, *arguments).strip().endswith(expected)


def test_a_mistyped_mode_and_a_mistyped_setting_of_a_file_are_too(capsys, tmp_path):
    message = refused(capsys, "train", "--dry-run", "--mode", "denoize", group=super_resolution)
    assert "'denoize' is not one of" in message and "'denoise'" in message
    (tmp_path / "settings.json").write_text('{"batchsize": 3}')
    message = refused(capsys, "train", "--dry-run", "--config", str(tmp_path / "settings.json"))
    assert message.strip().endswith("unknown setting 'batchsize'; did you mean batch_size?")
