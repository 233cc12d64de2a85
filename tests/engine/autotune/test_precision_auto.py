"""`--precision auto`: chosen by the main rank when a run begins, and kept wherever it resumes."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch
from toy_task import ToyTask

from visionloop.engine.autotune import precision as autotune_precision
from visionloop.engine.distributed import join_world, leave_world
from visionloop.engine.errors import UserError
from visionloop.engine.system import kernels
from visionloop.engine.system.kernels import LayerWidths, choose_precision
from visionloop.engine.testing.short_runs import on_ranks
from visionloop.engine.train import resolve_settings, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SETTINGS = dict(batch_size=8, micro_batch=8, steps=4, threads=1, workers=0, device="cpu")


def choose(monkeypatch, *choice):
    """Let `--precision auto` be this; without one, no choice may be made."""

    def chosen(device, widths):
        assert choice, "a run that resumes chooses nothing"
        return choice

    monkeypatch.setattr(autotune_precision, "choose_precision", chosen)


def start(output, steps=4, **flags):
    return train(ToyTask, output=str(output), **SETTINGS | dict(steps=steps) | flags)


def begin(output):
    """Begin a run of 4 steps that stops after 2, so that any start resumes it."""

    class Stopped(ToyTask):
        def before_step(self, module, step, steps):
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Stopped, output=str(output), save_every=1, save_async=False, **SETTINGS)


def stored(output):
    return json.loads((output / "settings.json").read_text())["settings"]["precision"]


def test_a_run_keeps_its_precision_and_the_reason_on_a_machine_that_would_choose_another(
    tmp_path, monkeypatch, capsys
):
    choose(monkeypatch, "bf16", "matrix products 2.0x")
    begin(tmp_path)
    assert stored(tmp_path) == {
        "value": "bf16",
        "source": "auto",
        "reason": "matrix products 2.0x",
    }
    assert "precision bf16: matrix products 2.0x\n" in capsys.readouterr().out
    choose(monkeypatch)
    assert start(tmp_path, save_every=1).state == "finished"
    assert stored(tmp_path)["value"] == "bf16" and stored(tmp_path)["source"] == "auto"
    assert 'precision bf16: as the run began ("matrix products 2.0x")\n' in capsys.readouterr().out


def test_the_precision_of_a_run_may_be_given_when_it_resumes_and_no_other(tmp_path, monkeypatch):
    choose(monkeypatch, "bf16", "matrix products 2.0x")
    begin(tmp_path)
    with pytest.raises(
        UserError, match=r"--precision: the run in .* has bf16, this command has fp"
    ):
        start(tmp_path, save_every=1, precision="fp32")
    assert start(tmp_path, save_every=1, precision="bf16").state == "finished"


def test_a_run_from_before_auto_resumes_in_its_default(tmp_path, monkeypatch):
    choose(monkeypatch, "bf16", "")
    begin(tmp_path)
    file = tmp_path / "settings.json"
    content = json.loads(file.read_text())
    content["settings"]["precision"] = {"value": "bf16", "source": "default"}
    file.write_text(json.dumps(content))
    choose(monkeypatch)
    assert start(tmp_path, save_every=1).state == "finished"
    assert stored(tmp_path)["value"] == "bf16"


def test_a_checkpoint_of_another_folder_brings_its_precision(tmp_path, monkeypatch):
    choose(monkeypatch, "bf16", "matrix products 2.0x")
    begin(tmp_path / "first")
    choose(monkeypatch)
    checkpoint = tmp_path / "first" / "checkpoints" / "step_00000002"
    assert start(tmp_path / "second", resume=str(checkpoint)).state == "finished"
    assert stored(tmp_path / "second")["value"] == "bf16"


def test_a_run_that_has_no_checkpoint_yet_chooses_again(tmp_path, monkeypatch):
    choose(monkeypatch, "bf16", "matrix products 2.0x")
    start(tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        folder.rename(tmp_path / folder.name)
    choose(monkeypatch, "fp32", "matrix products 0.1x")
    start(tmp_path / "run")
    assert stored(tmp_path / "run")["value"] == "fp32"


@pytest.mark.parametrize("given", ["fp32", "bf16", "fp16"])
def test_a_precision_that_is_given_is_not_measured_or_changed(given, tmp_path, monkeypatch):
    choose(monkeypatch)
    settings = resolve_settings(ToyTask, {"precision": given})
    assert (
        autotune_precision.resolve_precision(ToyTask(ToyTask.config_class()), settings, None, {})
        == settings
    )


def choose_on_this_rank():
    world = join_world("cpu")
    choice = "bf16" if world.is_main else "fp32"  # as on two machines
    autotune_precision.choose_precision = lambda device, widths: (choice, "why")
    task = ToyTask(ToyTask.config_class())
    settings = resolve_settings(ToyTask, {"steps": 1})
    resolved = autotune_precision.resolve_precision(task, settings, world, {})
    leave_world()
    return resolved["precision"].value


def test_the_main_rank_chooses_for_all():
    assert on_ranks(2, choose_on_this_rank, context="fork") == ["bf16", "bf16"]


# the choice itself --------------------


@pytest.mark.parametrize(("speedups", "expected"), [
    ({"matrix products": 2.04, "convolutions": 1.21}, (
        "bf16", "matrix products 2.0x, convolutions 1.2x as fast as in fp32 on this CPU")),
    ({"matrix products": 1.19}, (
        "fp32", "matrix products in bf16 are 1.19x as fast on this CPU, 1.2x is needed")),
    ({"matrix products": 2.0, "convolutions": 0.5}, (
        "fp32", "convolutions in bf16 are 0.50x as fast on this CPU, 1.2x is needed")),
])  # fmt: skip
def test_a_cpu_computes_in_bf16_where_all_layers_gain_a_fifth(speedups, expected, monkeypatch):
    monkeypatch.setattr(kernels, "bf16_speedups", lambda device, widths: speedups)
    assert choose_precision(CPU, LayerWidths()) == expected


def test_a_device_without_bf16_computes_in_fp32(monkeypatch):
    def fail(device, widths):
        raise RuntimeError("bfloat16 is not implemented")

    monkeypatch.setattr(kernels, "bf16_speedups", fail)
    assert choose_precision(CPU, LayerWidths())[0] == "fp32"


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_emulates_bf16_computes_in_fp16(native, expected, monkeypatch):
    def is_supported(including_emulation=True):
        return native or including_emulation  # torch emulates it on a T4

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert choose_precision(CUDA, LayerWidths())[0] == expected


def test_measuring_changes_no_generator_and_no_thread_setting():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():
        name, reason = choose_precision(CPU, LayerWidths())
        assert name in ("fp32", "bf16") and "as fast" in reason
        assert not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the two variables take features of x86 CPUs away"
)
def test_emulated_bf16_is_refused_at_the_first_look():
    """A convolution in emulated bf16 may take 500 times as long as in fp32."""
    code = (
        "import time, torch\n"
        "from visionloop.engine.system.kernels import LayerWidths, choose_precision\n"
        "began = time.process_time()\n"
        "print(*choose_precision(torch.device('cpu'), LayerWidths())[:1])\n"
        "print(time.process_time() - began)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    name, seconds = done.stdout.split()
    assert name == "fp32" and float(seconds) < 0.3
