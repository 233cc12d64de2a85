"""The comparison with other trainers: what is planned, written down, gone on from and told; and, where they are installed, real runs."""

import json
from dataclasses import asdict, replace
from importlib import metadata

import pytest
from click.testing import CliRunner

from visionloop.bin.benchmarks import compare
from visionloop.bin.benchmarks.comparisons import record, runs
from visionloop.bin.benchmarks.comparisons.cases import (
    CACHES,
    DEFAULTS,
    Case,
    scored_cases,
    sides_of,
    speed_cases,
)
from visionloop.bin.benchmarks.comparisons.comparison_tables import (
    ratio_rows,
    side_rows,
    within_range,
)
from visionloop.bin.benchmarks.comparisons.recipes import arguments_of, settings_of
from visionloop.bin.benchmarks.comparisons.record import IDENTITY, Record, fingerprint, read_rows
from visionloop.bin.benchmarks.comparisons.runs import FailedRun, seconds_of_steps
from visionloop.bin.benchmarks.tasks import load_task_class
from visionloop.bin.commands.cli import run_commands
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.errors import UserError
from visionloop.engine.train import resolve_settings

VERSIONS = {"accelerate": "1", "datasets": "3", "timm": "1"}
SHARED = {"steps": 12, "batch_size": 2, "size": 32, "precision": "fp32"}
CASE = Case("trainer", "classification", "same", 0, **SHARED)
SIZES = {"classification": 32, "detection": 96, "segmentation": 32, "super_resolution": 16}


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Titles of the cases that were run; none really is."""
    titles = []

    def run(case, data, folder, longest=None):
        titles.append(case.title)
        if case.precision == "bf16" and case.side == "timm":
            raise FailedRun("first line\nno such precision")
        scores = (
            {"accuracy": 0.5 + case.seed / 10, "val_loss": 1.0, "differs": "nothing"}
            if case.scored
            else {}
        )
        rate = {"trainer": 100.0, "timm": 110.0, "visionloop": 200.0}[case.side]
        return {"samples_per_second": rate, "peak_resident_mib": 400.0} | scores

    monkeypatch.setattr(compare, "run_case", run)
    for module in (compare, record):
        monkeypatch.setattr(module, "peer_versions", lambda: VERSIONS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"1")
    return titles


def invoke(tmp_path, *words):
    words = ["--data", str(tmp_path / "data"), "--json", str(tmp_path / "runs.json"), *words]
    return CliRunner().invoke(compare.compare, words, catch_exceptions=False)


def recorded(tmp_path):
    return [json.loads(line) for line in (tmp_path / "runs.json").read_text().splitlines()]


def test_sides_take_turns_seed_by_seed():
    cases = scored_cases("classification", ["same", "ours"], 2, **SHARED)
    turn = [("trainer", "same"), ("timm", "same"), ("visionloop", "same"), ("visionloop", "ours")]
    assert [(case.side, case.comparison) for case in cases] == turn * 2
    assert [case.seed for case in cases] == [0] * 4 + [1] * 4


def test_mixed_images_are_not_given_to_the_trainer():
    assert sides_of("classification", 0.2) == ("timm", "visionloop")
    assert sides_of("detection") == ("trainer", "visionloop")


@pytest.mark.parametrize("task_name", DEFAULTS)
def test_best_flags_hold_each_way_of_a_side_once_and_the_equal_one_of_all(task_name):
    cases = speed_cases(task_name, 1, True, **SHARED)
    assert len({json.dumps(asdict(case)) for case in cases}) == len(cases)
    equal = [case for case in cases if not (case.compile or case.keep) and case.precision == "fp32"]
    assert {case.side for case in equal} == set(sides_of(task_name))
    ours = {case.flags for case in cases if case.side == "visionloop" and case.keep}
    assert len(ours) == 4 and all(f"--cache {CACHES[task_name]}" in flags for flags in ours)


@pytest.mark.parametrize("task_name", DEFAULTS)
def test_each_repeat_has_every_side_once_and_ours_again_with_kept_images(task_name):
    cases = speed_cases(task_name, 2, False, **SHARED)
    sides = [*sides_of(task_name), "visionloop"]
    assert [case.side for case in cases] == 2 * sides and [case.keep for case in cases] == 2 * (
        [False] * (len(sides) - 1) + [True]
    )


@pytest.mark.parametrize("comparison", ["same", "ours", "speed"])
@pytest.mark.parametrize("task_name", DEFAULTS)
def test_our_side_is_asked_for_in_settings_that_the_task_has(task_name, comparison):
    case = Case("visionloop", task_name, comparison, 3, **SHARED, hflip=False)
    settings = resolve_settings(load_task_class(task_name), settings_of(case, "data", "run"))
    assert (
        settings["seed"].value == 3
        and settings["steps"].value == 12
        and settings["cache"].value == "none"
    )
    assert settings["ema"].value == (comparison == "ours" and task_name != "segmentation")


def test_switches_become_flags():
    words = arguments_of({"ema": False, "compile": True, "lr_min": 0.0})
    assert words == ["--no-ema", "--compile", "--lr-min", "0.0"]


def test_a_second_start_makes_no_run_again(made, tmp_path):
    assert invoke(tmp_path, "--precision", "fp32", "--seeds", "2").exit_code == 0
    assert len(made) == len(recorded(tmp_path)) == 8
    output = invoke(tmp_path, "--precision", "fp32", "--seeds", "3").output
    assert len(made) == 12 and "seed 2" in made[8]
    assert [row["seed"] for row in recorded(tmp_path)] == [0] * 4 + [1] * 4 + [2] * 4
    assert "trainer (fp32)" in output and "same recipe but for: nothing" in output
    (tmp_path / "data" / "b.jpg").write_bytes(b"2")
    invoke(tmp_path, "--precision", "fp32", "--seeds", "1")
    assert len(made) == 16


@pytest.mark.parametrize("name", IDENTITY)
def test_a_run_with_anything_else_is_another_run(monkeypatch, tmp_path, name):
    monkeypatch.setattr(record, "peer_versions", lambda: VERSIONS)
    runs_file = Record(tmp_path / "runs.json", {"data": "cats", "data_fingerprint": "f"})
    row = runs_file.add(runs_file.describe(CASE), {"samples_per_second": 1.0})
    again = Record(tmp_path / "runs.json", runs_file.what)
    assert again.find(CASE) == row
    again.rows = [row | {name: "another"}]
    assert again.find(CASE) is None


def test_a_line_that_was_cut_off_is_made_again_and_a_broken_one_is_named(made, tmp_path):
    path = tmp_path / "runs.json"
    invoke(tmp_path, "--precision", "fp32", "--seeds", "1")
    whole = path.read_text()
    path.write_text(whole[:-20])
    invoke(tmp_path, "--precision", "fp32", "--seeds", "1")
    assert len(made) == 5 and len(recorded(tmp_path)) == 4
    path.write_text("{broken\n" + whole)
    with pytest.raises(UserError, match="line 1 is not json"):
        read_rows(path)


def test_rows_of_other_benchmarks_are_left_alone(tmp_path):
    path = tmp_path / "runs.json"
    path.write_text('{"benchmark": "memory"}\n{"benchmark": "compare", "seed": 1}\n')
    assert read_rows(path) == [{"benchmark": "compare", "seed": 1}]
    assert path.read_text().count("\n") == 2


def test_flags_that_a_side_cannot_take_are_told_and_count_for_nothing(made, tmp_path):
    result = invoke(
        tmp_path, "--comparison", "speed", "--best-flags", "--precision", "fp32", "--repeats", "3"
    )
    assert result.exit_code == 0, result.output
    failed = [row for row in recorded(tmp_path) if "error" in row]
    assert {(row["side"], row["precision"], row["error"]) for row in failed} == {
        ("timm", "bf16", "no such precision")
    }
    assert "failed: timm, autocast bf16: no such precision" in result.output
    assert "speed, fastest flags" in result.output


def test_a_whole_run_that_fails_ends_the_command(made, tmp_path):
    with pytest.raises(FailedRun, match="no such precision"):
        invoke(tmp_path, "--seeds", "1", "--precision", "bf16")
    assert [row["side"] for row in recorded(tmp_path)] == ["trainer"]


def rows_of(side, comparison, rates, scores, **ways):
    case = Case(side, "classification", comparison, 0, **SHARED | ways)
    figures = {"peak_resident_mib": 200.0 if side == "trainer" else 100.0, "val_loss": 1.0}
    return [
        asdict(replace(case, seed=seed))
        | {"flags": case.flags, "samples_per_second": rate, "accuracy": score}
        | figures
        for seed, (rate, score) in enumerate(zip(rates, scores, strict=True))
    ]


def test_ratios_are_of_pairs_of_one_seed():
    rows = rows_of("trainer", "same", [10.0, 20.0, 40.0], [0.5, 0.6, 0.4])
    rows += rows_of("visionloop", "same", [20.0, 40.0, 80.0], [0.6, 0.7, 0.8])
    (row,) = ratio_rows("classification", rows)
    assert (row["times_as_fast"], row["95_percent"], row["times_the_memory"], row["pairs"]) == (
        2.0,
        "2.00 to 2.00",
        0.5,
        3,
    )
    assert row["accuracy_difference"] == 0.2 and row["equal_within_range_of_seeds"] == "yes"
    (two,) = ratio_rows("classification", [row for row in rows if row["seed"] < 2])
    assert two["pairs"] == 2 and two["95_percent"] is None
    trainer, ours = side_rows("classification", rows)
    assert (trainer["samples_per_second"], trainer["median"], ours["mean_accuracy"]) == (
        "10.0, 20.0, 40.0",
        20.0,
        0.7,
    )


def test_the_fastest_flags_of_each_side_meet():
    rows = rows_of("trainer", "speed", [10.0], [0]) + rows_of(
        "trainer", "speed", [30.0], [0], precision="bf16"
    )
    rows += rows_of("visionloop", "speed", [20.0], [0]) + rows_of(
        "visionloop", "speed", [45.0], [0], keep=True, compile=True
    )
    equal, fastest = ratio_rows("classification", rows)
    assert (equal["times_as_fast"], fastest["times_as_fast"]) == (2.0, 1.5)
    assert (fastest["ours"], fastest["against"]) == (
        "fp32 --compile --cache ram",
        "trainer (bf16=True)",
    )


def test_scores_are_equal_where_their_ranges_touch():
    assert within_range([1, 3], [3, 4]) == within_range([1, 9], [2, 3]) == "yes"
    assert within_range([1, 2], [3, 4]) == within_range([3, 4], [1, 2]) == "no"
    assert within_range([1], [1, 2]) is None


def test_an_evaluation_between_two_lines_is_no_time_of_steps():
    ends = {5: 0.0, 10: 5.0, 15: 10.0, 20: 99.0}
    lines = [
        {"kind": "train", "step": step, "time": end, "step_ms": 1000.0}
        for step, end in ends.items()
    ]
    assert seconds_of_steps(lines, 20) == 94
    assert (
        seconds_of_steps([*lines, {"kind": "eval", "step": 18}, {"kind": "eval", "step": 20}], 20)
        == 10
    )


def test_the_fingerprint_is_of_names_and_sizes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "a.jpg").write_bytes(b"123")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    (tmp_path / "two" / "train" / "a.jpg").rename(tmp_path / "two" / "train" / "b.jpg")
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")


def test_a_missing_package_is_told_in_one_line(monkeypatch, tmp_path, capsys):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(record.metadata, "version", version)
    with pytest.raises(SystemExit) as left:
        run_commands(compare.compare, ["--json", str(tmp_path / "runs.json")])
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: compare: accelerate is not installed; pip install -e '.[compare]'\n"
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--task", "all"], "--data"),
        (["--image-side", "500"], "--image-side"),
        (["--mixup", "0.2"], "--mixup"),
        (["--core", "100000"], "--core"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(made, tmp_path, words, named):
    result = invoke(tmp_path, *words)
    assert result.exit_code == 2 and named in result.output and made == []


def test_what_a_process_says_last_reaches_the_user(tmp_path):
    with pytest.raises(UserError, match=r"trainer, fp32: .*no such option"):
        runs.run_process(["visionloop.bin.classification", "train", "--no-such"], CASE, tmp_path)
    with pytest.raises(FailedRun, match=r"No module named visionloop\.bin\.nothing"):
        runs.run_process(["visionloop.bin.nothing"], CASE, tmp_path)
    with pytest.raises(FailedRun, match=r"longer than 0\.01 seconds"):
        runs.run_process(
            ["visionloop.bin.classification", "train", "--help"], CASE, tmp_path, longest=0.01
        )


def test_other_sides_train_with_the_librarys_own_attention():
    pytest.importorskip("accelerate")
    pytest.importorskip("datasets")
    from visionloop.bin.benchmarks.comparisons.trainer_classification import new_classifier

    model, _ = new_classifier(["cat", "dog"], 64)
    assert {
        module.config._attn_implementation
        for module in model.modules()
        if hasattr(module, "config")
    } == {"sdpa"}


@pytest.mark.slow
@pytest.mark.parametrize("task_name", DEFAULTS)
def test_every_side_trains_and_is_scored_by_one_command(task_name, tmp_path):
    pytest.importorskip("accelerate")
    (tmp_path / "data").mkdir()
    WRITERS[task_name](tmp_path / "data", 0, images={"train": 12, "val": 6})
    result = invoke(
        tmp_path,
        "--task",
        task_name,
        "--steps",
        "12",
        "--batch-size",
        "2",
        "--size",
        str(SIZES[task_name]),
        "--seeds",
        "1",
    )
    assert result.exit_code == 0, result.output
    rows = recorded(tmp_path)
    assert [(row["side"], row["comparison"]) for row in rows][-2:] == [
        ("visionloop", "same"),
        ("visionloop", "ours"),
    ]
    assert {row["side"] for row in rows} == set(sides_of(task_name))
    for row in rows:
        assert (
            row["samples_per_second"] > 0
            and row["peak_resident_mib"] > 100
            and row["versions"].keys() > VERSIONS.keys()
        )
        for name in runs.SCORES[task_name]:
            assert row[name] >= 0
