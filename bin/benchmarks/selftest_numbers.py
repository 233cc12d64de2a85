"""Checks of `selftest` on what a device computes: precisions, non-finite steps, copies, recomputed activations, and where the host waits.

Each takes a Trial and returns {figure: value}. It raises AssertionError where the promise does not
hold, NotPossible where the machine lacks something.
"""

import torch

from visionloop.bin.benchmarks.memory import MOST_DIFFERENCE
from visionloop.bin.benchmarks.same_step import SameStep, largest_difference
from visionloop.bin.benchmarks.selftest_trial import (
    QUIET,
    SIDES,
    NotPossible,
    quiet_task,
    started,
    take_step,
    tiny_task,
)
from visionloop.bin.benchmarks.selftest_waits import counted_waits
from visionloop.engine.distributed import pick_device
from visionloop.engine.loop import fit
from visionloop.engine.precision import build_precision

# as much as a training has of what might ask the device something
NOISY = {
    "classification": {"image_size": 32, "drop_path": 0.1},
    "detection": {"image_size": 96, "multi_scale": 1, "strong_share": 1.0},
    "segmentation": {"image_size": 32, "mask_annealing": "auto"},
    "super_resolution": {"mode": "compressed", "scale": 4, "patch_size": 16, "cache": "none"},
}
# reads what it draws on the host, which on the CPU looks like the device
MIXED = {"classification": {"mixup": 0.8, "cutmix": 1.0}}
# one copy of all costs; in `transformers`, the library's D-FINE asks by itself
COPIES = {
    "detection": "tasks/detection/matcher.py",
    "segmentation": "tasks/segmentation/matcher.py",
}
SCALE = 1024.0  # of fp16's scaler: gradients of these models overflow at its own start of 65536
# relative, of sums of 512 products: 23 bits give about 1e-6, TF32's 10 bits 3e-4
FP32_ERROR, TF32_ERROR = 5e-5, 4e-3
MOST_COARSE = (
    0.05  # relative, of loss and way in half precisions; measured on a CPU: 0.002 and 0.015
)


def precision(trial):
    """Steps in bf16 and fp16 beside the same in fp32; plain SGD, whose steps are proportional to the gradients."""
    figures, ways, first = {}, {}, {}
    for name in ("fp32", "bf16", "fp16"):
        task = quiet_task(trial.task_name, trial.data())
        changes = dict(
            precision=name,
            optimizer="sgd",
            momentum=0.0,
            lr=1e-3,
            weight_decay=0.0,
            tf32=False,
            warmup_steps=0,
        )
        with started(task, trial.folder / name, trial.device, **changes) as run:
            before = flat(run.trained_parameters)
            set_scale(run)
            taken = [take_step(run, task, step) for step in range(3)]
            ways[name], first[name] = flat(run.trained_parameters) - before, taken[0][0]
            assert all(abs(value) < float("inf") for pair in taken for value in pair), (
                f"{name}: loss and gradient norm of steps: {taken}"
            )
            held = [
                *run.module.parameters(),
                *(value for state in run.optimizer.state.values() for value in state.values()),
            ]
            assert {tensor.dtype for tensor in held} == {torch.float32}, (
                f"{name}: weights or moments are not in fp32"
            )
        if name != "fp32":
            figures[f"{name}_loss_difference"] = abs(first[name] - first["fp32"]) / first["fp32"]
            figures[f"{name}_way_difference"] = float(
                (ways[name] - ways["fp32"]).norm() / ways["fp32"].norm()
            )
            assert not torch.equal(ways[name], ways["fp32"]), (
                f"{name} computes the same bits as fp32: autocast was off"
            )
    # pairs of a matcher may be others in another precision, and the gradient with them
    judged = [
        value for name, value in figures.items() if "loss" in name or trial.task_name not in COPIES
    ]
    assert max(judged) <= MOST_COARSE, f"further from fp32 than {MOST_COARSE}: {figures}"
    return figures


def flat(parameters):
    return torch.cat([parameter.detach().flatten().double().cpu() for parameter in parameters])


def set_scale(run):
    run.precision.load_scaler_state(
        run.precision.scaler_state() and run.precision.scaler_state() | {"scale": SCALE}
    )


def bad_step(trial):
    """Of four steps the first and the third have an infinite loss."""
    cases = [
        ("classification", "adamw", "fp32"),
        ("classification", "adam", "bf16"),
        ("classification", "sgd", "fp16"),
    ]
    for task_name, optimizer, name in [*cases, ("detection", "adamw", "fp32")]:
        case = f"{task_name} {optimizer} {name}"
        task = tiny_task(
            task_name, trial.data(task_name), image_size=SIDES[task_name]
        )  # the detector trains its BatchNorm
        loss = task.loss
        task.loss = lambda model, batch, count, loss=loss: spoiled(
            loss(model, batch, count), batch.step in (0, 2)
        )
        with started(
            task,
            trial.folder / case.replace(" ", "-"),
            trial.device,
            optimizer=optimizer,
            precision=name,
            warmup_steps=0,
        ) as run:
            assert bool(run.trained_buffers) == (task_name == "detection"), (
                f"{case}: BatchNorm of {len(run.trained_buffers)} buffers"
            )
            set_scale(run)
            states = [bits(run)]
            for step in range(4):
                take_step(run, task, step)
                states.append(bits(run))
            for step in (0, 2):
                changed = [
                    key for key in states[step] if states[step][key] != states[step + 1][key]
                ]
                assert not changed, (
                    f"{case}: step {step + 1} is bad and changed {', '.join(changed[:3])}"
                )
                assert states[step + 1] != states[step + 2], (
                    f"{case}: step {step + 2} is good and changed nothing"
                )
            counted, scale = run.nonfinite_steps.read()[1], run.precision.scaler.get_scale()
            # an overflow of fp16 is the scaler at work until its scale is down to 1
            expected = (0, SCALE / 4) if name == "fp16" else (2, 1.0)
            assert (counted, scale) == expected, (
                f"{case}: (counted, scale) {(counted, scale)}, expected {expected}"
            )
    return {"cases": len(cases) + 1}


def spoiled(losses, is_bad):
    return losses | {"loss": losses["loss"] * float("inf")} if is_bad else losses


def bits(run):
    """{name: bytes} of all that a step may change."""
    moments = {
        f"{i} {key}": value
        for i, state in enumerate(run.optimizer.state.values())
        for key, value in state.items()
    }
    averages = {f"average {name}": tensor for name, tensor in run.ema.tensors.items()}
    tensors = run.module.state_dict() | moments | averages
    return {name: tensor.cpu().numpy().tobytes() for name, tensor in tensors.items()}


def pinned(trial):
    """Batches of each task, copied while the device is busy, and given up by the host at once."""
    figures, device = {"tensors": 0, "mib": 0.0}, pick_device(trial.device)
    side = 4096 if device.type == "cuda" else 256
    for task_name in SIDES:
        task = tiny_task(task_name, trial.data(task_name), **QUIET[task_name])
        with started(task, trial.folder / task_name, trial.device, workers=1) as run:
            for _ in range(4):
                busy = torch.rand(side, side, device=device)
                for _ in range(20):
                    busy = (busy @ busy).clamp_(0, 1)
                sent = []
                for batch in run.data.fetch(give_up=lambda: False):
                    tensors = tensors_of(batch)
                    assert all(
                        tensor.is_pinned() == (device.type == "cuda") for tensor in tensors
                    ), f"{task_name}: not pinned"
                    kept, moved = (
                        [tensor.clone() for tensor in tensors],
                        tensors_of(batch.to(device)),
                    )
                    sent.extend(zip(kept, moved, strict=True))
                del batch, tensors  # the memory may be used again from here on
                assert all(torch.equal(kept, moved.cpu()) for kept, moved in sent), (
                    f"{task_name}: a copy is not what was sent"
                )
                figures["tensors"] += len(sent)
                figures["mib"] += sum(kept.nbytes for kept, _ in sent) / 2**20
    return figures


def tensors_of(batch):
    found = []
    batch.map_tensors(lambda tensor: found.append(tensor) or tensor)
    return found


def tf32(trial):
    """Relative error of a product of two matrices and of a convolution, with the switch on and off."""
    device = pick_device(trial.device)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise NotPossible("no TF32 before compute capability 8.0")
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    pixels, kernel = (
        torch.randn(2, 64, 32, 32, generator=generator),
        torch.randn(64, 64, 3, 3, generator=generator),
    )
    figures = {}
    for switch in (False, True):
        build_precision("fp32", device, tf32=switch)
        for name, operation, operands in (
            ("product", torch.matmul, (a, b)),
            ("convolution", torch.conv2d, (pixels, kernel)),
        ):
            exact = operation(*(tensor.double() for tensor in operands))
            found = operation(*(tensor.to(device) for tensor in operands)).cpu()
            error = float((found - exact).norm() / exact.norm())
            figures[f"{name}_error_{'tf32' if switch else 'fp32'}"] = error
            in_tf32 = switch and device.type == "cuda"
            assert (error > FP32_ERROR) == in_tf32 and error < TF32_ERROR, (
                f"{name}, tf32={switch}: error {error:.2g}"
            )
    return figures


def host_sync(trial):
    """What the host waits for in six steps of the loop between two log steps."""
    mixed = MIXED.get(trial.task_name, {}) if trial.device == "cuda" else {}
    task = tiny_task(trial.task_name, trial.data(), **NOISY[trial.task_name], **mixed)
    changes = dict(
        steps=10,
        log_every=10,
        eval_every=0,
        save_every=0,
        micro_batch=4,
        clip_grad=1.0,
        precision="bf16",
        workers=1,
    )
    with started(task, trial.folder / "run", trial.device, **changes) as run:
        watch, before_step = counted_waits(run.world.device), task.before_step

        def watched(module, step, steps):
            if step == 3:  # memory is there by now
                watched.found = watch.__enter__()
            if step == 9:
                watch.__exit__(None, None, None)
            before_step(module, step, steps)

        task.before_step = watched
        run.evaluated_at = run.saved_at = run.config.steps
        fit(run, task)
    steps, copies = 6, COPIES.get(trial.task_name, "none")
    micro_batches = 2 * steps
    found = dict(watched.found)
    library = {
        place: found.pop(place)
        for place in list(found)
        if trial.task_name == "detection" and place.startswith("transformers/")
    }
    in_matcher = sum(found.pop(place) for place in list(found) if place.startswith(copies))
    assert not found, f"in {steps} steps the host waits at {found}"
    expected = micro_batches if trial.task_name in COPIES else 0
    assert in_matcher == expected, (
        f"{in_matcher} waits in the matcher in {micro_batches} micro-batches"
    )
    return {
        "waits_per_micro_batch": in_matcher / micro_batches,
        "library_waits_per_micro_batch": sum(library.values()) / micro_batches,
    }


def recompute(trial):
    """The engine's step with no block recomputed and with all that can be."""
    flags = dict(
        data=str(trial.data()),
        model="tiny",
        image_size=SIDES[trial.task_name],
        batch_size=4,
        precision="fp32",
    )
    step = SameStep(
        trial.task_name,
        flags | dict(threads=1, device=trial.device, deterministic=True, tf32=False),
        trial.folder / "run",
    )
    plain, *_, every = step.cases
    apart = largest_difference(step.gradients(plain), step.gradients(every))
    most = (
        0.0
        if step.device.type == "cpu"
        else 1e-5
        if trial.is_exact()
        else MOST_DIFFERENCE[step.device.type]
    )
    assert apart <= most, f"gradients differ by {apart:.2g}, more than {most:g}"
    figures = {
        "gradient_difference": apart,
        "saved_mib": step.saved_mib(plain),
        "saved_recomputed_mib": step.saved_mib(every),
    }
    if step.device.type == "cuda":
        figures |= {
            "peak_mib": step.allocated_mib(plain)[0],
            "peak_recomputed_mib": step.allocated_mib(every)[0],
        }
    assert figures["saved_recomputed_mib"] < figures["saved_mib"], f"nothing is saved: {figures}"
    return figures
