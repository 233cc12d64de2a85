"""Settings: their sources, wrong values, and values that depend on the data."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_task import ToyConfig, ToyTask

from visionloop.engine.config.options import (
    build,
    fields_of,
    option,
    resolve,
    settings_json,
)
from visionloop.engine.config.resolve import immutable_settings_of, output_folder, resolve_auto
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.distributed import World
from visionloop.engine.errors import UserError
from visionloop.engine.train import build_data, resolve_settings


@dataclass(frozen=True)
class SmallConfig:
    """One field of every kind."""

    lr: float = option(1e-3, "learning rate", at_least=0)
    clip_grad: float = option(1.0, "largest norm", at_least=0)
    steps: int | None = option(None, "how many", at_least=1)
    layer_decay: float = option(0.5, "per layer", at_least=0, at_most=1)
    ema: bool = option(True, "average")
    compile: bool = option(False, "compile", fixed=False)
    precision: Literal["fp32", "bf16"] = option("bf16", "dtype")
    device: Literal["cuda", "cpu"] | None = option(None, "where", fixed=False)
    data: str | None = option(None, "folder")


@dataclass(frozen=True)
class OtherConfig:
    side_length: int = option(64, "pixels")


BOTH = (SmallConfig, OtherConfig)
FREE_FLOATS = st.floats(0, allow_nan=False)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def values(settings):
    return {name: setting.value for name, setting in settings.items()}


def test_a_flag_beats_the_file_beats_the_recipe_beats_the_default(tmp_path):
    file = write(tmp_path / "saved.json", {"lr": 0.3, "clip_grad": 0.3})
    settings = resolve(
        BOTH,
        {"lr": 0.4, "ema": None},
        recipe=lambda values: {"lr": 0.2, "clip_grad": 0.2, "layer_decay": 0.2},
        config_file=file,
    )
    assert {
        name: (settings[name].value, settings[name].as_json()["source"])
        for name in ("lr", "clip_grad", "layer_decay", "ema", "side_length")
    } == {
        "lr": (0.4, "flag"),
        "clip_grad": (0.3, f"config {file}"),
        "layer_decay": (0.2, "recipe"),
        "ema": (True, "default"),
        "side_length": (64, "default"),
    }


def test_a_flag_with_the_default_s_own_value_still_beats_the_recipe():
    settings = resolve(
        BOTH,
        {"lr": 1e-3, "ema": True, "compile": False},
        recipe=lambda values: {"lr": 1.0, "ema": False, "compile": True},
    )
    assert (settings["lr"].value, settings["ema"].value, settings["compile"].value) == (
        1e-3,
        True,
        False,
    )


def test_the_recipe_gets_the_values_of_file_and_flags(tmp_path):
    file = write(tmp_path / "saved.json", {"data": "somewhere"})
    received = {}
    resolve(
        BOTH,
        {"side_length": 32},
        recipe=lambda values: received.update(values) or {},
        config_file=file,
    )
    assert received["data"] == "somewhere" and received["side_length"] == 32
    assert received["lr"] == 1e-3


@given(
    lr=FREE_FLOATS,
    clip_grad=st.one_of(st.just(float("inf")), FREE_FLOATS),
    steps=st.one_of(st.none(), st.integers(1, 10**9)),
    ema=st.booleans(),
    precision=st.sampled_from(["fp32", "bf16"]),
    data=st.one_of(st.none(), st.text('a/é "\\0', max_size=6)),
)
def test_settings_json_reads_back_to_the_same_values(tmp_path_factory, **flags):
    settings = resolve(BOTH, flags)
    file = write(
        tmp_path_factory.mktemp("saved") / "settings.json",
        settings_json(settings, task="toy", data_fingerprint="abc"),
    )
    assert values(resolve(BOTH, {}, config_file=file)) == values(settings)


def test_settings_json_has_every_value_with_its_source_and_no_infinity():
    text = settings_json(resolve(BOTH, {"clip_grad": float("inf")}), task="toy")

    def refuse(constant):
        raise AssertionError(f"{constant} is no json")

    rows = json.loads(text, parse_constant=refuse)["settings"]
    assert rows["clip_grad"] == {"value": "inf", "source": "flag"}
    assert rows["task"] == {"value": "toy", "source": "resolved"}
    assert set(rows) == {*fields_of(*BOTH), "task"}


def test_all_settings_of_a_task_read_back(tmp_path):
    flags = {"epochs": 2.5, "clip_grad": float("inf"), "data": "here"}
    settings = resolve_auto(
        resolve_settings(ToyTask, flags), 40, "cpu", {}, ToyTask.resolve_defaults
    )
    file = write(
        tmp_path / "settings.json", settings_json(settings, task="toy", data_fingerprint="toy-40")
    )
    again = resolve_auto(
        resolve_settings(ToyTask, {}, file), 40, "cpu", {}, ToyTask.resolve_defaults
    )
    assert values(again) == values(settings)
    assert build(TrainConfig, again) == build(TrainConfig, settings) and build(
        ToyConfig, again
    ) == build(ToyConfig, settings)


def test_values_of_the_recipe_read_back_even_under_another_recipe(tmp_path):
    file = write(
        tmp_path / "settings.json",
        settings_json(resolve(BOTH, {}, recipe=lambda values: {"lr": 0.2})),
    )
    assert resolve(BOTH, {}, recipe=lambda values: {"lr": 0.9}, config_file=file)["lr"].value == 0.2


# what is refused --------------------


def refusal(flags=None, content=None, tmp_path=None, classes=BOTH):
    file = write(tmp_path / "saved.json", content) if content is not None else None
    with pytest.raises(UserError) as caught:
        resolve(classes, flags or {}, config_file=file)
    message = str(caught.value)
    assert "\n" not in message
    return message, caught.value.field


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lr": -1.0}, "--lr: expected at least 0, got -1.0"),
        ({"lr": float("nan")}, "--lr: expected at least 0, got nan"),
        ({"lr": "fast"}, "--lr: expected a number, got 'fast'"),
        ({"steps": 0}, "--steps: expected at least 1, got 0"),
        ({"steps": "many"}, "--steps: expected a whole number, got 'many'"),
        ({"steps": 1.5}, "--steps: expected a whole number, got 1.5"),
        ({"layer_decay": 1.01}, "--layer-decay: expected 0 to 1, got 1.01"),
        ({"precision": "fp8"}, "--precision: expected one of fp32, bf16, got 'fp8'"),
        ({"device": "tpu"}, "--device: expected one of cuda, cpu, got 'tpu'"),
        ({"ema": "yes"}, "--ema: expected true or false, got 'yes'"),
        ({"steps": float("inf")}, "--steps: expected"),
        ({"lr": [1]}, "--lr: expected a number, got"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_flag_from_a_flag_and_from_a_file(
    flags, message, tmp_path
):
    for refused, field in (refusal(flags), refusal(content=flags, tmp_path=tmp_path)):
        assert refused.startswith(message) and field == next(iter(flags))


def test_null_in_a_file_is_refused_where_a_setting_cannot_be_left_open(tmp_path):
    message, field = refusal(content={"lr": None}, tmp_path=tmp_path)
    assert message.startswith("--lr: ") and field == "lr"


def test_null_in_a_file_leaves_an_optional_setting_open(tmp_path):
    assert (
        resolve(
            BOTH, {}, config_file=write(tmp_path / "saved.json", {"steps": None, "device": None})
        )["steps"].value
        is None
    )


def test_an_unknown_setting_in_a_file_is_refused_by_name(tmp_path):
    message, field = refusal(content={"lr": 1.0, "learning_rate": 1.0}, tmp_path=tmp_path)
    assert (
        message == f"--config {tmp_path / 'saved.json'}: unknown setting 'learning_rate'"
        and field == "learning_rate"
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "5",
        "\x00",
        '{"settings": 5}',
        '{"settings": [1]}',
        '{"lr": {"source": "flag"}}',
    ],
)
def test_a_file_that_holds_no_settings_is_refused_with_its_name(content, tmp_path):
    message, _ = refusal(content=content, tmp_path=tmp_path)
    assert message.startswith((f"--config {tmp_path / 'saved.json'}: ", "--lr: "))


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(UserError, match=f"^--config {path}: "):
            resolve(BOTH, {}, config_file=path)


def test_a_name_in_two_config_classes_is_our_defect():
    with pytest.raises(AssertionError, match="lr is a setting of two classes"):
        fields_of(
            SmallConfig,
            dataclasses.make_dataclass("Twice", [("lr", float, option(0.0, "again"))], frozen=True),
        )


def test_the_default_settings_are_within_their_own_ranges():
    resolve((ToyConfig, TrainConfig), {})


# what depends on the data --------------------


def resolved(
    flags=None, *, num_samples=100, device="cpu", stored=None, recipe=None, config_file=None
):
    settings = resolve(
        (ToyConfig, TrainConfig), flags or {}, recipe=recipe, config_file=config_file
    )
    return resolve_auto(settings, num_samples, device, stored or {}, ToyTask.resolve_defaults)


@given(epochs=st.floats(0, 50), num_samples=st.integers(1, 5000), batch_size=st.integers(1, 400))
def test_epochs_become_the_steps_that_see_every_sample_so_often(epochs, num_samples, batch_size):
    steps = resolved({"epochs": epochs, "batch_size": batch_size}, num_samples=num_samples)["steps"]
    assert steps.source == "auto" and steps.value >= 1
    assert steps.value * batch_size >= epochs * num_samples
    assert steps.value == 1 or (steps.value - 1) * batch_size < epochs * num_samples


def test_steps_are_taken_as_they_are():
    assert (
        resolved({"steps": 7})["steps"].value == 7
        and resolved({"steps": 7})["steps"].source == "flag"
    )


def test_neither_steps_nor_epochs_is_one_line():
    with pytest.raises(UserError, match=r"^--steps, --epochs or --budget: ") as caught:
        resolved()
    assert caught.value.field == "steps"


def test_both_steps_and_epochs_as_flags_are_refused():
    with pytest.raises(UserError, match=r"^--epochs: give it or --steps, not both"):
        resolved({"steps": 7, "epochs": 2.0})


@pytest.mark.parametrize(("given", "expected"), [({"epochs": 2.0}, 7), ({"steps": 9}, 9)])
def test_a_flag_beats_the_other_one_of_the_recipe_and_of_the_file(given, expected, tmp_path):
    other = {"steps": 500} if "epochs" in given else {"epochs": 50.0}
    assert resolved(given, recipe=lambda values: other)["steps"].value == expected
    assert (
        resolved(given, config_file=write(tmp_path / "saved.json", other))["steps"].value
        == expected
    )


@pytest.mark.parametrize(("given", "expected"), [({"epochs": 2.0}, 7), ({"steps": 9}, 9)])
def test_the_file_beats_the_other_one_of_the_recipe(given, expected, tmp_path):
    other = {"steps": 500} if "epochs" in given else {"epochs": 50.0}
    assert (
        resolved(recipe=lambda values: other, config_file=write(tmp_path / "saved.json", given))[
            "steps"
        ].value
        == expected
    )


def test_automatic_values_are_filled_in_and_marked():
    settings = resolved({"steps": 200}, num_samples=320)
    automatic = {
        name: settings[name].value
        for name in ("warmup_steps", "eval_every", "save_every", "device")
    }
    assert automatic == {"warmup_steps": 10, "eval_every": 10, "save_every": 20, "device": "cpu"}
    assert {settings[name].source for name in automatic} == {"auto"}
    names = (
        "steps",
        "micro_batch",
        "warmup_steps",
        "eval_every",
        "save_every",
        "workers",
        "threads",
        "device",
    )
    assert all(settings[name].value is not None for name in names)
    assert settings["threads"].value >= 1 and settings["workers"].value >= 0


@dataclass(frozen=True)
class PhasedConfig(ToyConfig):
    phase: int | None = option(None, "a share of the run, in steps")


class PhasedTask(ToyTask):
    config_class = PhasedConfig

    @classmethod
    def resolve_defaults(cls, values, steps):
        return {"phase": steps // 4, "warmup_steps": 3}


@pytest.mark.parametrize(("flags", "stored", "expected"), [
    ({}, {}, 5),
    ({"phase": 2}, {}, 2),
    ({}, {"phase": {"value": 9, "source": "auto"}}, 9),
])  # fmt: skip
def test_a_task_receives_the_values_that_the_length_of_the_run_resolved(flags, stored, expected):
    settings = resolve_settings(PhasedTask, {"steps": 20, **flags})
    assert settings["phase"].value == flags.get("phase")
    world = World(0, 0, 1, torch.device("cpu"))
    task, *_, resolved = build_data(PhasedTask, settings, world, stored)
    assert task.config == resolved.task_config == build(PhasedConfig, resolved.settings)
    assert task.config.phase == resolved.immutable_settings["phase"] == expected
    assert resolved.settings["warmup_steps"].value == 3


def test_values_that_were_given_are_never_made_automatic():
    given = {
        "steps": 200,
        "warmup_steps": 0,
        "eval_every": 0,
        "save_every": 0,
        "workers": 0,
        "threads": 3,
        "micro_batch": 5,
    }
    settings = resolved(given, stored={name: {"value": 77, "source": "auto"} for name in given})
    assert {name: settings[name].value for name in given} == given


def stored_of(settings):
    return json.loads(settings_json(settings))["settings"]


def test_automatic_values_are_resolved_once_and_unchanged_when_the_run_resumes():
    first = resolved({"epochs": 20.0}, num_samples=320)
    again = resolved({"epochs": 20.0}, num_samples=320, stored=stored_of(first))
    assert values(again) == values(first)
    elsewhere = stored_of(first) | {
        "threads": {"value": 13, "source": "auto"},
        "micro_batch": {"value": 4, "source": "auto"},
    }
    resumed = resolved({"epochs": 20.0}, num_samples=320, stored=elsewhere)
    assert (resumed["threads"].value, resumed["micro_batch"].value) == (13, 4)


def test_workers_and_device_belong_to_the_machine():
    stored = {
        "workers": {"value": 99, "source": "auto"},
        "device": {"value": "cuda", "source": "auto"},
    }
    settings = resolved({"steps": 5}, stored=stored)
    assert settings["workers"].value != 99 and settings["device"].value == "cpu"


def test_a_value_that_was_a_flag_once_is_not_kept_without_the_flag():
    assert (
        resolved({"steps": 200}, stored={"warmup_steps": {"value": 3, "source": "flag"}})[
            "warmup_steps"
        ].value
        == 10
    )


def test_other_epochs_for_a_run_that_resumes_are_other_steps():
    """Steps are fixed: the check that names old and new must see the new ones."""
    first = resolved({"epochs": 2.0})
    again = resolved({"epochs": 9.0}, stored=stored_of(first))
    assert again["steps"].value == resolved({"epochs": 9.0})["steps"].value != first["steps"].value


def test_free_settings_are_not_among_the_fixed_ones():
    immutable_settings = immutable_settings_of(
        resolved({"steps": 5}), fields_of(ToyConfig, TrainConfig), task="toy", data_fingerprint="x"
    )
    free = {
        "workers",
        "device",
        "threads",
        "output",
        "log_every",
        "eval_every",
        "save_every",
        "keep",
        "profile",
        "micro_batch",
        "epochs",
    }
    assert not free & set(immutable_settings)
    fixed = {
        "task",
        "data_fingerprint",
        "model",
        "steps",
        "batch_size",
        "seed",
        "optimizer",
        "lr",
        "schedule",
        "precision",
        "ema",
    }
    assert fixed <= set(immutable_settings)
    assert json.loads(json.dumps(immutable_settings)) == immutable_settings


def test_the_run_s_folder_comes_from_output_or_name_or_task_data_and_model():
    def folder(**flags):
        return output_folder(resolve((ToyConfig, TrainConfig), flags), "toy")

    assert folder(output="here/there") == Path("here/there")
    assert folder(run_name="first") == Path("runs/first")
    assert folder(data="images/signs/", model="google/vit-tiny") == Path("runs/toy-signs-vit-tiny")
    with pytest.raises(UserError, match=r"^--run-name: "):
        folder(output="a", run_name="b")
