"""A whole evaluation with a clock at each of its parts, in fp32 as the engine runs it and in bf16."""

import contextlib
import io
import math
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from visionloop.bin.benchmarks.ratios import ratio_with_interval
from visionloop.bin.benchmarks.tasks import ALONE, SIDE, STEADY, load_task_class, sample_data
from visionloop.bin.benchmarks.turns import synchronised
from visionloop.engine.distributed import World
from visionloop.engine.evaluation.bootstrap import FEW_IMAGES, score_intervals
from visionloop.engine.evaluation.evaluate import evaluate_dataset
from visionloop.engine.precision import build_precision
from visionloop.engine.train import train

EQUAL = 1e-4  # of scores, relative where they are above 1
PRECISIONS = ("fp32", "bf16")


def trained_task(task_name, flags, device, scratch):
    """(task, module on the device, validation set): a folder that `--model` names as it is, any other model trained `steps` first."""
    task_class = load_task_class(task_name)
    model, data = flags["model"], flags["data"] or sample_data(task_name, scratch)
    if not Path(model).is_dir():
        side = {"image_size": None, SIDE.get(task_name, "image_size"): flags["image_size"]}
        settings = (
            flags
            | side
            | ALONE
            | {
                "data": data,
                "device": device.type,
                "precision": "fp32",
                "output": str(scratch / "run"),
            }
        )
        with contextlib.redirect_stdout(io.StringIO()):
            train(
                task_class,
                **settings,
                **{name: value for name, value in STEADY[task_name].items() if name == "cache"},
            )
        model = scratch / "run/best"
    task, module = task_class.load_trained(model, data=data)
    return task, module.to(device), task.build_eval_dataset("val")


def compare_precisions(task, module, dataset, device, *, batch_size, repeats):
    """([{figure: value} of each precision], {figure: value} of how they agree); turns of both, medians."""
    taken = {name: [] for name in PRECISIONS}
    for turn in tqdm(range(repeats + 1), desc="evaluations", unit="turn", disable=None):
        for name in PRECISIONS:
            precision = build_precision(name, device)
            one = evaluation_parts(task, module, dataset, device, batch_size, precision)
            if turn:  # the first one warms up
                taken[name].append(one)
    shares = [share_row(name, taken[name], len(dataset)) for name in PRECISIONS]
    (_, full), (_, half) = (taken[name][-1] for name in PRECISIONS)
    worst = max(
        (key for key in full if not math.isnan(full[key])),
        key=lambda key: relative(full[key], half[key]),
    )
    difference = relative(full[worst], half[worst])
    agreement = {
        "part": "precision",
        "bf16_agrees": "yes" if difference <= EQUAL else "no",
        "largest_difference": difference,
        "of_score": f"{worst}: {full[worst]:.6f} in fp32, {half[worst]:.6f} in bf16",
    }
    for name, parts in (("forward", ("forward",)), ("evaluation", None)):
        slow, fast = (
            [sum(seconds[part] for part in parts or seconds) for seconds, _ in taken[which]]
            for which in PRECISIONS
        )
        ratio, interval = ratio_with_interval(slow, fast)
        agreement |= {
            f"bf16_{name}_times_faster": round(ratio, 2),
            f"bf16_{name}_times_faster_95": [round(value, 2) for value in interval],
        }
    return shares, agreement


def evaluation_parts(task, module, dataset, device, batch_size, precision):
    """({part: seconds}, scores) of one evaluation as engine/evaluation/evaluate.py does it. Parts: see evaluation.PARTS."""
    seconds = Counter()
    began = synchronised(device)
    with network_in(precision, module), watched(task, seconds, device):
        metric = evaluate_dataset(
            task, module, dataset, batch_size=batch_size, world=World(0, 0, 1, device)
        )
    looped = time.perf_counter()
    seconds["data"] = looped - began - seconds["forward"] - seconds["update"]
    scores = metric.compute()
    computed = time.perf_counter()
    if len(metric) < FEW_IMAGES:
        score_intervals(metric)
    return seconds | Counter(
        compute=computed - looped, intervals=time.perf_counter() - computed
    ), scores


@contextmanager
def network_in(precision, module):
    """Until the end of the block the module runs under autocast; what it answers is float32, as those who read it expect."""
    forward = module.forward

    def call(*arguments, **named):
        with precision.autocast():
            answers = forward(*arguments, **named)
        return tree_map_only(
            torch.Tensor,
            lambda tensor: tensor.float() if tensor.is_floating_point() else tensor,
            answers,
        )

    module.forward = call
    try:
        yield
    finally:
        del module.forward  # the class's own shows again


@contextmanager
def watched(task, seconds, device):
    """Until the end of the block `predict` of the task and `update` of its metrics add to seconds["forward"] and seconds["update"]."""

    def timed(part, function):
        def call(*arguments):
            began = synchronised(device)
            result = function(*arguments)
            seconds[part] += synchronised(device) - began
            return result

        return call

    build = task.build_metric

    def build_metric():
        metric = build()
        metric.update = timed("update", metric.update)
        return metric

    task.predict, task.build_metric = timed("forward", task.predict), build_metric
    try:
        yield
    finally:
        del task.predict, task.build_metric  # the class's own show again


def share_row(precision, taken, images):
    """{figure: value} of a precision. taken: [({part: seconds}, scores)]."""
    parts = {
        part: statistics.median(seconds[part] for seconds, _ in taken)
        for part in ("data", "forward", "update", "compute", "intervals")
    }
    total = sum(parts.values())
    percents = {f"{part}_percent": round(100 * value / total, 1) for part, value in parts.items()}
    return {"part": "shares", "precision": precision, "images": images, "total_ms": round(1000 * total, 1), **percents,
            "images_per_second": round(images / total, 1)}  # fmt: skip


def relative(expected, found):
    """Difference of two scores, over the expected one where that is above 1."""
    return abs(expected - found) / max(1, abs(expected))
