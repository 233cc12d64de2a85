"""Runs of `predict` on models of random weights, in this process and in forked ones."""

import gc
import multiprocessing
import os
import sys
from importlib import import_module

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from segmentation_files import write_segmentation_data
from small_segments import write_scenes
from super_resolution_files import some_image, write_image, write_super_resolution_data
from torchrun_runs import write_classification

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.predict import PredictOptions, run_predict
from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.distributed import World
from visionloop.engine.testing.short_runs import free_port
from visionloop.engine.train import build_data, resolve_settings

SIZES_WH = [(37, 91), (64, 64), (120, 33), (100, 75), (48, 150), (17, 19), (61, 60)]
DATA = {
    "classification": write_classification,
    "detection": lambda folder: write_detection(folder, 0, images={"train": 2, "val": 2}),
    "segmentation": lambda folder: write_segmentation_data(folder, images=2),
    "instance_segmentation": lambda folder: write_scenes(folder, images={"train": 2, "val": 2}),
    "panoptic_segmentation": lambda folder: write_scenes(folder, images={"train": 2, "val": 2}),
    "super_resolution": lambda folder: write_super_resolution_data(
        folder, images=2, size_hw=(80, 80)
    ),
}
LONGEST = 120  # seconds that forked processes may take on a loaded machine


def write_mixed(folder):
    """Seven images of different sizes, in two folders and formats; the folder."""
    for i, (width, height) in enumerate(SIZES_WH):
        write_image(
            folder / ("deep" if i % 3 == 0 else ".") / f"{i}.{'jpg' if i % 2 else 'png'}",
            some_image(f"p{i}", height, width),
        )
    return folder


def load_task_class(task_name):
    return import_module(f"visionloop.bin.{task_name}").load_task_class()


def build_random_model(task_name, data):
    """(task, module) of the architecture `tiny` with random weights."""
    task_class = load_task_class(task_name)
    flags = {"data": str(data), "model": "tiny", "steps": 1, "device": "cpu", "cache": "none"}
    world = World(0, 0, 1, torch.device("cpu"))
    task = build_data(task_class, resolve_settings(task_class, flags), world, {})[0]
    torch.manual_seed(0)
    return task, task.build_model()


def write_model(task_name, folder):
    """Write a model whose predictions differ from image to image; return its folder."""
    (folder / "data").mkdir(parents=True)
    DATA[task_name](folder / "data")
    task, module = build_random_model(task_name, folder / "data")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    (folder / "model").mkdir()
    task.save(module, module.state_dict(), folder / "model")
    return folder / "model"


def write_sure_model(task_name, folder):
    """Write a model of instance or panoptic segmentation whose queries are sure of some class.

    The queries of panoptic segmentation are equal: one keeps its mask, and the others are dropped.
    """
    model = write_model(task_name, folder)
    weights = load_file(model / "model.safetensors")
    weights["class_predictor.weight"] *= 50
    weights["class_predictor.bias"][-1] = -1000  # "no object"
    if task_name == "panoptic_segmentation":
        weights["query.weight"][:] = weights["query.weight"][0].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model


def predict(task_class, model, input_path, output, **changes):
    """The exit code of `run_predict`, two images a batch."""
    options = {"batch_size": 2, "device": "cpu", "as_json": False, "explanations": ()}
    options |= {"settings": {}} | changes
    return run_predict(
        task_class, PredictOptions(model=model, input_path=input_path, output=output, **options)
    )


def interrupted(task_class, after, act):
    """The same task, but act() is called in this process before the batch number `after`."""

    class Interrupted(task_class):
        calls = 0

        def predict(self, module, batch):
            if Interrupted.calls == after:
                act()
            Interrupted.calls += 1
            return super().predict(module, batch)

        def __reduce__(self):
            return _plain_task, (
                task_class,
                self.__dict__,
            )  # workers, which only read, know no class of this function

    return Interrupted


def _plain_task(task_class, attributes):
    task = object.__new__(task_class)
    task.__dict__ |= attributes
    return task


def files_of(folder):
    """{path below the folder: its bytes}."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def kill(number):
    """act of `interrupted`."""
    return lambda: os.kill(os.getpid(), number)


def forked(task_class, processes, log, *, acts=(), **arguments):
    """Run `predict` in forked processes; return ([exit code of each], their output).

    acts: (after, act) of each for `interrupted`, or None.
    """
    import visionloop.bin.commands.cli  # noqa: F401 - once here, not in every process

    port, started = free_port(), []
    for rank in range(processes):
        environment = {
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        act = acts[rank] if rank < len(acts) else None
        work = (interrupted(task_class, *act) if act else task_class, environment, log, arguments)
        started.append(multiprocessing.get_context("fork").Process(target=_predict, args=work))
        started[-1].start()
    for process in started:
        process.join(LONGEST)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
    return codes, log.read_text()


def _predict(task_class, environment, log, arguments):
    gc.freeze()  # or this process copies all that its parent has imported, when it collects
    os.environ |= environment
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115 - to the end of the process
    os.dup2(sys.stderr.fileno(), 2)

    def command(**_):
        raise SystemExit(predict(task_class, **arguments))

    class Group:  # what `run_commands` runs: it turns errors into lines and exit codes
        name = "predict"
        main = staticmethod(lambda **_: command())

    run_commands(Group, [])


def rows_differ(rows):
    """Return True unless all rows are equal, in which case a comparison proves nothing."""
    return (
        len(
            {
                str(
                    {
                        key: value
                        for key, value in row.items()
                        if key not in ("file", "width", "height")
                    }
                )
                for row in rows
            }
        )
        > 1
    )


def largest_difference(first, second):
    """The largest difference between two lists of arrays of equal shapes."""
    pairs = zip(first, second, strict=True)
    return max(
        float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max(initial=0))
        for a, b in pairs
    )
