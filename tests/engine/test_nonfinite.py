"""A non-finite gradient changes nothing and is reported; too many of them end the run."""

import json
import shlex

import pytest
import torch
from toy_task import ToyConfig, ToyTask

from visionloop.engine import optim
from visionloop.engine.checkpoints.folder import latest_valid
from visionloop.engine.checkpoints.writer import load_tensors
from visionloop.engine.errors import UserError
from visionloop.engine.testing.short_runs import CONFIG, same_bits, train_steps
from visionloop.engine.train import train

SETTINGS = dict(
    batch_size=8,
    lr=1e-2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=0,
    save_every=1,
    keep=99,
    steps=8,
    batch_norm=True,
)


def tensors_at(output, step):
    folder = output / "checkpoints" / f"step_{step:08d}"
    files = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
    return {
        f"{file}/{name}": tensor
        for file in files
        for name, tensor in load_tensors(folder / file).items()
    }


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("nonfinite_step", [0, 3])
def test_a_nonfinite_step_leaves_weights_moments_ema_and_batch_norm_bit_equal(
    tmp_path, optimizer, nonfinite_step
):
    train(
        ToyTask, output=str(tmp_path), poison=str(nonfinite_step), optimizer=optimizer, **SETTINGS
    )
    after = tensors_at(tmp_path, nonfinite_step + 1)
    assert any("running_mean" in name for name in after) and any(
        "momentum" in name or "exp_avg" in name for name in after
    )
    if nonfinite_step:
        before = tensors_at(tmp_path, nonfinite_step)
        assert all(same_bits(before[name], after[name]) for name in before)
    else:
        # nothing was learned yet: moments are zero, statistics untouched
        assert all(
            not tensor.any() for name, tensor in after.items() if name.startswith("optimizer")
        )
        assert torch.equal(after["model.safetensors/norm.running_var"], torch.ones(8))
    assert all(torch.isfinite(tensor).all() for tensor in tensors_at(tmp_path, 8).values())


def ignore_found_inf(monkeypatch, optimizer_class):
    """Let the fused kernels take `found_inf` and not read it, as those of Metal may."""
    step = optimizer_class.step

    def ignoring(self, closure=None):
        self.found_inf = None
        return step(self, closure)

    monkeypatch.setattr(optimizer_class, "step", ignoring)


@pytest.mark.parametrize("ignoring", [("mps",), ("mps", "cpu")])
def test_a_nonfinite_step_changes_nothing_where_the_kernels_ignore_found_inf(
    ignoring, tmp_path, monkeypatch
):
    for optimizer_class in (torch.optim.AdamW, torch.optim.SGD):  # of the weights and of the EMA
        ignore_found_inf(monkeypatch, optimizer_class)
    monkeypatch.setattr(optim, "IGNORING_FOUND_INF", ignoring)
    train(ToyTask, output=str(tmp_path), poison="3", **SETTINGS)
    before, after = tensors_at(tmp_path, 3), tensors_at(tmp_path, 4)
    kept = all(same_bits(before[name], after[name]) for name in before)
    assert kept == ("cpu" in ignoring), "the stand-in must fail where the host does not decide"


def test_a_nonfinite_step_is_reported_with_its_number_and_sample_ids(tmp_path, capfd):
    train(ToyTask, output=str(tmp_path), poison="3", **SETTINGS)
    warning = capfd.readouterr().err
    assert "step 4: gradient norm not finite" in warning and "loss_class inf" in warning
    assert "sample ids [" in warning and "train/" in warning
    assert warning.endswith(
        f"to inspect that step: python bin/toy.py replay --run {tmp_path} --step 4\n"
    )


def test_too_many_nonfinite_steps_in_a_row_end_the_run_with_a_checkpoint_of_the_last_finite_step(
    tmp_path,
):
    settings = SETTINGS | dict(log_every=2, save_every=0)
    with pytest.raises(UserError, match="4 non-finite steps in a row; step 3") as caught:
        train(
            ToyTask, output=str(tmp_path), poison="2,3,4,5,6,7", max_nonfinite_steps=3, **settings
        )
    assert caught.value.code == "nonfinite_steps"
    assert latest_valid(tmp_path / "checkpoints").name == "step_00000002"
    status = json.loads((tmp_path / "status.json").read_text())
    assert (
        status["state"] == "failed"
        and status["error"]["code"] == "nonfinite_steps"
        and status["step"] == 2
    )
    assert status["error"]["hint"].endswith(
        f"inspect that step: python bin/toy.py replay --run {tmp_path} --step 3"
    )


def test_the_command_that_shows_a_nonfinite_step_can_be_pasted_into_a_shell(tmp_path, capfd):
    output = tmp_path / "a run, it's ours"
    train(ToyTask, output=str(output), poison="1", **SETTINGS)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "not finite" in line]
    assert shlex.split(line.split("to inspect that step: ")[1]) == [
        "python",
        "bin/toy.py",
        "replay",
        "--run",
        str(output),
        "--step",
        "2",
    ]


def test_single_nonfinite_steps_do_not_end_the_run_and_are_counted_in_its_status(tmp_path):
    result = train(ToyTask, output=str(tmp_path), poison="1,3,5", max_nonfinite_steps=2, **SETTINGS)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (result.state, status["nonfinite_steps"]) == ("finished", 3)


def test_an_overflow_of_fp16_counts_only_when_the_scale_is_down_to_one(tmp_path, capfd):
    # the scale starts at 65536 and halves with each overflow: 8 steps never bring it to 1
    result = train(
        ToyTask,
        output=str(tmp_path),
        poison="0,1,2,3,4,5",
        max_nonfinite_steps=2,
        **SETTINGS | dict(precision="fp16"),
    )
    assert result.state == "finished" and "not finite" not in capfd.readouterr().err


def test_an_unreadable_sample_ends_the_run_with_a_valid_checkpoint_and_its_name(tmp_path):
    with pytest.raises(UserError, match=r"train/17\.png: broken on purpose") as caught:
        train(ToyTask, output=str(tmp_path), unreadable="17", **SETTINGS | dict(save_every=0))
    assert caught.value.code == "unreadable_sample"
    assert latest_valid(tmp_path / "checkpoints") is not None
    assert json.loads((tmp_path / "status.json").read_text())["error"]["file"] == "train/17.png"


def test_skip_unreadable_continues_and_lists_the_skipped_samples(tmp_path):
    train(ToyTask, output=str(tmp_path), unreadable="17", skip_unreadable=True, **SETTINGS)
    state = json.loads((tmp_path / "checkpoints" / "step_00000008" / "state.json").read_text())
    assert state["skipped"] == ["train/17.png"]


def test_too_many_skipped_samples_end_the_run_with_a_valid_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"2 of 40 samples cannot be read") as caught:
        train(
            ToyTask,
            output=str(tmp_path),
            unreadable="17,18",
            skip_unreadable=True,
            **SETTINGS | dict(save_every=0),
        )
    assert caught.value.code == "too_many_unreadable"
    assert latest_valid(tmp_path / "checkpoints") is not None


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_killed_worker_ends_the_run_with_a_valid_checkpoint_and_the_next_start_resumes(
    tmp_path, split
):
    settings = SETTINGS | dict(save_every=0, eval_every=3, workers=1)
    with pytest.raises(
        UserError,
        match=rf"{split}/17\.png: the worker that was reading it was killed by signal 9",
    ) as caught:
        train(ToyTask, output=str(tmp_path), deadly=f"{split}/17.png", **settings)
    assert caught.value.code == "lost_worker"
    saved = latest_valid(tmp_path / "checkpoints")
    assert saved is not None
    assert train(ToyTask, output=str(tmp_path), **settings).state == "finished"


def test_the_engine_can_run_without_a_checkpoint_interval(tmp_path):
    assert train_steps(ToyTask(ToyConfig()), tmp_path, config=CONFIG).state == "finished"
