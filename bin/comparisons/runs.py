"""The runs of a comparison: of one task, with the same output, grouped where they are seeds."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.reports.contents import names_of
from visionloop.bin.reports.run_folder import RunFolder, as_object, is_run, read_object, read_run
from visionloop.engine.errors import UserError
from visionloop.tasks.model_zoo import ModelZoo

# keys of best/config.json that change the input or the size of the result of super-resolution
INPUT_KEYS = ("upscale", "visionloop_mode", "visionloop_noise", "visionloop_quality")
SEED_FOLDERS = "seed_*"  # of `train --seeds`


@dataclass(frozen=True)
class RunGroup:
    """Runs of one setting, which differ in their seed alone; or a single run.

    Attributes:
        name: to show.
        members: positions of the runs.
        seeds: of the runs.
    """

    name: str
    members: tuple[int, ...]
    seeds: tuple[object, ...]


def find_runs(paths: Sequence[str]) -> list[RunFolder]:
    """Read the runs, each once; a folder of `train --seeds` stands for the runs in it.

    Raises UserError for any other folder.
    """
    found: dict[Path, RunFolder] = {}
    for path in paths:
        folder = Path(path)
        seeds = [each for each in sorted(folder.glob(SEED_FOLDERS)) if is_run(each)]
        for each in [folder] if is_run(folder) or not seeds else seeds:
            run = read_run(each)
            if run.path in found:
                raise UserError(f"{each}: is given twice", file=str(each), field="run")
            found[run.path] = run
    return list(found.values())


def common_task(runs: Sequence[RunFolder]) -> ModelZoo:
    """Return the task of all runs. Raises UserError for two tasks and for runs without best/."""
    for run in runs:
        if not (run.path / "best" / "config.json").is_file():
            hint = "the first evaluation writes it; --eval-every says when"
            raise UserError(f"{run.path}: no best/ yet; {hint}", file=str(run.path), field="run")
    first = runs[0].value("task")
    zoo = next((zoo for zoo in MODEL_ZOOS if zoo.command == first), None)
    if zoo is None:
        raise UserError(f"{runs[0].path}: a run of {first}, no task of visionloop", field="run")
    for run in runs[1:]:
        if run.value("task") != first:
            raise UserError(
                f"{runs[0].path} is a run of {first}, {run.path} of {run.value('task')}: expected "
                "one task",
                field="run",
            )
    return zoo


def require_same_output(runs: Sequence[RunFolder]) -> None:
    """Raise UserError for models with different classes, scales or degradations.

    The order of the classes may differ.
    """
    configs = [read_object(run.path / "best" / "config.json") for run in runs]
    names = [
        {str(name) for name in as_object(config.get("id2label")).values()} for config in configs
    ]
    for run, config, classes in zip(runs[1:], configs[1:], names[1:], strict=True):
        both = f"{runs[0].path}, {run.path}"
        if classes != names[0]:
            others = sorted(classes ^ names[0])
            shown = ", ".join(others[:5]) + (", .." if len(others) > 5 else "")
            raise UserError(
                f"{both}: trained on different classes ({shown}), so that their scores cannot be "
                "compared; expected runs on the same classes",
                field="run",
            )
        for key in INPUT_KEYS:
            if config.get(key) != configs[0].get(key):
                raise UserError(
                    f"{both}: {key.removeprefix('visionloop_')} is {configs[0].get(key)} and "
                    f"{config.get(key)}, so that their scores cannot be compared; expected the "
                    "same",
                    field="run",
                )


def group_runs(
    runs: Sequence[RunFolder], setting_names: Collection[str], chosen: Sequence[str]
) -> list[RunGroup]:
    """Group the runs whose settings differ in the seed alone, in the order of their first runs.

    Runs of equal settings and equal seed are no seeds of one setting: each is a group of its own.
    So is each run where all would be one group, with nothing to compare it with.

    Args:
        runs: of one task.
        setting_names: settings that belong to a run, whatever folder and machine it is on.
        chosen: of `--group`: paths with commas between them, which are a group whatever their
            settings.

    Raises:
        UserError: a path of `chosen` is none of the runs, or is there twice.
    """
    keys = chosen_keys(runs, chosen)
    for position, run in enumerate(runs):
        if position not in keys:
            content = {name: run.value(name) for name in setting_names if name != "seed"}
            keys[position] = json.dumps(
                content | {"data": run.value("data_fingerprint")}, sort_keys=True, default=str
            )
    members: dict[str, list[int]] = {}
    for position in range(len(runs)):
        members.setdefault(keys[position], []).append(position)
    groups: list[list[int]] = []
    for key, positions in members.items():
        seeds = {str(runs[position].value("seed")) for position in positions}
        together = key in chosen or (len(seeds) == len(positions) and len(members) > 1)
        groups += [positions] if together else [[position] for position in positions]
    names = names_of([run.path for run in runs])
    return [
        RunGroup(
            group_name([names[position] for position in positions], runs[positions[0]].path),
            tuple(positions),
            tuple(runs[position].value("seed") for position in positions),
        )
        for positions in sorted(groups)
    ]


def chosen_keys(runs: Sequence[RunFolder], chosen: Sequence[str]) -> dict[int, str]:
    """Return {position of a run: its text of `--group`}; see `group_runs`."""
    position_of = {run.path: position for position, run in enumerate(runs)}
    keys: dict[int, str] = {}
    for text in chosen:
        for path in text.split(","):
            position = position_of.get(Path(path).absolute())
            if position is None or position in keys:
                why = "is in two groups" if position is not None else "is none of the runs"
                raise UserError(f"--group {text}: {path} {why}", field="group")
            keys[position] = text
    return keys


def group_name(names: Sequence[str], first: Path) -> str:
    """Return the name of a group: the folder of its seeds, or its first run and their number.

    Args:
        names: of the runs.
        first: folder of the first one.
    """
    if len(names) == 1:
        return names[0]
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) == 1 and first.match(SEED_FOLDERS):
        return folders.pop() or first.parent.name
    return f"{names[0]} and {len(names) - 1} more"
