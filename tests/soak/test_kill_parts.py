"""The parts of the kill test: failure modes, faults, damage and the report."""

import json
import random

import failure_modes
import pytest
from kill_report import make_report, passes, report_lines
from kill_worker import halve_newest, make_fault
from killed_runs import Case
from progress_file import PHASES, ProgressFile

from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import problems, write_folder
from visionloop.engine.system.fault_injection import POINTS

ONE = Case("classification", 1, 0, "data")
TWO = Case("classification", 2, 2, "data")


def test_a_quarter_of_the_failures_are_within_a_write_and_every_mode_occurs():
    generator = random.Random(0)
    chosen = [failure_modes.choose(generator, TWO) for _ in range(4000)]
    modes = {*failure_modes.FAULTS, *failure_modes.OTHERS, failure_modes.ONE_RANK}
    assert set(chosen) == modes
    assert 0.22 < sum(name in failure_modes.FAULTS for name in chosen) / len(chosen) < 0.28
    of_one_process = {failure_modes.choose(generator, ONE) for _ in range(1000)}
    assert failure_modes.ONE_RANK not in of_one_process


@pytest.mark.parametrize(
    ("mode", "exit_codes", "reached", "unexpected"),
    [
        ("killed", [-9], 5, False),
        ("killed", [0], 24, False),
        ("killed", [1], 5, True),
        ("killed", [-9, 75], 5, False),
        ("SIGTERM", [75], 5, False),
        ("SIGTERM", [-15], 0, False),
        ("SIGTERM", [-15], 5, True),
        ("SIGTERM", [-9], 5, True),
        ("disk full", [2], 5, False),
        ("disk full", [1], 5, True),
        ("disk full", [-9], 5, True),
        ("one rank killed", [-9, 75], 5, False),
        ("one rank killed", [-9, 1], 5, True),
    ],
)
def test_an_exit_code_that_the_mode_does_not_allow_is_unexpected(
    mode, exit_codes, reached, unexpected
):
    assert failure_modes.is_unexpected(mode, exit_codes, reached) == unexpected


@pytest.mark.parametrize("mode", failure_modes.DAMAGE)
def test_damage_is_detected_and_never_done_to_the_only_checkpoint(mode, tmp_path):
    checkpoints, generator = tmp_path / "checkpoints", random.Random(1)
    for step in (2, 4):

        def write(folder, step=step):
            write_json(folder / "state.json", {"step": step})

        write_folder(checkpoints / f"step_{step:08d}", write)
        damaged = failure_modes.damage(mode, tmp_path, generator)
        assert damaged == (None if step == 2 else "step_00000004")
    assert problems(checkpoints / "step_00000002") == []
    assert problems(checkpoints / "step_00000004") != []


@pytest.mark.parametrize("point", POINTS)
def test_a_fault_occurs_at_its_point_after_that_many_passes(point, tmp_path):
    fault = make_fault(point, 2, "ENOSPC")
    for other in POINTS:
        if other != point:
            fault(other, tmp_path)
    fault(point, tmp_path)
    fault(point, tmp_path)
    for _ in range(2):  # a full disk stays full
        with pytest.raises(OSError, match="No space left"):
            fault(point, tmp_path)


def test_half_of_the_file_written_last_is_cut_off(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(20))
    halve_newest(tmp_path)
    assert [(tmp_path / name).stat().st_size for name in "ab"] == [10, 10]


def test_a_new_progress_file_has_no_start_and_no_steps(tmp_path):
    progress = ProgressFile(tmp_path / "progress", 2)
    other = ProgressFile(tmp_path / "progress", 2)  # another process maps the same file
    assert (other.phase(1), other.step(1), other.resumed_at(1)) == (PHASES[0], 0, None)
    progress._rows[1] = (PHASES.index("evaluation"), 7, 3)
    assert (other.phase(1), other.step(1), other.resumed_at(1)) == ("evaluation", 7, 3)
    progress.clear()
    assert other.resumed_at(1) is None


def record(**changes):
    """Return the record of a round with one start. changes: of the start or of the round."""
    start = {
        "mode": "killed",
        "fresh": False,
        "before": 0,
        "reached": 5,
        "newest": 3,
        "invalid": [],
        "lost": False,
        "unexpected": False,
        "hung": False,
        "stopped": True,
        "repeated_steps": 2,
        "repeated_seconds": 4.0,
        "exit_codes": [-9],
    }
    last = {"hung": False, "lost": False, "fresh": True, "restart_seconds": 8.0}
    row = {"case": "toy-1p-0w", "starts": [start], "last": last, "differing": []}
    row["step_seconds"] = 0.5
    for name, value in changes.items():
        is_of_start = name in start or name in ("signal_seconds", "in_phase")
        (start if is_of_start else row)[name] = value
    return row


def report_of(tmp_path, *rows):
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_report(tmp_path / "rounds.jsonl")


def test_the_report_counts_all_rounds_and_projects_the_useful_work(tmp_path):
    signaled = record(mode="SIGTERM", signal_seconds=1.0, in_phase=False, exit_codes=[75])
    report = report_of(tmp_path, record(), signaled, record(stopped=False))
    assert report["stops"] == 2
    assert report["by_mode"] == {"SIGTERM": 1, "killed": 1}
    assert report["repeated_steps"] == 4
    seconds = {"mean": 1.0, "median": 1.0, "worst": 1.0}
    assert report["signals"] == {"handled": 1, "late": 0} | seconds
    assert report["useful_work"] == pytest.approx(1 - (8.0 + 4.0) / 600)
    assert passes(report)
    assert "useful work of a run killed every 600 s: 98.00 %" in "\n".join(report_lines(report))
    assert passes(make_report(tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize(
    "change",
    [
        {"lost": True},
        {"invalid": ["step_00000003"]},
        {"unexpected": True},
        {"hung": True},
        {"differing": ["best"]},
        {"signal_seconds": 5.6, "in_phase": False, "exit_codes": [75]},
    ],
    ids=str,
)
def test_a_round_that_violates_an_invariant_fails_the_report(tmp_path, change):
    assert not passes(report_of(tmp_path, record(), record(**change)))
