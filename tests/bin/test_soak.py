"""Runs killed at random moments end with the bytes of one that was left alone; and a soak sees it when they do not."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop.bin.soaks import injuries, trainee
from visionloop.bin.soaks.certificate import holds, make_certificate
from visionloop.bin.soaks.runs import Kind
from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import problems, write_folder
from visionloop.engine.system.fault_injection import POINTS

ROOT = Path(__file__).parents[2]
ONE, TWO = Kind("classification", 1, 0, "data"), Kind("classification", 2, 2, "data")


def soak(folder, *options):
    command = [sys.executable, str(ROOT / "bin" / "soak.py"), str(folder), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_runs_killed_ten_times_end_with_the_bytes_of_one_left_alone(tmp_path):
    for options in (("classification", "1", "0"), ("super_resolution", "2", "2")):
        task, processes, workers = options
        done = soak(
            tmp_path, "--task", task, "--processes", processes, "--workers", workers, "--kills", "5"
        )
        assert done.returncode == 0, done.stdout + done.stderr
    certificate = json.loads(done.stdout)
    assert certificate["by_kind_of_run"] == {
        "classification-1p-0w": 5,
        "super_resolution-2p-2w": 5,
    }, "the record accumulates"
    assert certificate == json.loads((tmp_path / "certificate.json").read_text())
    assert (
        certificate["rounds_that_differ"] == []
        and certificate["lost_checkpoints"] == certificate["unreadable_checkpoints"] == 0
    )

    # a soak that cannot fail proves nothing
    path = tmp_path / "straight" / "classification-1p-0w.json"
    straight = json.loads(path.read_text())
    straight["fingerprint"]["metrics.jsonl"] = "0" * 64
    path.write_text(json.dumps(straight))
    done = soak(
        tmp_path, "--task", "classification", "--processes", "1", "--workers", "0", "--kills", "6"
    )
    assert done.returncode == 1 and json.loads(done.stdout)["rounds_that_differ"] == [
        "classification-1p-0w"
    ]
    assert "metrics.jsonl" in done.stderr


def test_a_quarter_of_the_injuries_are_inside_the_write_and_every_kind_occurs():
    generator = random.Random(0)
    chosen = [injuries.choose(generator, TWO) for _ in range(4000)]
    assert set(chosen) == {*injuries.FAULTS, *injuries.OTHERS, injuries.ONE_RANK}
    assert 0.22 < sum(name in injuries.FAULTS for name in chosen) / len(chosen) < 0.28
    assert injuries.ONE_RANK not in {injuries.choose(generator, ONE) for _ in range(1000)}


@pytest.mark.parametrize(
    ("injury", "codes", "reached", "wrong"),
    [
        ("killed", [-9], 5, False), ("killed", [0], 24, False), ("killed", [1], 5, True), ("killed", [-9, 75], 5, False),
        ("SIGTERM", [75], 5, False), ("SIGTERM", [-15], 0, False), ("SIGTERM", [-15], 5, True), ("SIGTERM", [-9], 5, True),
        ("disk full", [2], 5, False), ("disk full", [1], 5, True), ("disk full", [-9], 5, True),
        ("one rank killed", [-9, 75], 5, False), ("one rank killed", [-9, 1], 5, True),
    ],
)  # fmt: skip
def test_a_process_that_ends_otherwise_than_its_injury_allows_is_told(
    injury, codes, reached, wrong
):
    assert injuries.unexpected(injury, codes, reached) == wrong


@pytest.mark.parametrize("injury", injuries.DAMAGE)
def test_damage_is_seen_by_the_reader_and_never_done_to_the_only_checkpoint(injury, tmp_path):
    checkpoints, generator = tmp_path / "checkpoints", random.Random(1)
    for step in (2, 4):
        folder = checkpoints / f"step_{step:08d}"
        write_folder(
            folder, lambda folder, step=step: write_json(folder / "state.json", {"step": step})
        )
        name = injuries.damage(injury, tmp_path, generator)
        assert name == (None if step == 2 else "step_00000004")
    assert problems(checkpoints / "step_00000002") == []


@pytest.mark.parametrize("point", POINTS)
def test_a_fault_comes_at_its_point_and_after_the_passes_it_was_told(point, tmp_path):
    fault = trainee.make_fault(point, 2, "ENOSPC")
    for other in POINTS:
        if other != point:
            fault(other, tmp_path)
    fault(point, tmp_path)
    fault(point, tmp_path)
    for _ in range(2):  # a disk stays full
        with pytest.raises(OSError, match="No space left"):
            fault(point, tmp_path)


def test_half_of_the_file_written_last_is_cut_off(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(20))
    trainee.halve_newest(tmp_path)
    assert [(tmp_path / name).stat().st_size for name in "ab"] == [10, 10]


def record(**changes):
    start = {
        "injury": "killed", "fresh": False, "before": 0, "reached": 5, "newest": 3, "unreadable": [], "lost": False, "unexpected": False,
        "hung": False, "killed": True, "repeated_steps": 2, "repeated_seconds": 4.0, "exit_codes": [-9],
    }  # fmt: skip
    last = {"hung": False, "lost": False, "fresh": True, "restart_seconds": 8.0}
    row = {
        "kind": "toy-1p-0w",
        "starts": [start],
        "last": last,
        "differing": [],
        "step_seconds": 0.5,
    }
    for name, value in changes.items():
        (start if name in start or name in ("signal_seconds", "in_phase") else row)[name] = value
    return row


def certificate_of(tmp_path, *rows):
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_certificate(tmp_path / "rounds.jsonl")


def test_the_certificate_counts_all_rounds_and_projects_the_useful_work(tmp_path):
    asked = record(injury="SIGTERM", signal_seconds=1.0, in_phase=False, exit_codes=[75])
    found = certificate_of(tmp_path, record(), asked, record(killed=False))
    assert (
        found["stops"] == 2
        and found["by_injury"] == {"SIGTERM": 1, "killed": 1}
        and found["repeated_steps"] == 4
    )
    assert found["signals"] == {"asked": 1, "late": 0, "mean": 1.0, "median": 1.0, "worst": 1.0}
    assert found["useful_work"] == pytest.approx(1 - (8.0 + 4.0) / 600)
    assert holds(found)
    assert holds(make_certificate(tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize(
    "change",
    [
        {"lost": True}, {"unreadable": ["step_00000003"]}, {"unexpected": True}, {"hung": True}, {"differing": ["best"]},
        {"signal_seconds": 5.6, "in_phase": False, "exit_codes": [75]},
    ],
    ids=str,
)  # fmt: skip
def test_anything_that_is_not_as_promised_breaks_the_certificate(tmp_path, change):
    assert not holds(certificate_of(tmp_path, record(), record(**change)))


def test_data_is_for_one_task(tmp_path):
    done = soak(tmp_path, "--data", "images")
    assert (
        done.returncode == 2
        and done.stderr == "error: --data: is for one task; name it with --task\n"
    )
