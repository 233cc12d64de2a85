"""`visionloop-checkpoint` on the checkpoints of a sharded run, and what reads them whole."""

import json
import shutil

import pytest
import torch
import torch.utils.tensorboard
from checkpoint_folders import damage, step
from safetensors import safe_open
from safetensors.torch import load_file
from toy_task import ToyModel, ToyTask

from visionloop.bin import checkpoint
from visionloop.engine.checkpoints.manifest import problems
from visionloop.engine.checkpoints.stored_tensors import StoredTensors
from visionloop.engine.testing.short_runs import on_ranks, same_bits
from visionloop.engine.train import train

commands = checkpoint.command  # what the fixture `command` runs
SETTINGS = dict(
    model="toy",
    steps=6,
    batch_size=8,
    micro_batch=4,
    save_every=2,
    eval_every=3,
    keep=9,
    workers=0,
    threads=1,
    precision="fp32",
    device="cpu",
    lr=1e-2,
    ema=True,
)
KINDS = {"weights": "model", "optimizer": "optimizer", "ema": "ema"}


class ToyWithExtra(ToyTask):
    """Writes one more tensor than the module has, as a task with derived buffers does."""

    name = "toy"

    def save(self, module, tensors, folder):
        super().save(module, {**tensors, "extra": torch.arange(3.0)}, folder)

    def load(self, module, folder):
        stored = load_file(folder / "model.safetensors")
        assert stored.pop("extra").tolist() == [0, 1, 2]
        module.load_state_dict(stored)


def train_sharded(output):
    train(ToyWithExtra, output=output, shard="full", **SETTINGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on two processes with a checkpoint after 2, 3, 4 and 6 steps."""
    run = tmp_path_factory.mktemp("runs") / "run"
    on_ranks(2, train_sharded, str(run), context="fork")
    assert (step(run, 6) / "weights-00002-of-00002.safetensors").is_file()
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def last_tensors(run):
    """{"<kind>/<name>": tensor} of the last checkpoint of a run that is not sharded."""
    return {
        f"{kind}/{name}": tensor
        for kind in KINDS.values()
        for name, tensor in load_file(step(run, 6) / f"{kind}.safetensors").items()
    }


def test_inspect_counts_parameters_and_tensors_over_all_shards(command, run):
    facts = json.loads(command("inspect", step(run, 6), "--json")[1])
    state = ToyModel(0.0, False).state_dict()
    assert facts["shards"] == 2 and facts["condition"] == "valid"
    assert facts["tensors"] == len(state) + 1
    assert facts["parameters"] == sum(tensor.numel() for tensor in state.values()) + 3
    assert facts["bytes"] == sum(path.stat().st_size for path in step(run, 6).iterdir())
    assert f" in {len(state) + 1} tensors of 2 shard(s)" in command("inspect", step(run, 6))[1]
    whole = json.loads(command("inspect", run / "best", "--json")[1])
    assert whole["shards"] is None
    assert (whole["tensors"], whole["parameters"]) == (facts["tensors"], facts["parameters"])


def test_list_verify_and_prune_see_a_damaged_or_missing_shard(command, run):
    damage(step(run, 4), "ema-00002-of-00002.safetensors")
    (step(run, 6) / "weights-00002-of-00002.safetensors").unlink()
    rows = json.loads(command("list", run, "--json")[1])["checkpoints"]
    assert [(row["step"], row["condition"]) for row in rows] == [
        (2, "valid"),
        (3, "valid"),
        (4, "damaged"),
        (6, "damaged"),
    ]
    code, printed, _ = command("verify", run)
    assert code == 1 and "weights-00002-of-00002.safetensors: missing" in printed
    assert command("prune", run, "--keep", "1")[0] == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000003"]


def test_a_consolidated_checkpoint_has_the_files_and_tensors_of_a_whole_one(command, run, tmp_path):
    code, printed, errors = command("consolidate", step(run, 6), tmp_path / "new" / "whole")
    whole = tmp_path / "new" / "whole"
    assert (code, errors) == (0, "") and printed.startswith(f"{whole}: step 6, 5 files, ")
    assert sorted(path.name for path in whole.iterdir()) == [
        "ema.safetensors",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert problems(whole) == []
    assert (whole / "state.json").read_bytes() == (step(run, 6) / "state.json").read_bytes()
    for kind, file in KINDS.items():
        written = load_file(whole / f"{file}.safetensors")
        with StoredTensors(step(run, 6), kind) as stored:
            assert written.keys() - {"extra"} == stored.keys()
            assert all(same_bits(written[name], tensor) for name, tensor in stored.items())
    with safe_open(whole / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses a file without
        assert file.get_tensor("extra").tolist() == [0, 1, 2]
    assert command("inspect", whole)[1].startswith(f"{whole}: valid\nstep        6\n")


@pytest.mark.parametrize("number", [2, 3])
def test_a_run_goes_on_from_shards_as_from_the_whole_checkpoint_made_of_them(
    command, run, number, tmp_path
):
    assert command("consolidate", step(run, number), tmp_path / "whole")[0] == 0
    for name, start in (("one", step(run, number)), ("other", tmp_path / "whole")):
        train(ToyWithExtra, output=str(tmp_path / name), resume=str(start), **SETTINGS)
    one, other = last_tensors(tmp_path / "one"), last_tensors(tmp_path / "other")
    assert one.keys() == other.keys() and len(one) > 15
    assert all(same_bits(tensor, other[name]) for name, tensor in one.items())


def test_of_a_run_the_latest_valid_checkpoint_is_consolidated(command, run, tmp_path):
    damage(step(run, 6), "optimizer-00001-of-00002.safetensors")
    code, printed, _ = command("consolidate", run, tmp_path / "whole")
    assert code == 0 and ": step 4, " in printed


def test_what_cannot_be_consolidated_is_one_line_and_writes_nothing(command, run, tmp_path):
    kept, file = tmp_path / "kept", tmp_path / "file"
    kept.mkdir()
    file.touch()
    damage(step(run, 4), "weights-00002-of-00002.safetensors")
    before = sorted(tmp_path.iterdir())
    cases = {
        f"{kept}: exists; expected a folder that is not there yet": (step(run, 6), kept),
        f"{step(run, 4)}: damaged (weights-00002-of-00002.safetensors: content changed (SHA-256 "
        "differs)); expected a valid checkpoint": (step(run, 4), tmp_path / "whole"),
        f"{run / 'best'}: is whole already; expected a checkpoint of a run with --shard": (
            run / "best",
            tmp_path / "whole",
        ),
        f"{step(run, 6) / 'whole'}: lies in the checkpoint, which is not changed; expected a folder"
        " elsewhere": (step(run, 6), step(run, 6) / "whole"),
        f"{file / 'whole'}: cannot be written (Not a directory)": (step(run, 6), file / "whole"),
    }
    for message, (source, target) in cases.items():
        code, printed, errors = command("consolidate", source, target)
        assert (code, printed, errors) == (2, "", f"error: {message}\n")
    assert sorted(tmp_path.iterdir()) == before and problems(step(run, 6)) == []
