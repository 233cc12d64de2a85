"""`report difference`: two runs on the same validation images, with a verdict. Imports torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from visionloop.bin.commands.evaluate import evaluate_with_progress
from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.reports.contents import names_of
from visionloop.bin.reports.run_folder import as_object, read_object, read_run
from visionloop.engine.checkpoints.files import finite
from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.bootstrap import PairedDifference, paired_difference
from visionloop.engine.metric import Metric, MetricSpec
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject
from visionloop.tasks.model_zoo import ModelZoo

# keys of best/config.json that change the input or the size of the result of super-resolution
INPUT_KEYS = ("upscale", "visionloop_mode", "visionloop_noise", "visionloop_quality")


@dataclass(frozen=True)
class DifferenceOptions:
    """Options of `report difference`. None: as RUN_A, or the default of the task."""

    data: str | None
    val_split: float | None
    metric: str | None
    draws: int
    batch_size: int
    workers: int
    device: str | None
    as_json: bool


@dataclass(frozen=True)
class Scored:
    """A model's evidence, and the names of its images in order."""

    task: Task
    metric: Metric
    names: list[str]


def run_difference(run_a: str, run_b: str, options: DifferenceOptions) -> None:
    """Evaluate both runs and print the difference. Nothing is written.

    Raises UserError for runs without best/, of different tasks, classes or scales, and for data
    that cannot be read.
    """
    zoo = common_task(run_a, run_b)
    require_same_output(run_a, run_b)
    if options.workers:
        # before the GPU is used, beside whose threads a worker must not be forked
        start_fork_server()
    task_class = import_module(f"visionloop.bin.{zoo.command}").load_task_class()
    settings = read_run(run_a)
    data = options.data or settings.value("data")
    if not data:
        raise UserError(f"{run_a}: settings.json names no data; give --data", field="data")
    val_split = options.val_split
    if val_split is None:
        val_split = float(str(settings.value("val_split") or 0.0))
    first, second = (
        score(task_class, Path(run) / "best", str(data), val_split, options)
        for run in (run_a, run_b)
    )
    spec = spec_of(first, options.metric or zoo.primary_metric)
    with tqdm(total=options.draws, desc="bootstrap", disable=None, leave=False) as bar:
        paired = paired_difference(
            first.metric,
            second.metric,
            spec.key,
            positions_b=positions_of(first.names, second.names),
            draws=options.draws,
            advance=bar.update,
        )
    names = names_of([Path(run).absolute() for run in (run_a, run_b)])
    result = result_of(paired, spec, names)
    print(json.dumps(finite(result)) if options.as_json else "\n".join(lines_of(result, spec)))


def common_task(run_a: str, run_b: str) -> ModelZoo:
    """Return the task of both runs. Raises UserError for two tasks and for runs without best/."""
    commands = []
    for run in (run_a, run_b):
        commands.append(read_run(run).value("task"))
        if not (Path(run) / "best" / "config.json").is_file():
            hint = "the first evaluation writes it; --eval-every says when"
            raise UserError(f"{run}: no best/ yet; {hint}", file=run, field="run", hint=hint)
    first, second = commands
    zoo = next((zoo for zoo in MODEL_ZOOS if zoo.command == first), None)
    if zoo is None:
        raise UserError(f"{run_a}: a run of {first}, no task of visionloop", field="run")
    if first != second:
        raise UserError(
            f"{run_a} is a run of {first}, {run_b} of {second}: expected one task", field="run"
        )
    return zoo


def require_same_output(run_a: str, run_b: str) -> None:
    """Raise UserError for models with different classes, scales or degradations.

    The order of the classes may differ.
    """
    configs = [read_object(Path(run) / "best" / "config.json") for run in (run_a, run_b)]
    classes_a, classes_b = (
        {str(name) for name in as_object(config.get("id2label")).values()} for config in configs
    )
    if classes_a != classes_b:
        others = sorted(classes_a ^ classes_b)
        shown = ", ".join(others[:5]) + (", .." if len(others) > 5 else "")
        raise UserError(
            f"{run_a}, {run_b}: trained on different classes ({shown}), so that their scores "
            "cannot be compared; expected runs on the same classes",
            field="run",
        )
    for key in INPUT_KEYS:
        value_a, value_b = (config.get(key) for config in configs)
        if value_a != value_b:
            name = key.removeprefix("visionloop_")
            raise UserError(
                f"{run_a}, {run_b}: {name} is {value_a} and {value_b}, so that their scores cannot "
                "be compared; expected the same",
                field="run",
            )


def score(
    task_class: type[Task], folder: Path, data: str, val_split: float, options: DifferenceOptions
) -> Scored:
    """Evaluate a model on the validation images."""
    task, module = task_class.load_trained(folder, data=data, val_split=val_split)
    dataset = task.build_eval_dataset("val")
    metric = evaluate_with_progress(
        task,
        module,
        dataset,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        description=folder.parent.name,
    )
    return Scored(task, metric, [dataset.name(index) for index in range(len(dataset))])


def positions_of(names_a: Sequence[str], names_b: Sequence[str]) -> list[int]:
    """Return the places of the first names among the second.

    Raises UserError for other images, and for a name that is there twice.
    """
    place_of = {name: place for place, name in enumerate(names_b)}
    if sorted(names_a) != sorted(names_b) or len(place_of) < len(names_b):
        raise UserError(
            f"--data: the runs see {len(names_a)} and {len(names_b)} validation images that are "
            "not the same; expected the same data and split for both",
            field="data",
        )
    return [place_of[name] for name in names_a]


def spec_of(scored: Scored, key: str) -> MetricSpec:
    """Return the description of a score. Raises UserError for one that there is not."""
    specs = {spec.key: spec for spec in scored.task.metrics if spec.key in scored.metric.compute()}
    if key not in specs:
        names = list(specs)
        raise UserError(
            f"--metric {key}: expected one of {', '.join(names)}{did_you_mean(key, names)}",
            field="metric",
        )
    return specs[key]


def result_of(paired: PairedDifference, spec: MetricSpec, names: Sequence[str]) -> JsonObject:
    """Return the object of `--json`: the first run minus the second."""
    better = None
    if paired.low > 0 or paired.high < 0:
        better = int((paired.difference > 0) != spec.higher_is_better)
    code = "no_difference" if better is None else ("a_better", "b_better")[better]
    return {
        "metric": spec.key,
        "label": spec.label,
        "format": spec.format,
        "runs": list(names),
        "scores": list(paired.scores),
        "difference": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "images": paired.images,
        "verdict": {"code": code, **verdict_texts(paired, spec, names, better)},
    }


def verdict_texts(
    paired: PairedDifference, spec: MetricSpec, names: Sequence[str], better: int | None
) -> dict[str, str]:
    """Return the verdict in English and Korean. better: 0 or 1, None for no difference."""
    is_share = spec.format == "percent"
    difference, low, high = (
        f"{100 * value:+.2f}" if is_share else f"{value:+.4f}"
        for value in (paired.difference, paired.low, paired.high)
    )
    english = (
        f"{spec.label} {difference}{' points' if is_share else ''} (95 % interval {low} to {high}) "
        f"on {paired.images} images"
    )
    korean = (
        f"{spec.label} {difference}{' %p' if is_share else ''} (95 % 신뢰 구간 {low} ~ {high}), "
        f"이미지 {paired.images}장"
    )
    if better is None:
        return {
            "en": f"No clear difference between {names[0]} and {names[1]}. {english}.",
            "ko": f"{names[0]}, {names[1]}: 뚜렷한 차이가 없습니다. {korean}.",
        }
    return {
        "en": f"{names[better]} is better than {names[1 - better]}. {english}.",
        "ko": f"{names[1 - better]}보다 {names[better]} 쪽이 더 좋습니다. {korean}.",
    }


def lines_of(result: JsonObject, spec: MetricSpec) -> list[str]:
    """Return the lines for people."""
    rows = [
        f"{name}: {spec.label} {spec.show(value)}"
        for name, value in zip(result["runs"], result["scores"], strict=True)
    ]
    return [*rows, result["verdict"]["en"]]
