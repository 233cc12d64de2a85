"""Processes that are killed, stopped, restarted and moved: the run ends as an undisturbed one."""

import json
import re
import time

import pytest
import watched_classification  # noqa: F401 - once here, not in every forked process
from torchrun_runs import LONGEST, Runs, bytes_of, free_port, left_behind, write_classification

from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.testing.short_runs import logged

KILLED_AT = 5  # with checkpoints after 2, 4, 6 and 8 steps
LOST = (
    r"error( \(process 1\))?: another process of this run is gone or does not respond \(.+\); "
    r"the same command resumes from the newest "
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs, with undisturbed runs of one and of two processes: `one` and `two`."""
    folder = tmp_path_factory.mktemp("elasticity")
    runs_of_folder = Runs(folder, write_classification(folder / "images"))
    assert runs_of_folder.forked("one", 1)[0] == [0]
    assert runs_of_folder.forked("two", 2)[0] == [0, 0]
    return runs_of_folder


def state_of(output):
    status = json.loads((output / "status.json").read_text())
    return status["state"], status["step"]


@pytest.mark.slow
def test_a_killed_rank_is_brought_back_by_torchrun_and_the_run_ends_with_the_same_bytes(runs):
    injury = {"step": KILLED_AT, "rank": 1, "signal": "SIGKILL", "targets": ["self"]}
    log = runs.folder / "restarted.log"
    launcher = runs.torchrun(
        "restarted",
        ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"],
        injury=injury,
        log=log,
    )
    assert launcher.wait(LONGEST) == 0, log.read_text()
    assert re.findall(r"resuming after step (\d+)", log.read_text()) == ["4"]
    assert bytes_of(runs.output("restarted")) == bytes_of(runs.output("two"))
    assert left_behind(str(runs.output("restarted"))) == []


@pytest.mark.slow
def test_a_run_that_moves_from_one_process_to_two_and_back_sees_the_same_samples_and_losses(runs):
    output, log = runs.output("moved"), runs.folder / "moved.log"
    asked = {"step": 2, "rank": 0, "signal": "SIGTERM", "targets": ["self"]}
    assert runs.forked("moved", 1, injury=asked)[0] == [75]
    assert state_of(output) == ("stopped", 3)
    # as a scheduler does that signals every process of a job
    asked = {"step": 5, "rank": 0, "signal": "SIGTERM", "targets": ["launcher", "self"]}
    launcher = runs.torchrun(
        "moved", ["--standalone", "--nproc-per-node", "2"], injury=asked, log=log
    )
    assert launcher.wait(LONGEST) == 1, log.read_text()  # torchrun turns every exit into 1
    assert "resuming after step 3" in log.read_text() and state_of(output) == ("stopped", 6)
    assert runs.forked("moved", 1)[0] == [0]

    assert runs.trained_on("moved") == runs.trained_on("one")
    rows, alone = logged(output), logged(runs.output("one"))
    assert [(row["kind"], row["step"]) for row in rows] == [
        (row["kind"], row["step"]) for row in alone
    ]
    for row, wanted in zip(rows, alone, strict=True):
        losses = {name: value for name, value in wanted.items() if "loss" in name}
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-5), (
            f"step {row['step']}"
        )


@pytest.mark.slow
def test_a_lost_node_ends_the_other_and_both_started_again_end_with_the_same_bytes(runs):
    def start(injury=None):
        port = free_port()
        logs = [runs.folder / f"nodes.{node}.log" for node in (0, 1)]
        options = [
            "--nnodes",
            "2",
            "--nproc-per-node",
            "1",
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            port,
        ]
        agents = [
            runs.torchrun("nodes", [*options, "--node-rank", node], injury=injury, log=logs[node])
            for node in (0, 1)
        ]
        return [agent.wait(LONGEST) for agent in agents], [log.read_text() for log in logs]

    injury = {"step": KILLED_AT, "rank": 1, "signal": "SIGKILL", "targets": ["launcher", "self"]}
    codes, texts = start(injury)
    assert codes == [1, -9], texts[0]
    assert re.search(LOST, texts[0]) and re.search(r"exitcode +: 75 ", texts[0]), texts[0]
    assert left_behind(str(runs.output("nodes"))) == []
    codes, texts = start()
    assert codes == [0, 0], texts
    assert "resuming after step 4" in texts[0]
    assert bytes_of(runs.output("nodes")) == bytes_of(runs.output("two"))


def test_eight_processes_train_on_the_samples_of_one_and_divide_by_the_same_count(runs):
    options = ["--batch-size", "16", "--micro-batch", "2", "--steps", "2", "--save-every", "0"]
    assert runs.forked("sixteen", 1, *options)[0] == [0]
    assert runs.forked("eight", 8, *options)[0] == [0] * 8
    alone = runs.trained_on("sixteen")
    assert runs.trained_on("eight") == alone
    assert {step: (len(ids), counts) for step, (ids, counts) in alone.items()} == {
        0: (16, {16.0}),
        1: (16, {16.0}),
    }
    losses = [
        [row["loss"] for row in logged(runs.output(name)) if row["kind"] == "train"]
        for name in ("eight", "sixteen")
    ]
    assert len(losses[1]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("signal", ["SIGKILL", pytest.param("SIGSTOP", marks=pytest.mark.slow)])
def test_a_process_that_is_killed_or_stopped_ends_the_other_in_one_line_after_a_whole_checkpoint(
    runs, signal, rank
):
    name, patience = f"{signal}-{rank}", 4
    injury = {"step": KILLED_AT, "rank": rank, "signal": signal, "targets": ["self"]}
    codes, texts = runs.forked(name, 2, "--process-timeout", str(patience), injury=injury)
    seconds = time.time() - (runs.folder / f"{name}.notes" / f"{rank}.jsonl").stat().st_mtime
    assert codes[1 - rank] == 75, texts
    assert re.search(LOST, texts[1 - rank]) and "Traceback" not in texts[1 - rank]
    # of waiting, and of leaving on a loaded machine; a killed one is noticed at once
    assert (patience if signal == "SIGSTOP" else 0) <= seconds < patience + 15
    assert max(runs.trained_on(name)) == KILLED_AT - 1
    newest = latest_valid(runs.output(name) / "checkpoints")
    assert newest is not None and newest.name in ("step_00000002", "step_00000004")
