"""Options of the command line: how they arrive, and what `--help` says of them."""

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from visionloop.bin import (
    classification,
    detection,
    instance_segmentation,
    panoptic_segmentation,
    segmentation,
    super_resolution,
)
from visionloop.bin.commands.options import SectionCommand, options_from
from visionloop.engine.config.options import GROUPS, fields_of, option
from visionloop.engine.config.train_config import TaskConfig, TrainConfig
from visionloop.tasks.classification.config import ClassificationConfig
from visionloop.tasks.detection.config import DetectionConfig
from visionloop.tasks.segmentation.instance.config import InstanceConfig
from visionloop.tasks.segmentation.panoptic.config import PanopticConfig
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.super_resolution.config import SuperResolutionConfig

LAUNCHERS = (
    classification,
    detection,
    segmentation,
    instance_segmentation,
    panoptic_segmentation,
    super_resolution,
)
CONFIGS = (
    ClassificationConfig,
    DetectionConfig,
    SemanticConfig,
    InstanceConfig,
    PanopticConfig,
    SuperResolutionConfig,
)


@dataclass(frozen=True)
class SmallConfig:
    """One field of every kind."""

    lr: float = option(1e-3, "learning rate", group="Optimization", at_least=0)
    clip_grad: float = option(1.0, "largest norm", group="Optimization", at_least=0)
    steps: int | None = option(None, "how many", at_least=1)
    layer_decay: float = option(0.5, "per layer", at_least=0, at_most=1)
    ema: bool = option(True, "average")
    compile: bool = option(False, "compile", fixed=False)
    precision: Literal["fp32", "bf16"] = option("bf16", "dtype", group="Precision and memory")
    data: str | None = option(None, "folder", group="Data", is_path=True)


@dataclass(frozen=True)
class OtherConfig:
    side_length: int = option(64, "pixels")


BOTH = (SmallConfig, OtherConfig)


def run_command(*arguments, classes=BOTH, recipe=None):
    received = {}

    @click.command(cls=SectionCommand)
    @options_from(*classes)
    def command(**flags):
        received.update(flags)

    command.config_classes, command.recipe = classes, recipe
    result = CliRunner().invoke(command, arguments, terminal_width=200)
    return result, received


def test_options_that_are_not_given_arrive_as_none():
    result, received = run_command()
    assert result.exit_code == 0
    assert received == dict.fromkeys(fields_of(*BOTH))


def test_a_switch_can_be_turned_on_and_off():
    received = run_command("--ema", "--no-compile")[1]
    assert received["ema"] is True and received["compile"] is False
    assert run_command("--no-ema")[1]["ema"] is False


def test_flags_have_hyphens_and_the_field_s_type():
    _, received = run_command(
        "--layer-decay", "0.25", "--steps", "7", "--clip-grad", "inf", "--data", "7"
    )
    names = ("layer_decay", "steps", "clip_grad", "data")
    assert [received[name] for name in names] == [0.25, 7, float("inf"), "7"]


@pytest.mark.parametrize(
    "arguments", [("--steps", "1.5"), ("--lr", "fast"), ("--precision", "fp8"), ("--lern", "1")]
)
def test_what_click_refuses_exits_with_2_and_names_the_option(arguments):
    result, _ = run_command(*arguments)
    assert result.exit_code == 2 and arguments[0] in result.output


def test_help_shows_each_option_with_its_default_and_choices():
    text = " ".join(run_command("--help")[0].output.split())
    assert "learning rate [default: 1e-3]" in text
    assert "average [default: true]" in text and "compile [default: false]" in text
    assert "--ema / --no-ema" in text and "--precision [fp32|bf16] dtype [default: bf16]" in text
    assert "how many --" in text, "what is resolved later has no default to show"


def test_help_has_a_section_for_each_subject_in_their_order():
    headings = re.findall(r"^(\S.*):$", run_command("--help")[0].output, re.MULTILINE)
    assert headings == ["Data", "Optimization", "Precision and memory", "Other"]
    assert headings == [group for group in GROUPS if group in headings]


def test_every_setting_has_help_in_a_full_phrase_a_section_and_a_flag():
    for config in CONFIGS:
        fields = fields_of(config, TrainConfig)
        text = run_command("--help", classes=(config, TrainConfig))[0].output
        for name, (item, _) in fields.items():
            help = item.metadata["help"]
            assert len(help.split()) > 2 and (help[0].isupper() or help[0].isdigit()), name
            assert item.metadata["group"] != "Other", name
            assert f"--{name.replace('_', '-')}" in text


def recipe(values):
    """Another learning rate for another model."""
    model = values["model"] or "small"
    return {"model": model, "preset": "finetune", "lr": 3e-4 if model == "small" else 5e-5}


@pytest.mark.parametrize(("arguments", "expected"), [
    ((), "[default: 3e-4, preset finetune]"),
    (("--model", "large"), "[default: 5e-5, preset finetune]"),
    (("--lr", "0.5"), "[given: 0.5]"),
    (("--lr", "fast"), "[default: 3e-4, preset finetune]"),
])  # fmt: skip
@pytest.mark.parametrize("help_first", [True, False])
def test_help_shows_the_default_of_the_recipe_that_the_command_line_chooses(
    arguments, expected, help_first
):
    arguments = ("--help", *arguments) if help_first else (*arguments, "--help")
    result, _ = run_command(*arguments, classes=(TaskConfig, TrainConfig), recipe=recipe)
    text = " ".join(result.output.split())
    assert result.exit_code == 0 and f"at the end of warm-up {expected}" in text
    assert ("--lr: expected a number, got 'fast'" in text) == ("fast" in arguments)


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda module: module.__name__[15:])
def test_train_help_of_every_task_names_the_model_and_preset_of_its_defaults(launcher):
    def help_of(*arguments):
        result = CliRunner().invoke(launcher.commands, ["train", *arguments, "--help"])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    presets = {re.search(r"--model tiny, --preset (\w+)\.", help_of("--model", "tiny"))[1]}
    presets.add(re.search(r"--preset (\w+)\.", help_of("--preset", "finetune"))[1])
    assert presets == {"scratch", "finetune"}


@pytest.mark.parametrize("command", ["evaluate", "predict", "check", "replay", "export", "health"])
def test_help_of_every_command_is_in_sections_and_full_phrases(command):
    for launcher in LAUNCHERS:
        text = CliRunner().invoke(launcher.commands, [command, "--help"]).output
        assert "\nOptions:\n" not in text and "\nOther:\n" in text and "  --traceback " in text
        for param in launcher.commands.commands[command].params:
            assert param.help[0].isupper() or param.help[0].isdigit(), (command, param.name)


def test_help_with_the_recipe_s_defaults_imports_no_torch():
    code = (
        "import sys\nfrom visionloop.bin.segmentation import main\n"
        "sys.argv = ['x', 'train', '--help']\ntry:\n    main()\nfinally:\n"
        "    assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
