"""Training batches and predictions as the benchmarks time them."""

from pathlib import Path

import pytest
import torch

from visionloop.bin.benchmarks.data_pipelines import (
    MAKE_SAMPLES,
    Timed,
    build_training_data,
    stack_samples,
    time_loader,
    time_samples,
    time_stages,
)
from visionloop.bin.benchmarks.predict_timing import (
    Case,
    Setup,
    TimedTask,
    measure_cases,
    write_random_model,
)
from visionloop.bin.benchmarks.tasks import STEADY, load_task_class, sample_data
from visionloop.bin.commands.predict import PredictOptions, run_predict
from visionloop.engine.errors import UserError

INDICES = [0, 3, 5, 1]


def flags_of(folder, cache="none"):
    return {
        "data": str(folder),
        "model": "tiny",
        "image_size": None,
        "batch_size": 4,
        "threads": 1,
        "cache": cache,
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{task: (task, training set, TrainConfig)} of eight images, 80 px a side."""
    result = {}
    for name in STEADY:
        folder = sample_data(name, tmp_path_factory.mktemp(name), {"train": 8, "val": 2}, 80)
        result[name] = build_training_data(name, flags_of(folder))
    return result


def engine_batch(task, dataset):
    return task.collate([dataset[i] | {"sample_id": torch.tensor(i)} for i in INDICES], 0, 0)


@pytest.mark.parametrize("task_name", STEADY)
def test_torchvision_ends_with_floats_of_the_engines_shape(built, task_name):
    task, dataset, _ = built[task_name]
    task.before_sample(0, 1)
    ours = task.to_input(engine_batch(task, dataset))
    torch.manual_seed(0)
    make = MAKE_SAMPLES[task_name](task, dataset)
    pixels = stack_samples([make(i) for i in INDICES])["pixel_values"]
    assert pixels.shape == ours.shape and pixels.dtype == ours.dtype == torch.float32
    # scaled and normalized alike; what is cut out differs, so do means
    assert abs(pixels.mean() - ours.mean()) < 0.5 and pixels.max() <= 2.7 and pixels.min() >= -2.7
    assert time_samples(make, INDICES, 0)["batch"] > 0


def test_boxes_of_torchvision_stay_inside_the_image(built):
    task, dataset, _ = built["detection"]
    make = MAKE_SAMPLES["detection"](task, dataset)
    for sample in map(make, INDICES):
        assert len(sample["boxes"]) == len(sample["class_labels"])
        assert ((sample["boxes"] >= 0) & (sample["boxes"] <= 1)).all()


def test_low_and_high_resolution_crops_of_torchvision_are_of_the_same_part(built):
    task, dataset, _ = built["super_resolution"]
    make = MAKE_SAMPLES["super_resolution"](task, dataset)
    batch = stack_samples([make(i) for i in INDICES])
    shrunk = torch.nn.functional.avg_pool2d(batch["hr"], task.scale)
    assert (shrunk - batch["pixel_values"]).abs().mean() < 0.03
    assert (shrunk.flip(-1) - batch["pixel_values"]).abs().mean() > 0.03


def test_every_stage_takes_time_and_the_transform_is_left_as_it_was(built):
    task, dataset, config = built["segmentation"]
    seconds = time_stages(task, dataset, INDICES, 1)
    assert (
        list(seconds) == ["read", "transform", "collate", "to_input"] and seconds["transform"] > 0
    )
    assert not isinstance(dataset.transform, Timed)
    assert time_loader(task, dataset, config, 0, 1, 1)["batch"] > 0


@pytest.mark.parametrize("task_name", STEADY)
def test_settings_of_steady_steps_are_not_those_of_training_data(built, task_name):
    task, _, config = built[task_name]
    assert (config.batch_size, config.micro_batch, task.config.cache) == (4, 4, "none")


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    folder = Path(sample_data("classification", tmp_path, {"train": 8, "val": 2}, 40))
    broken = sorted((folder / "train").rglob("*.jpg"))[0]
    broken.write_bytes(b"")
    task, dataset, _ = build_training_data("classification", flags_of(folder))
    with pytest.raises(UserError, match=f"{broken.name}: empty file"):
        time_stages(task, dataset, [0], 0)


@pytest.fixture(scope="module")
def setups(tmp_path_factory):
    """setups(task) -> Setup of a model of random weights and three images."""
    made = {}

    def make(task_name):
        if task_name not in made:
            root = tmp_path_factory.mktemp(f"predict_{task_name}")
            side = 144 if task_name == "super_resolution" else 80
            data = sample_data(task_name, root, {"train": 8, "val": 3}, side)
            write_random_model(task_name, "tiny", data, root / "model")
            folder = {"segmentation": "images/val", "super_resolution": "val/LR_x2"}.get(
                task_name, "val"
            )
            made[task_name] = Setup(
                task_name, root / "model", Path(data) / folder, root / "out", 1, "cpu"
            )
        return made[task_name]

    return make


def test_a_timed_run_writes_what_predict_writes_and_batches_follow_each_other(setups, tmp_path):
    setup = setups("classification")
    timed = TimedTask(setup, None)
    batches, seconds, inputs = timed.run(Case("fp32", None, 2))
    assert len(batches) == 2 and inputs == 3
    for began, read, predicted, written in batches:
        assert began < read < predicted < written
    assert [batch[-1] for batch in batches[:-1]] == [batch[0] for batch in batches[1:]]
    assert batches[-1][-1] - batches[0][0] < seconds
    options = PredictOptions(
        model=setup.model,
        input_path=setup.images,
        output=tmp_path / "own",
        batch_size=2,
        device="cpu",
        as_json=False,
        explanations=(),
        settings={},
    )
    run_predict(load_task_class("classification"), options)
    name = "predictions.jsonl"
    assert (tmp_path / "own" / name).read_bytes() == (setup.output / name).read_bytes()


def test_windows_and_tiles_are_counted_as_inputs(setups):
    cases = [Case(precision, None, 2) for precision in ("fp32", "bf16")]
    device, number, rows = measure_cases(setups("segmentation"), cases, 1)
    assert (device, number) == ("cpu", 3)
    for row in rows:
        assert row["inputs_per_image"] == 1
        assert row["reading_ms"] + row["model_ms"] + row["writing_ms"] == pytest.approx(
            row["batch_ms"], abs=0.1
        )
        assert row["batch_ms"] <= row["batch_p95_ms"] and row["images_per_second"] > 0
    _, _, (whole, tiled) = measure_cases(
        setups("super_resolution"), [Case("fp32", tile, 1) for tile in (0, 16)], 1
    )
    assert whole["inputs_per_image"] == 1 < tiled["inputs_per_image"]


def test_an_image_that_cannot_be_read_ends_the_measurement(setups, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    setup = setups("classification")._replace(images=tmp_path, output=tmp_path / "out")
    with pytest.raises(UserError, match="an image cannot be read"):
        TimedTask(setup, None).run(Case("fp32", None, 1))
