"""`compare`: two or more runs on the same validation images, with a verdict. Imports torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from visionloop.bin.comparisons.evidence import (
    CLASS_PREFIX,
    Evidence,
    EvidenceOptions,
    evaluate_run,
    positions_of,
)
from visionloop.bin.comparisons.result import Comparison, compare
from visionloop.bin.comparisons.runs import (
    SEED_FOLDERS,
    RunGroup,
    common_task,
    find_runs,
    group_runs,
    require_same_output,
)
from visionloop.bin.comparisons.table import lines_of
from visionloop.bin.comparisons.verdicts import Text
from visionloop.bin.reports.run_folder import RunFolder
from visionloop.engine.checkpoints.files import finite
from visionloop.engine.config.options import fields_of
from visionloop.engine.config.suggest import did_you_mean
from visionloop.engine.config.train_config import TrainConfig
from visionloop.engine.data.forkserver import start_fork_server
from visionloop.engine.errors import UserError
from visionloop.engine.evaluation.paired_bootstrap import draw_scores
from visionloop.engine.metric import MetricSpec
from visionloop.engine.task import Task
from visionloop.engine.types import Scores


@dataclass(frozen=True)
class CompareOptions:
    """Options of `compare`. metric: None for the first one of the task."""

    evidence: EvidenceOptions
    metric: str | None
    baseline: str | None
    groups: Sequence[str]
    draws: int
    as_json: bool


def run_compare(paths: Sequence[str], options: CompareOptions) -> None:
    """Evaluate the runs and print the comparison. Nothing is written.

    Raises UserError for runs without best/, of different tasks, classes or scales, and for data
    that cannot be read.
    """
    runs = find_runs(paths)
    if len(runs) < 2:
        raise UserError("RUN: expected two or more runs to compare", field="run")
    zoo = common_task(runs)
    require_same_output(runs)
    baseline_run = find_baseline(runs, options.baseline)
    if options.evidence.workers:
        # before the GPU is used, beside whose threads a worker must not be forked
        start_fork_server()
    task_class = import_module(f"visionloop.bin.{zoo.command}").load_task_class()
    groups = group_runs(runs, belongs_to_run(task_class), options.groups)
    if len(groups) < 2:
        raise UserError("--group: all runs are one group, with nothing to compare", field="group")
    evidence = evaluate_runs(task_class, runs, options.evidence)
    result = compare_evidence(groups, baseline_run, evidence, options)
    result.notes.extend(notes_on_data(runs))
    print(
        json.dumps(finite(result.as_json()))
        if options.as_json
        else "\n".join(lines_of(result, task_class.class_curves))
    )


def compare_evidence(
    groups: Sequence[RunGroup],
    baseline_run: int,
    evidence: Sequence[Evidence],
    options: CompareOptions,
) -> Comparison:
    """Draw the images and compare the settings. baseline_run: position of a run of the baseline."""
    names = evidence[0].names
    models = [each.scorer(positions_of(names, each.names)) for each in evidence]
    whole = [model(None) for model in models]
    specs = specs_of(evidence[0].task, whole[0])
    deciding = options.metric or evidence[0].task.metrics[0].key
    require_metric(deciding, specs)
    with tqdm(total=options.draws, desc="bootstrap", disable=None, leave=False) as bar:
        drawn = draw_scores(models, len(names), draws=options.draws, advance=bar.update)
    baseline = next(i for i, group in enumerate(groups) if baseline_run in group.members)
    return compare(groups, baseline, specs, whole, drawn, len(names), deciding)


def belongs_to_run(task_class: type[Task]) -> list[str]:
    """Return the names of the settings that decide what a run computes."""
    fields = fields_of(task_class.config_class, TrainConfig)
    return [name for name, (item, _) in fields.items() if item.metadata["fixed"]]


def find_baseline(runs: Sequence[RunFolder], path: str | None) -> int:
    """Return the position of the run at `path`, the first for None; or of the first run in it.

    Raises UserError for any other path.
    """
    if path is None:
        return 0
    folder = Path(path).absolute()
    for position, run in enumerate(runs):
        if folder == run.path or (folder == run.path.parent and run.path.match(SEED_FOLDERS)):
            return position
    raise UserError(f"--baseline {path}: is none of the runs that are compared", field="baseline")


def evaluate_runs(
    task_class: type[Task], runs: Sequence[RunFolder], options: EvidenceOptions
) -> list[Evidence]:
    """Evaluate the runs one after another, on the data of the first one or those of the options."""
    first = runs[0]
    data = options.data or first.value("data")
    if not data:
        raise UserError(f"{first.path}: settings.json names no data; give --data", field="data")
    val_split = options.val_split
    if val_split is None:
        val_split = float(str(first.value("val_split") or 0.0))
    return [evaluate_run(task_class, run.path, str(data), val_split, options) for run in runs]


def specs_of(task: Task, scores: Scores) -> list[MetricSpec]:
    """Return the description of each score: those of the task, then those of the classes."""
    specs = [spec for spec in task.metrics if spec.key in scores]
    for key in scores:
        if key.startswith(CLASS_PREFIX):
            column, name = task.class_curves[0], key.removeprefix(CLASS_PREFIX)
            specs.append(MetricSpec(key, name, "percent", True, f"{column} of the class"))
    return specs


def require_metric(key: str, specs: Sequence[MetricSpec]) -> None:
    """Raise UserError for a score that there is not."""
    names = [spec.key for spec in specs if not spec.key.startswith(CLASS_PREFIX)]
    if key not in names:
        raise UserError(
            f"--metric {key}: expected one of {', '.join(names)}{did_you_mean(key, names)}",
            field="metric",
        )


def notes_on_data(runs: Sequence[RunFolder]) -> list[Text]:
    """Return a note where the runs were trained on other images, perhaps on those compared."""
    prints = {str(run.value("data_fingerprint")) for run in runs}
    if len(prints) == 1:
        return []
    return [
        {
            "en": "The runs were trained on different images: where the images of this comparison "
            "are among them, that run has an advantage.",
            "ko": "실행들이 서로 다른 이미지로 학습했습니다. 비교에 쓴 이미지로 학습한 실행이 "
            "있다면 그 실행이 유리합니다.",
        }
    ]
