"""Options that every task has because the engine has them."""

import json

import pytest
import torch
from toy_task import ToyTask

from visionloop.engine.checkpoints.writer import load_tensors
from visionloop.engine.errors import UserError
from visionloop.engine.testing.short_runs import logged
from visionloop.engine.train import train

SETTINGS = dict(
    batch_size=8,
    micro_batch=8,
    steps=10,
    lr=1e-2,
    threads=1,
    workers=0,
    device="cpu",
    precision="fp32",
    log_every=1,
    eval_every=2,
    save_every=0,
)


def evaluations(output):
    return [row for row in logged(output) if row["kind"] == "eval"]


def test_overfit_trains_and_evaluates_on_the_same_few_samples(tmp_path):
    class Watched(ToyTask):
        trained, scored = set(), set()

        def count_normalizers(self, micro_batches):
            self.trained.update(
                index for batch in micro_batches for index in batch["sample_ids"].tolist()
            )
            return super().count_normalizers(micro_batches)

        def predict(self, model, batch):
            self.scored.update(batch["sample_ids"].tolist())
            return super().predict(model, batch)

    result = train(
        Watched, output=str(tmp_path), overfit=4, **SETTINGS | dict(steps=60, eval_every=0)
    )
    assert Watched.trained == Watched.scored == {0, 1, 2, 3}
    assert result.scores["accuracy"] == 1.0


def test_patience_ends_the_run_after_that_many_evaluations_without_a_better_score(tmp_path):
    # a learning rate of zero: no evaluation is better than the first
    result = train(ToyTask, output=str(tmp_path), patience=2, **SETTINGS | dict(lr=0.0))
    assert (result.state, result.step, result.best["step"]) == ("finished", 6, 2)
    assert train(ToyTask, output=str(tmp_path), patience=2, **SETTINGS | dict(lr=0.0)).step == 6


def test_best_holds_the_ema_and_the_step_folder_the_training_weights(tmp_path):
    result = train(ToyTask, output=str(tmp_path), **SETTINGS)
    best = load_tensors(tmp_path / "best" / "model.safetensors")
    folder = tmp_path / "checkpoints" / f"step_{result.best['step']:08d}"
    ema, trained = (
        load_tensors(folder / "ema.safetensors"),
        load_tensors(folder / "model.safetensors"),
    )
    assert all(torch.equal(best[name], ema[name]) for name in best)
    assert not all(torch.equal(best[name], trained[name]) for name in best)
    assert all(row["metrics"].keys() == row["metrics_raw"].keys() for row in evaluations(tmp_path))


def test_another_metric_can_pick_the_best(tmp_path):
    result = train(ToyTask, output=str(tmp_path), best_metric="val_loss", **SETTINGS)
    losses = {row["step"]: row["metrics"]["val_loss"] for row in evaluations(tmp_path)}
    assert result.best["step"] == min(losses, key=losses.get)
    with pytest.raises(UserError, match="--best-metric: expected one of accuracy, val_loss"):
        train(ToyTask, output=str(tmp_path / "other"), best_metric="beauty", **SETTINGS)


def test_resume_starts_a_new_folder_from_a_checkpoint_of_another_run(tmp_path):
    train(ToyTask, output=str(tmp_path / "first"), **SETTINGS | dict(save_every=4, keep=9))
    checkpoint = tmp_path / "first" / "checkpoints" / "step_00000004"
    train(ToyTask, output=str(tmp_path / "second"), resume=str(checkpoint), **SETTINGS)
    assert [row for row in logged(tmp_path / "first") if row["step"] > 4] == logged(
        tmp_path / "second"
    )
    with pytest.raises(UserError, match=r"--resume .*not a complete checkpoint"):
        train(ToyTask, output=str(tmp_path / "third"), resume=str(tmp_path), **SETTINGS)


def test_a_task_may_continue_from_its_best_weights(tmp_path):
    class Reloading(ToyTask):
        def reload_best_at(self, steps):
            return 6

        def before_step(self, module, step, steps):
            if step == 6:
                self.weights = {
                    name: tensor.detach().clone() for name, tensor in module.state_dict().items()
                }
                Reloading.loaded = self.weights
            super().before_step(module, step, steps)

    result = train(
        Reloading, output=str(tmp_path), **SETTINGS | dict(best_metric="val_loss", lr=3.0, keep=9)
    )
    at_best = [row for row in evaluations(tmp_path) if row["step"] <= 6]
    best_step = min(at_best, key=lambda row: row["metrics"]["val_loss"])["step"]
    stored = load_tensors(tmp_path / "checkpoints" / f"step_{best_step:08d}" / "model.safetensors")
    assert result.state == "finished" and all(
        torch.equal(stored[name], Reloading.loaded[name]) for name in stored
    )


def test_freezing_the_backbone_changes_the_head_alone(tmp_path):
    train(
        ToyTask, output=str(tmp_path), freeze="backbone", **SETTINGS | dict(save_every=1, keep=99)
    )
    first, last = (
        load_tensors(tmp_path / "checkpoints" / f"step_{step:08d}" / "model.safetensors")
        for step in (1, 10)
    )
    assert all(torch.equal(first[name], last[name]) == name.startswith("stem") for name in first)


def test_a_mistake_at_the_start_is_in_status_json_and_the_folder_stays_usable(tmp_path):
    with pytest.raises(UserError, match="no training samples"):
        train(ToyTask, output=str(tmp_path), images=0, **SETTINGS)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
    assert train(ToyTask, output=str(tmp_path), **SETTINGS).state == "finished"


def test_a_mistake_at_the_start_leaves_no_folder_that_nobody_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no training samples"):
        train(ToyTask, images=0, **SETTINGS)
    assert list((tmp_path / "runs").iterdir()) == []
    with pytest.raises(UserError, match="no training samples"):
        train(ToyTask, run_name="first", images=0, **SETTINGS)
    assert (tmp_path / "runs" / "first" / "status.json").exists()


def test_deterministic_names_what_has_no_deterministic_backward(tmp_path, capsys):
    class Sampling(ToyTask):
        def nondeterministic_ops(self, module):
            return ("grid_sample",)

    lines = {}
    for name, task, deterministic in (
        ("plain", Sampling, False),
        ("none", ToyTask, True),
        ("named", Sampling, True),
    ):
        train(task, output=str(tmp_path / name), **SETTINGS | dict(deterministic=deterministic))
        lines[name] = [
            line
            for line in capsys.readouterr().out.splitlines()
            if line.startswith("--deterministic")
        ]
    assert (
        lines["plain"] == lines["none"] == []
        and len(lines["named"]) == 1
        and "grid_sample" in lines["named"][0]
    )
