"""`--deterministic`: switches of torch that hold from the process group to the end of the run."""

import os

import pytest
import torch
from toy_task import ToyTask

from visionloop.engine import train as train_module
from visionloop.engine.determinism import (
    deterministic_algorithms,
    enable_fused_attention,
    permit_nondeterministic,
)
from visionloop.engine.errors import UserError
from visionloop.engine.train import train

SETTINGS = dict(
    batch_size=8, micro_batch=8, steps=2, threads=1, workers=0, device="cpu", precision="fp32"
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("NCCL_ALGO", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "")  # restored at the end
        monkeypatch.delenv(name)


def switches():
    return {
        "enabled": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": torch.backends.cudnn.benchmark,
        "fused attention": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
        ),
    }


class Watched(ToyTask):
    """Notes the switches of each loss; `operations` have no deterministic backward."""

    operations, seen = (), []

    def nondeterministic_ops(self, module):
        return self.operations

    def loss(self, model, batch, normalizers):
        self.seen.append(switches())
        return super().loss(model, batch, normalizers)


class Scattering(ToyTask):
    """Its loss needs an operation without a deterministic implementation, also on the CPU."""

    def loss(self, model, batch, normalizers):
        losses = super().loss(model, batch, normalizers)
        index = torch.zeros(1, dtype=torch.int64)
        losses["loss"] = torch.zeros(1).put(index, losses["loss"][None]).sum()
        return losses


class SampledScattering(Scattering):
    def nondeterministic_ops(self, module):
        return ("put_",)


@pytest.mark.parametrize("operations", [(), ("grid_sample",)])
def test_only_a_task_that_names_its_operations_is_let_off_with_a_warning(tmp_path, operations):
    task = type("Named", (Watched,), {"operations": operations, "seen": []})
    before = switches()
    train(task, output=str(tmp_path), deterministic=True, **SETTINGS)
    assert [row["enabled"] for row in task.seen] == [True, True]
    assert [row["warn_only"] for row in task.seen] == [bool(operations)] * 2
    assert not any(row["fill"] or row["benchmark"] for row in task.seen)
    # on the CPU the fused kernels are deterministic, and are those of runs without the option
    assert all(row["fused attention"] == before["fused attention"] for row in task.seen)
    assert switches() == before


def test_an_operation_without_a_deterministic_implementation_is_named_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^--deterministic: this training needs put_,") as caught:
        train(Scattering, output=str(tmp_path / "strict"), deterministic=True, **SETTINGS)
    assert caught.value.code == "nondeterministic_operation" and "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match="put_ does not have a deterministic implementation"):
        train(SampledScattering, output=str(tmp_path / "named"), deterministic=True, **SETTINGS)
    train(Scattering, output=str(tmp_path / "plain"), **SETTINGS)


def test_a_warning_on_cuda_leaves_attention_its_deterministic_kernel_only():
    with deterministic_algorithms(True):
        permit_nondeterministic((), torch.device("cuda"))
        assert all(switches()["fused attention"]), "strict: the kernels are deterministic"
        permit_nondeterministic(("grid_sample",), torch.device("cuda"))
        assert not any(switches()["fused attention"]) and torch.backends.cuda.math_sdp_enabled()
    assert all(switches()["fused attention"])


def test_a_users_own_switches_hold_after_a_deterministic_run(tmp_path):
    enable_fused_attention(flash=False, mem_efficient=True, cudnn=False)
    before = switches()
    with deterministic_algorithms(True):
        permit_nondeterministic(("grid_sample",), torch.device("cuda"))
    after = switches()
    enable_fused_attention(flash=True, mem_efficient=True, cudnn=True)
    assert after == before


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_process_group_starts_with_the_switches_and_the_environment_of_the_run(
    tmp_path, monkeypatch, deterministic
):
    seen = []
    join_world = train_module.join_world

    def watched(*arguments):
        names = ("NCCL_ALGO", "CUBLAS_WORKSPACE_CONFIG")
        seen.append((switches()["enabled"], *map(os.environ.get, names)))
        return join_world(*arguments)

    monkeypatch.setattr(train_module, "join_world", watched)
    train(ToyTask, output=str(tmp_path), deterministic=deterministic, **SETTINGS)
    assert seen == [(True, "^NVLS", ":4096:8") if deterministic else (False, None, None)]


def test_an_algorithm_of_nccl_that_was_chosen_stays(monkeypatch):
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    with deterministic_algorithms(True):
        assert os.environ["NCCL_ALGO"] == "Ring"


@pytest.mark.parametrize(("deterministic", "fixed", "expected"), [
    (False, True, True), (True, True, False), (False, False, False),
])  # fmt: skip
def test_cudnn_measures_its_kernels_in_steps_of_one_image_size_and_never_in_evaluations(
    deterministic, fixed, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)

    class Watched(ToyTask):
        trained, evaluated = set(), set()

        def has_fixed_size(self):
            return fixed

        def loss(self, model, batch, normalizers):
            self.trained.add(torch.backends.cudnn.benchmark)
            return super().loss(model, batch, normalizers)

        def predict(self, model, batch):
            self.evaluated.add(torch.backends.cudnn.benchmark)
            return super().predict(model, batch)

    flags = {"batch_size": 8, "steps": 2, "eval_every": 1, "workers": 0, "precision": "fp32"}
    train(Watched, output=str(tmp_path), device="cpu", deterministic=deterministic, **flags)
    assert (Watched.trained, Watched.evaluated) == ({expected}, {False})
    assert not torch.backends.cudnn.benchmark
