"""`visionloop-checkpoint` as a person types it, on copies of one small run."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoint_folders import damage, step
from toy_task import ToyModel, ToyTask

from visionloop.bin import checkpoint
from visionloop.engine.checkpoints.files import write_json
from visionloop.engine.checkpoints.folder import latest_valid, problems
from visionloop.engine.checkpoints.lock import RunLock
from visionloop.engine.checkpoints.manifest import make_manifest
from visionloop.engine.train import train

commands = checkpoint.command  # what the fixture `command` runs
STEPS = (2, 4, 6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with a checkpoint at each of STEPS; the best score is the one at step 6."""
    run = tmp_path_factory.mktemp("runs") / "run"
    train(
        ToyTask,
        model="toy",
        steps=6,
        batch_size=8,
        save_every=2,
        eval_every=3,
        keep=9,
        workers=0,
        threads=1,
        output=str(run),
        precision="fp32",
        device="cpu",
        lr=1e-2,
        ema=False,
        best_metric="val_loss",
    )
    state = json.loads((run / "checkpoints" / "step_00000006" / "state.json").read_text())
    assert state["best"]["step"] == 6
    if (run / "checkpoints" / "step_00000003").is_dir():  # best for a while
        shutil.rmtree(run / "checkpoints" / "step_00000003")
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def steps_of(run):
    return sorted(
        int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*")
    )


def leave_incomplete(run, number):
    folder = run / "checkpoints" / f".step_{number:08d}.writing"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(100))
    return folder


def read_files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_help_imports_no_torch():
    code = (
        "import sys; from visionloop.bin.commands.cli import run_commands\n"
        "from visionloop.bin.checkpoint import command\n"
        "for name in ('list', 'inspect', 'verify', 'prune'):\n"
        "    try:\n        run_commands(command, [name, '--help'])\n"
        "    except SystemExit:\n        pass\n"
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules), 'slow'"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "--dry-run" in result.stdout and result.stdout.count("--json") == 3


# list --------------------


def test_list_shows_each_folder_with_condition_score_and_the_best(command, run):
    damage(step(run, 4))
    leave_incomplete(run, 8)
    code, printed, _ = command("list", run)
    lines = printed.splitlines()
    assert (
        code == 0
        and len(lines) == 5
        and lines[0].split() == ["step", "written", "size", "condition", "val_loss"]
    )
    valid, damaged, best, incomplete = lines[1:]
    assert valid.split()[0] == "2" and " valid " in valid and "best" not in valid
    assert (
        damaged.split()[0] == "4"
        and " damaged " in damaged
        and "model.safetensors: content changed" in damaged
    )
    assert best.split()[0] == "6" and best.endswith("  best")
    assert (
        ".step_00000008.writing" in incomplete
        and " incomplete " in incomplete
        and "100 bytes" in incomplete
    )


def test_list_as_json_is_the_same_for_the_run_and_for_its_checkpoints_folder(command, run):
    code, printed, _ = command("list", run, "--json")
    report = json.loads(printed)
    state = json.loads((step(run, 6) / "state.json").read_text())
    assert code == 0 and report["best_step"] == 6 and report["metric"] == "val_loss"
    assert [row["step"] for row in report["checkpoints"]] == list(STEPS)
    assert [row["is_best"] for row in report["checkpoints"]] == [False, False, True]
    last = report["checkpoints"][-1]
    assert (
        last["score"] == state["scores"]["val_loss"]
        and last["evaluated_at"] == 6
        and last["condition"] == "valid"
    )
    assert last["bytes"] == sum(map(len, read_files(step(run, 6)).values()))
    assert json.loads(command("list", run / "checkpoints", "--json")[1]) == report


def test_a_score_between_two_evaluations_names_its_step(command, run):
    lines = command("list", run)[1].splitlines()
    assert lines[2].split()[0] == "4" and lines[2].endswith("as of step 3")


def test_a_run_without_checkpoints_has_none_and_that_is_no_error(command, run):
    shutil.rmtree(run / "checkpoints")
    code, printed, _ = command("list", run)
    assert code == 0 and printed == f"{run / 'checkpoints'}: no checkpoint\n"


def test_copies_elsewhere_are_listed_too(command, run, tmp_path):
    (run / "checkpoints").rename(tmp_path / "kept")
    assert [
        row["step"]
        for row in json.loads(command("list", tmp_path / "kept", "--json")[1])["checkpoints"]
    ] == list(STEPS)


# inspect --------------------


def test_inspect_tells_what_the_files_hold(command, run):
    facts = json.loads(command("inspect", step(run, 4), "--json")[1])
    state = json.loads((step(run, 4) / "state.json").read_text())
    assert (facts["step"], facts["task"], facts["condition"], facts["micro_batches"]) == (
        4,
        "toy",
        "valid",
        1,
    )
    assert (
        facts["scores"] == state["scores"]
        and facts["best"] == state["best"]
        and facts["settings"] == state["settings"]
    )
    assert facts["parameters"] == sum(
        tensor.numel() for tensor in ToyModel(0.0, False).state_dict().values()
    )
    sizes = {name: len(content) for name, content in read_files(step(run, 4)).items()}
    assert facts["bytes"] == sum(sizes.values())
    assert {name: file["bytes"] for name, file in facts["files"].items()} == {
        n: s for n, s in sizes.items() if n != "manifest.json"
    }
    assert {file["condition"] for file in facts["files"].values()} == {"valid"}


def test_inspect_of_a_run_is_about_its_latest_valid_checkpoint(command, run):
    damage(step(run, 6))
    code, printed, _ = command("inspect", run)
    assert (
        code == 0
        and printed.startswith(f"{step(run, 4)}: valid\n")
        and "\n  batch_size: 8\n" in printed
    )


def test_inspect_names_the_condition_of_each_file(command, run):
    damage(step(run, 4), "optimizer.safetensors")
    (step(run, 4) / "config.txt").write_text("mine")
    (step(run, 4) / "model.safetensors").write_bytes(b"no safetensors")
    facts = json.loads(command("inspect", step(run, 4), "--json")[1])
    conditions = {name: file["condition"] for name, file in facts["files"].items()}
    assert facts["condition"] == "damaged" and facts["parameters"] is None and facts["step"] == 4
    assert (
        conditions["optimizer.safetensors"] == "content changed (SHA-256 differs)"
        and conditions["config.txt"] == "not in the manifest"
    )
    assert (
        conditions["model.safetensors"].startswith("14 bytes, expected")
        and conditions["state.json"] == "valid"
    )


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: damage(folder, "state.json"),
    ],
)
def test_inspect_trusts_no_state_that_may_have_changed(command, run, corrupt):
    corrupt(step(run, 4))
    code, printed, _ = command("inspect", step(run, 4))
    assert (
        code == 0
        and ": damaged\n" in printed
        and "best        none yet" in printed
        and "settings that must not change: none" in printed
    )


# verify --------------------


def test_verify_of_a_sound_run_is_a_line_each_and_exit_code_0(command, run):
    leave_incomplete(run, 8)
    code, printed, _ = command("verify", run)
    assert code == 0 and [line.split(",")[0] for line in printed.splitlines()] == [
        *(f"{step(run, number)}: valid" for number in STEPS),
        f"{run / 'checkpoints' / '.step_00000008.writing'}: incomplete",
        f"{run / 'best'}: valid",
    ]


def test_verify_names_every_damaged_file_and_why_with_exit_code_1(command, run):
    damage(step(run, 2))
    (step(run, 2) / "state.json").unlink()
    damage(run / "best")
    code, printed, _ = command("verify", run)
    lines = printed.splitlines()
    assert code == 1 and len(lines) == 4 and sum(": damaged" in line for line in lines) == 2
    assert "model.safetensors: content changed (SHA-256 differs); state.json: missing" in lines[0]
    report = json.loads(command("verify", run, "--json")[1])
    assert report["damaged"] == 2 and len(report["folders"]) == 4
    assert all(row["problems"] == problems(Path(row["folder"])) for row in report["folders"])


@pytest.mark.parametrize("name", ["checkpoints/step_00000004", "best"])
def test_verify_of_one_folder_looks_at_it_alone(command, run, name):
    damage(step(run, 6))
    assert command("verify", run / name)[0] == 0
    (run / name / "manifest.json").unlink()
    code, printed, _ = command("verify", run / name)
    assert code == 1 and printed == f"{run / name}: damaged: manifest.json: missing or unreadable\n"


# prune --------------------


def test_prune_keeps_the_multiples_of_the_runs_keep_every(command, run):
    path = run / "settings.json"
    content = json.loads(path.read_text())
    content["settings"]["keep_every"]["value"] = 2
    path.write_text(json.dumps(content))
    code, printed, _ = command("prune", run, "--keep", "1", "--dry-run")
    assert code == 0 and printed.endswith("kept: step 2, 4, 6\n")
    for every, kept in (("4", "4, 6"), ("0", "6")):
        arguments = ("prune", run, "--keep", "1", "--dry-run", "--keep-every", every)
        assert command(*arguments)[1].endswith(f"kept: step {kept}\n")


def test_prune_keeps_the_newest_and_lists_what_was_removed(command, run):
    size = sum(
        len(content) for number in (2, 4) for content in read_files(step(run, number)).values()
    )
    code, printed, _ = command("prune", run, "--keep", "1")
    lines = printed.splitlines()
    assert (
        code == 0
        and steps_of(run) == [6]
        and lines[-1].startswith(f"{size} bytes freed")
        and lines[-1].endswith("kept: step 6")
    )
    assert [line.split(" (")[0] for line in lines[:-1]] == [
        f"removed {step(run, number)}" for number in (2, 4)
    ]


def test_a_dry_run_names_the_same_and_changes_nothing(command, run):
    leave_incomplete(run, 8)
    before = read_files(run)
    code, dry, _ = command("prune", run, "--keep", "2", "--dry-run")
    assert code == 0 and read_files(run) == before
    wet = command("prune", run, "--keep", "2")[1]
    assert dry.replace("would remove", "removed").replace("would be freed", "freed") == wet
    assert steps_of(run) == [4, 6] and not list((run / "checkpoints").glob(".*"))


def test_a_damaged_newer_one_does_not_count_among_those_that_are_kept(command, run):
    damage(step(run, 6))
    assert command("prune", run, "--keep", "1")[0] == 0
    assert steps_of(run) == [4] and problems(latest_valid(run / "checkpoints")) == []


def test_the_only_valid_one_is_never_removed(command, run):
    for number in (4, 6):
        damage(step(run, number))
    assert command("prune", run, "--keep", "1")[0] == 0
    assert steps_of(run) == [2]


def test_without_a_valid_one_nothing_is_removed(command, run):
    for number in STEPS:
        damage(step(run, number))
    code, printed, errors = command("prune", run, "--keep", "1")
    assert (
        code == 2
        and printed == ""
        and "no valid checkpoint; nothing was removed" in errors
        and errors.count("\n") == 1
    )
    assert steps_of(run) == list(STEPS)


def test_the_best_stays_beside_the_newest(command, run):
    """The newest valid checkpoint records the best step: the run resumes from that checkpoint."""
    folder = step(run, 6)
    state = json.loads((folder / "state.json").read_text())
    state["best"]["step"] = 2
    (folder / "state.json").write_text(json.dumps(state))
    write_json(folder / "manifest.json", make_manifest(folder))
    code, printed, _ = command("prune", run, "--keep", "1")
    assert code == 0 and steps_of(run) == [2, 6] and printed.endswith("kept: step 2, 6\n")


def test_a_checkpoint_whose_rewriting_was_cut_short_gets_its_name_back(command, run):
    step(run, 6).rename(run / "checkpoints" / ".step_00000006.removed")
    leave_incomplete(run, 6)
    assert command("prune", run, "--keep", "1")[0] == 0
    assert (
        steps_of(run) == [6]
        and problems(step(run, 6)) == []
        and not list((run / "checkpoints").glob(".*"))
    )


def test_nothing_is_removed_while_a_run_holds_the_lock(command, run):
    ready, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        lock = RunLock(run)
        os.write(tell, b"held")
        time.sleep(60)
        os._exit(lock is None)
    try:
        os.read(ready, 10)
        for path in (run, run / "checkpoints"):
            code, printed, errors = command("prune", path, "--keep", "1")
            assert (
                code == 2
                and printed == ""
                and errors == f"error: --output {run}: another process is running there\n"
            )
        assert steps_of(run) == list(STEPS)
        assert (
            command("list", run)[0]
            == command("verify", run)[0]
            == command("prune", run, "--keep", "1", "--dry-run")[0]
            == 0
        )
    finally:
        os.kill(holder, 9)
        os.waitpid(holder, 0)
        os.close(ready)
        os.close(tell)
    assert command("prune", run, "--keep", "1")[0] == 0 and steps_of(run) == [6]


def test_a_pruned_run_resumes(command, run):
    damage(step(run, 6))
    assert command("prune", run, "--keep", "1")[0] == 0
    result = train(ToyTask, config_file=str(run / "settings.json"), output=str(run))
    assert result.state == "finished" and result.step == 6 and problems(step(run, 6)) == []


# wrong input --------------------


@pytest.mark.parametrize("name", ["list", "inspect", "verify", "prune"])
@pytest.mark.parametrize("kind", ["absent", "file", "other"])
def test_a_wrong_folder_is_one_line_and_exit_code_2(command, tmp_path, name, kind):
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    if kind == "other":
        (path / "images").mkdir(parents=True)
    options = ["--keep", "1"] if name == "prune" else []
    code, printed, errors = command(name, path, *options)
    assert (
        code == 2
        and printed == ""
        and errors.startswith(f"error: {path}: ")
        and errors.count("\n") == 1
    )
    assert not list(tmp_path.glob("**/.lock"))


def test_list_of_one_checkpoint_points_to_its_run(command, run):
    code, _, errors = command("list", step(run, 2))
    assert code == 2 and f"did you mean {run / 'checkpoints'}?" in errors
