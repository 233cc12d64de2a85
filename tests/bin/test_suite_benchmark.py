"""One report of all benchmarks."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from visionloop.bin.benchmark import command
from visionloop.bin.benchmarks.markdown import rows_as_markdown
from visionloop.bin.benchmarks.sections import SECTIONS, arguments_of
from visionloop.bin.benchmarks.suite import NOTES, measured, report, suite

HEAD = {"machine": "a machine", "versions": {"torch": "2"}, "load": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize("name", SECTIONS)
def test_each_benchmark_understands_what_the_suite_tells_it(name, tmp_path):
    for task in SECTIONS[name].tasks:
        benchmark, *words = [
            *arguments_of(name, task, {task: str(tmp_path)}, 1),
            "--json",
            str(tmp_path / "rows.jsonl"),
        ]
        command.commands[benchmark].make_context(benchmark, words)


def test_no_batch_of_the_suites_predictions_is_larger_than_its_images():
    for task in SECTIONS["predict"].tasks:
        context = command.commands["predict"].make_context(
            "predict", arguments_of("predict", task, {}, 1)[1:]
        )
        assert max(context.params["batch_sizes"], default=1) <= context.params["images"]


def test_every_benchmark_but_those_for_other_machines_is_in_the_suite():
    assert {section.command[0] for section in SECTIONS.values()} == set(command.commands) - {
        "suite",
        "selftest",
    }


def test_a_benchmark_without_figures_is_told_and_the_others_stay(tmp_path):
    rows = tmp_path / "rows.jsonl"
    found = measured("on-paper", ["on-paper", "--task", "segmentation", "--model", "tiny"], rows)
    assert found["why"] is None and found["rows"][0]["model"] == "tiny"
    failed = measured("on-paper", ["on-paper", "--model", "tinny"], rows)
    assert failed["rows"] == [] and "did you mean tiny?" in failed["why"]
    page = "\n".join(report(HEAD, [found, failed], 60))
    assert page.count("## on-paper") == 1 and "No figures: " + failed["why"] in page
    assert "`python bin/benchmark.py on-paper --task segmentation --model tiny`" in page
    assert NOTES.read_text().rstrip() in page


def test_what_is_equal_in_all_rows_is_said_once():
    page = rows_as_markdown(
        [
            {"benchmark": "b", "task": "t", "ms": 1, "ok": True},
            {"benchmark": "b", "task": "t", "ms": 2, "ok": None},
        ]
    )
    assert page == [
        "In all rows: task t.",
        "",
        "| ms | ok |",
        "| --- | --- |",
        "| 1 | yes |",
        "| 2 |  |",
    ]


def test_a_long_row_lies_on_its_side():
    page = rows_as_markdown([{f"figure_{i}": [i, i + 1] for i in range(12)}])
    assert (
        page[0] == "| figure_0 | 0 to 1 |"
        and page[2] == "| figure_1 | 1 to 2 |"
        and len(page) == 13
    )


def test_a_task_or_folder_that_is_not_there_is_refused(tmp_path):
    for given in (
        "plumbing=" + str(tmp_path),
        f"detection={tmp_path / 'missing'}",
        str(Path(tmp_path)),
    ):
        result = CliRunner().invoke(suite, ["--data", given])
        assert result.exit_code == 2 and "expected TASK=DIR" in result.output
