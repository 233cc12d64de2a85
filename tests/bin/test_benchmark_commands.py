"""Each command of bin/benchmark.py at a tiny size."""

import json

import pytest
from click.testing import CliRunner

from visionloop.bin.benchmark import command
from visionloop.bin.benchmarks.tasks import sample_data

SMALL = ["--image-size", "32", "--batch-size", "2", "--device", "cpu"]
SEGMENTATION = ["--task", "segmentation", *SMALL]
COMMANDS = {
    "step": [*SEGMENTATION, "--precision", "fp32", "--repeats", "1"],
    "memory": [*SEGMENTATION, "--repeats", "1"],
    "overhead": [
        *SEGMENTATION,
        "--precision",
        "fp32",
        "--block",
        "2",
        "--steps",
        "14",
        "--level",
        "memory",
        "--level",
        "checkpoints",
        "--level",
        "page",
    ],
    "data": [
        "--batch-size",
        "4",
        "--batches",
        "1",
        "--repeats",
        "1",
        "--workers",
        "0",
        "--workers",
        "1",
    ],
    "on-paper": ["--model", "tiny"],
    "predict": (
        [
            "--batch-size",
            "2",
            "--repeats",
            "1",
            "--device",
            "cpu",
            "--precision",
            "fp32",
            "--precision",
            "bf16",
        ]
    ),
}
WITHOUT_DATA = ("on-paper", "predict")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """{task: data folder} of a few images."""
    root, images = tmp_path_factory.mktemp("data"), {"train": 8, "val": 4}
    return {
        task: sample_data(task, root / task, images) for task in ("classification", "segmentation")
    }


@pytest.fixture(scope="module")
def rows_of(data, tmp_path_factory):
    """rows_of(command) -> (its JSON lines, what it prints); each command runs once."""
    results = {}

    def run(name):
        if name not in results:
            file = tmp_path_factory.mktemp(name) / "rows.jsonl"
            words = [name, *COMMANDS[name], "--json", str(file)]
            if name not in WITHOUT_DATA:
                words += [
                    "--data",
                    data["segmentation" if "segmentation" in words else "classification"],
                ]
            result = CliRunner().invoke(command, words, catch_exceptions=False)
            assert result.exit_code == 0, result.output
            results[name] = (
                [json.loads(line) for line in file.read_text().splitlines()],
                result.output,
            )
        return results[name]

    return run


def test_every_command_is_run_here_or_in_a_file_of_its_own():
    assert set(COMMANDS) == set(command.commands) - {"peers", "scaling", "startup"}


@pytest.mark.parametrize("name", COMMANDS)
def test_rows_hold_their_benchmark_options_versions_machine_and_load(rows_of, name):
    rows, output = rows_of(name)
    for row in rows:
        assert (
            row["benchmark"] == name
            and row["versions"]["torch"]
            and row["machine"]
            and len(row["load"]) == 3
        )
        assert row["options"]
    assert "versions" in output and "load" in output


def test_step_has_a_row_with_memory_for_each_case(rows_of):
    rows, _ = rows_of("step")
    assert [row["case"] for row in rows] == ["fp32", "fp32 recomputed"]
    assert (
        all(row["peak_mib"] >= 0 and row["step_ms"] > 0 for row in rows)
        and rows[1]["gflop"] > rows[0]["gflop"]
    )


def test_memory_has_equal_gradients_for_all_cases(rows_of):
    rows, output = rows_of("memory")
    assert [row["recomputed"] for row in rows] == [
        "none",
        "EomtLayer",
        "EomtLayer + PredictionHeads",
    ]
    assert all(
        row["gradients"] == "equal" and row["step_ms"] > 0 and row["resident_mib"] >= 0
        for row in rows
    )
    assert "gradients                equal" in output


def test_overhead_ends_with_equal_weights_on_every_level(rows_of):
    rows, output = rows_of("overhead")
    assert [row["level"] for row in rows] == ["memory", "checkpoints", "page"]
    for row in rows:
        assert row["weights"] == "equal" and row["bare_step_ms"] > 0 and row["batch_wait_ms"] >= 0
        assert (
            row["overhead_low_percent"] <= row["overhead_percent"] <= row["overhead_high_percent"]
        )
    assert [row["blocks"] for row in rows] == [5, 2, 2]  # a checkpoint every two blocks
    assert "a checkpoint every two blocks" in output


def test_data_has_stages_torchvision_and_each_number_of_workers(rows_of):
    rows, _ = rows_of("data")
    assert [row["part"] for row in rows] == [
        "stages",
        "torchvision",
        "loader, 0 workers",
        "loader, 1 workers",
    ]
    stages = rows[0]
    assert stages["times_the_stages"] == 1 and all(row["samples_per_second"] > 0 for row in rows)
    parts = sum(stages[name] for name in ("read", "transform", "collate", "to_input"))
    assert parts == pytest.approx(stages["sample_ms"], abs=0.005)
    assert all(
        row["cache"] == "none" and row["torchvision"].startswith("equal work") for row in rows
    )


def test_on_paper_saves_less_with_recomputation(rows_of):
    (rows, output) = rows_of("on-paper")
    assert [(row["model"], row["over"]) for row in rows] == [("tiny", n) for n in (1, 8, 64)]
    assert all(row["recomputed_each_gib"] < row["plain_each_gib"] for row in rows)
    states = [row["state_gib"] for row in rows]
    assert states == sorted(states, reverse=True) and states[0] > states[1]
    assert max(map(len, output.splitlines())) < 250 and output.count("tiny") == 2
    assert "plain / recomputed" in output


def test_predict_has_a_row_for_each_case(rows_of):
    rows, _ = rows_of("predict")
    assert [(row["precision"], row["batch_size"]) for row in rows] == [("fp32", 2), ("bf16", 2)]
    assert all(
        row["resident_mib"] >= 0 and row["images"] == 2 and "tile" not in row for row in rows
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["overhead", "--steps", "11", "--block", "2"], "expected at least six blocks of 2"),
        (["scaling", "--batch-size", "2", "--processes", "3"], "less than one sample"),
        (["predict", "--tile", "64"], "only super_resolution has tiles"),
        (["on-paper", "--task", "detection"], "'detection' is not one of"),
    ],
)
def test_a_mistake_is_an_error_before_anything_runs(words, why):
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2 and why in result.output
