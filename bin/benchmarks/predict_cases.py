"""The cases of the `predict` benchmark: their images, their model, and what is measured of each in a process of its own."""

import itertools
import shutil
import statistics
from typing import NamedTuple

from tqdm import tqdm

from visionloop.bin.benchmarks.processes import peak_resident
from visionloop.bin.benchmarks.tasks import build_steady, load_task_class
from visionloop.engine.errors import USER_ERROR, UserError


class Case(NamedTuple):
    """tile: None for tasks without tiles, 0 for the whole image."""

    precision: str
    tile: int | None
    batch_size: int

    def named(self):
        """{name: value} of what the task has."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def gather_images(input_path, folder, number, size_wh):
    """So many files in a new folder: of an image, or of a folder at even distances, some several times where it has fewer.

    size_wh: to resize them to, or None. A name says its place, so that any order of names is that
    of the folder.
    """
    from PIL import Image

    from visionloop.tasks.input_images import find_images

    root, names = find_images(input_path)
    folder.mkdir()
    for i in range(number):
        source = root / names[i * len(names) // number]
        target = folder / f"{i:05d}{source.suffix}"
        if size_wh is None:
            shutil.copyfile(source, target)
            continue
        try:
            Image.open(source).convert("RGB").resize(size_wh).save(target)
        except OSError as error:
            raise UserError(
                f"--input: {source}: {error}", field="input", file=str(source)
            ) from None


def write_random(task_name, model, data, folder):
    """A folder that `predict --model` takes, of an architecture with random weights."""
    import torch

    flags = {
        "data": data,
        "model": model,
        "batch_size": 4,
        "steps": 1,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
    }
    _, task, *_ = build_steady(task_name, flags)
    torch.manual_seed(0)
    module = task.build_model()
    folder.mkdir()
    task.save(module, module.state_dict(), folder)


def watch(task_name, folder, tile, options):
    """A WatchedTask in this process."""
    import torch

    from visionloop.bin.benchmarks.watched_task import WatchedTask

    torch.set_num_threads(options["threads"])
    return WatchedTask(
        load_task_class(task_name),
        folder,
        options["device"],
        {} if tile is None else {"tile": tile},
    )


def run_once(watched, scratch, case):
    """WatchedTask.run; its output folder is scratch/answers."""
    code, *found = watched.run(
        scratch / "images", scratch / "answers", case.batch_size, case.precision
    )
    if code == USER_ERROR:
        raise UserError("--input: not all images can be read; `predict` names them", field="input")
    return found


def measure_cases(task_name, folder, scratch, cases, repeats, options):
    """(type of the device, [{figure: number} of each case]), all but the resident memory: runs in turn, in one process.

    The first case of super-resolution is that of the whole image in fp32, if there is one.
    """
    import numpy as np
    import torch

    from visionloop.bin.benchmarks.watched_task import largest_difference, results_of

    watched = {
        tile: watch(task_name, folder, tile, options)
        for tile in dict.fromkeys(case.tile for case in cases)
    }
    device, number = watched[cases[0].tile].device, len(list((scratch / "images").iterdir()))
    rows, whole = {}, None
    for case in cases:  # this first run of each warms up
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        _, _, inputs = run_once(watched[case.tile], scratch, case)
        rows[case] = {"inputs_per_image": round(inputs / number, 2)}
        if device.type == "cuda":
            rows[case]["allocated_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
        if case.tile is not None:
            results, exact = results_of(scratch / "answers")
            whole = whole or results
            rows[case] |= {"largest_difference": largest_difference(results, whole), "exact": exact}
    batches, rates = {case: [] for case in cases}, {case: [] for case in cases}
    for _, case in tqdm(
        [*itertools.product(range(repeats), cases)], unit="run", disable=None, leave=False
    ):
        found, seconds, _ = run_once(watched[case.tile], scratch, case)
        batches[case] += found[: number // case.batch_size]
        rates[case].append(number / seconds)
    for case, row in rows.items():
        times = 1000 * np.diff(np.array(batches[case]), axis=1)  # reading, network, answers
        whole_batch = times.sum(1)
        row |= {
            "batch_ms": round(float(np.median(whole_batch)), 2),
            "batch_p95_ms": round(float(np.percentile(whole_batch, 95)), 2),
        }
        parts = np.median(times, axis=0).tolist()
        row |= {
            name: round(value, 2)
            for name, value in zip(("reading_ms", "network_ms", "answers_ms"), parts, strict=True)
        }
        row["images_per_second"] = round(statistics.median(rates[case]), 2)
    return device.type, list(rows.values())


def measure_resident(task_name, folder, scratch, case, options):
    """MiB by which one run raises the peak of this process, which has only loaded the model before."""
    watched = watch(task_name, folder, case.tile, options)
    before = peak_resident()
    run_once(watched, scratch, case)
    return round(peak_resident() - before, 1)
