"""Every command on a page is run, here or by the tests of its tool, or says that it was not.

Hub models are tiny ones under the same ids, in a cache of the hub's layout; data folders hold a
dozen sample images; runs are cut to a few steps.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import click
import pytest
from page_commands import ROOT, commands_of, pages
from small_hub import fill_hub

from visionloop.datasets.io.folders import IMAGE_SUFFIXES
from visionloop.datasets.synthetic.writers import WRITERS

COMMANDS = [command for page in pages() for command in commands_of(page)]
# folders that the pages speak of: a task's sample data, or images alone
DATA = {
    "images": "classification",
    "signs": "classification",
    "flowers": "classification",
    "cells": "detection",
    "bccd": "detection",
    "DIR": "detection",
    "streets": "segmentation",
    "camvid": "segmentation",
    "nuclei": "instance_segmentation",
    "parks": "panoptic_segmentation",
    "photos": "super_resolution",
    "Set5": "super_resolution",
    "t91-set5": "super_resolution",
    "holiday": None,
    "slides": None,
    "small": None,
}
# the suite itself, a shell's words, and names that stand for any launcher
NOT_PLAYED = (
    "bin/test",
    "bin/setup-environment",
    "source ",
    "tensorboard ",
    "python bin/x.py",
    "torchrun bin/x.py",
)
SECONDS = 600  # that the commands of a task may take on a busy machine


def tool_tests(command):
    """The test file that runs the tool of a command by itself, or None."""
    words = command.line.split()
    if words[0] == "bin/demo":
        return "tests/bin/test_demo.py"
    kind = next((words[i + 1] for i, word in enumerate(words[:-1]) if word.endswith(".py")), "")
    named = {
        "benchmark": "test_benchmark_commands.py",
        "sample_data": "test_sample_data.py",
        "report": "test_report.py",
        "compare": "test_compare.py",
        "follow": "test_follow.py",
        "launch": "test_launch.py",
        "convert": f"test_convert_{kind}.py"
        if kind in ("masks", "instances", "panoptic", "lpips")
        else "test_convert.py",
    }
    return f"tests/bin/{named[command.launcher()]}" if command.launcher() in named else None


def is_played(command):
    return command.run and not tool_tests(command) and not command.line.startswith(NOT_PLAYED)


def played_for(task):
    """Return the commands of all pages that are played together for a task, each line once."""
    task_of = {"train": "detection", "models": "classification", "checkpoint": "classification"}
    lines = {}
    for command in COMMANDS:
        if is_played(command) and task_of.get(command.launcher(), command.launcher()) == task:
            lines.setdefault(tuple(command.words()), command)
    return list(lines.values())


def options_of(launcher):
    """The options of all commands of a launcher."""
    module = importlib.import_module(f"visionloop.bin.{launcher}")
    options, pending = (
        set(),
        [value for value in vars(module).values() if isinstance(value, click.Command)],
    )
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        options |= {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        }
    return options


@pytest.mark.parametrize(
    "launcher", sorted({command.launcher() for command in COMMANDS} - {None, "x"})
)
def test_every_option_that_a_page_shows_exists(launcher):
    options = options_of(launcher)
    for command in (command for command in COMMANDS if command.launcher() == launcher):
        after = command.line.split(f"bin/{launcher}.py", 1)[1].split()
        unknown = [word for word in after if word.startswith("--") and word not in options]
        # a back end's own arguments are forwarded, the rest is the task's
        assert not unknown or launcher in ("train", "launch"), (
            f"{command.page}: {command.line}: {unknown}"
        )


def test_no_required_option_of_a_benchmark_is_left_out():
    benchmarks = importlib.import_module("visionloop.bin.benchmark").command.commands
    for command in (command for command in COMMANDS if command.launcher() == "benchmark"):
        name, *words = command.line.split("bin/benchmark.py", 1)[1].split()
        missing = [
            option.opts
            for option in benchmarks[name].params
            if option.required and not set(option.opts) & set(words)
        ]
        assert not missing, f"{command}: {missing}"


def test_every_command_is_run_here_or_has_tests_of_its_tool_or_is_marked_as_not_run():
    played = {tuple(command.words()) for task in WRITERS for command in played_for(task)}
    for command in COMMANDS:
        if command.run and not command.line.startswith(NOT_PLAYED):
            tests = tool_tests(command)
            assert tests or tuple(command.words()) in played, f"{command}: say `not run here`"
            assert tests is None or (ROOT / tests).exists(), f"{command}: {tests} is missing"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """HF_HOME: a hub's cache with tiny models under the ids of the pages."""
    home = tmp_path_factory.mktemp("hub")
    fill_hub(home)
    return home


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory):
    """Return {task: folder of 12 training and 4 validation images; None: a folder of images}."""
    folders = {task: tmp_path_factory.mktemp(task) for task in WRITERS}
    for task, folder in folders.items():
        WRITERS[task](folder, 0, images={"train": 12, "val": 4})
    folders[None] = tmp_path_factory.mktemp("loose")
    source = folders["super_resolution"] / "val/LR_x2"
    for path in sorted(path for path in source.iterdir() if path.suffix in IMAGE_SUFFIXES)[:2]:
        shutil.copy(path, folders[None] / path.name)
    return folders


def lay_out(folder, commands, data_sets):
    """The data folders that these commands name, below `folder`."""
    for command in commands:
        words = command.line.split()
        for option, word in pairwise(words):
            name = word.strip("/")
            if (
                name in DATA
                and option in ("--data", "--input", "--dataset_path")
                and not (folder / name).exists()
            ):
                task = DATA[name] if option != "--input" or DATA[name] is None else None
                shutil.copytree(
                    data_sets[
                        command.launcher() if task and command.launcher() in WRITERS else task
                    ],
                    folder / name,
                )


def played_words(command):
    """The words to run; RUN stands for the folder of the newest run there."""
    words, launcher = command.words(), command.launcher()
    words = words[words.index(f"bin/{launcher}.py") :]
    words = [
        {"best/": "RUN/best", "NAME": "tiny"}.get(word, word.replace("runs/NAME", "RUN"))
        for word in words
    ]
    if "--overfit" in words:  # learns for minutes; run by the tests of `check`
        place = words.index("--overfit")
        words = words[:place] + words[place + 2 :]
    if "--onnx" in words and not importlib.util.find_spec("onnxscript"):
        words.remove("--onnx")
    if "--step" in words:
        words[words.index("--step") + 1] = "1"
    if "train" in (words[1], launcher):
        words += ["--workers", "0", "--threads", "1"]
        if "--epochs" in words:
            words[words.index("--epochs") + 1] = "2"
        else:
            words += ["--steps", "2", "--warmup-steps", "1"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("task", WRITERS)
def test_the_commands_of_the_pages_run_as_they_stand_there(task, hub, data_sets, tmp_path):
    commands = played_for(task)
    lay_out(tmp_path, commands, data_sets)
    lines = [played_words(command) for command in commands]
    environment = os.environ | {
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    player = [sys.executable, "-P", ROOT / "tests/support/command_runner.py"]
    given = {
        "input": json.dumps(lines),
        "cwd": tmp_path,
        "env": environment,
        "capture_output": True,
        "text": True,
        "timeout": SECONDS,
    }
    done = subprocess.run(player, **given, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for command, words, (code, printed) in zip(
        commands, lines, json.loads(done.stdout), strict=True
    ):
        assert code == 0, (
            f"{command.page}: {command.line}\nrun as {' '.join(words)}\n{printed[-3000:]}"
        )
