"""The source of a branch: a checkpoint of another run, and the settings of that run.

`--branch` and `--extend` begin a new run. Its settings are those of the source with what the
command line gives besides; take_over.py loads the checkpoint and saves it as the first one of the
new run, which from then on needs its source no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from visionloop.engine.augmentation import FACT
from visionloop.engine.branches.record import read_record
from visionloop.engine.budget import read_budget
from visionloop.engine.checkpoints.dataset_record import classes_of, describe_classes, read_header
from visionloop.engine.checkpoints.folder import (
    latest_valid,
    problems,
    read_state,
    step_folder_name,
    step_folders,
)
from visionloop.engine.config.branch_point import (
    BEST,
    NEWEST,
    DataOrigin,
    origin_of,
    parse_branch,
)
from visionloop.engine.config.options import (
    Fields,
    Setting,
    Settings,
    SettingSource,
    flag_of,
    read_config_file,
)
from visionloop.engine.config.resolve import LENGTHS, output_folder
from visionloop.engine.errors import UserError
from visionloop.engine.logging.run_files import stored_settings
from visionloop.engine.types import JsonObject, SampleDataset

# what a branch never takes from the settings of its source
NOT_INHERITED = ("output", "run_name", "resume", "branch", "extend", "profile")
# what it cannot change: the weights would be others
KEPT = ("model", "from_scratch", "preset")
# after these changes a score says something else, so that best/ begins anew
SCORE_SETTINGS = ("data", "val_split", "image_size", "overfit", "best_metric")


@dataclass(frozen=True)
class Branch:
    """The checkpoint that a new run begins with.

    Attributes:
        text: --branch of the command.
        run: folder of the source.
        checkpoint: folder of the checkpoint.
        best: folder of the checkpoint of the best score until then, None where it is gone.
        header: of the record of the source's data, see dataset_record.py; {} without one.
        end: step at which the source ended before its full length, None otherwise.
        changes: {setting: [value of the source, value of the branch]}.
    """

    text: str
    run: Path
    checkpoint: Path
    best: Path | None
    header: JsonObject
    end: int | None
    changes: dict[str, list[object]] = field(default_factory=dict)

    def data_origin(
        self, state: JsonObject, train_set: SampleDataset, batch_size: int, seed: int
    ) -> DataOrigin:
        """Return where the samples of the branch begin.

        The same data in the same order goes on with the next sample, in batches of any size;
        other data or another seed begin with the next epoch.
        """
        old, origin, step = state["settings"], origin_of(state), int(state["step"])
        place = origin.sample + (step - origin.step) * int(old["batch_size"])
        is_same = (train_set.fingerprint(), seed) == (old["data_fingerprint"], old["seed"])
        if not is_same:
            epochs = -(-place // int(self.header.get("images") or len(train_set)))
            return DataOrigin(step, epochs * len(train_set))
        return origin if batch_size == old["batch_size"] else DataOrigin(step, place)

    def lengthened(self, settings: Settings, state: JsonObject) -> Settings:
        """Return the settings with the length that --extend N gives: N more than the source."""
        more = settings["extend"].value
        if more is None:
            return settings
        old = state["settings"]
        if settings["epochs"].value is None:
            total = int(old["steps"] if self.end is None else self.end) + more
            if total != int(total):
                raise UserError(
                    f"--extend {more:g}: expected a whole number of steps, as {self.run} has "
                    "--steps",
                    field="extend",
                )
            length = {"steps": int(total)}
        elif self.end is None:
            length = {"epochs": settings["epochs"].value + more}
        else:
            images = self.header.get("images") or 1
            length = {"epochs": self.end * int(old["batch_size"]) / images + more}
        rows = {name: Setting(length.get(name), SettingSource.FLAG) for name in LENGTHS}
        return settings | rows

    def check_classes(self, train_set: SampleDataset, data: str | None) -> None:
        """Raise UserError unless the data has the classes of the source."""
        old, new = self.header.get("classes"), classes_of(train_set)
        for difference in describe_classes(old or [], new or []) if old is not None else ():
            raise UserError(
                f"--data {data}: {difference}; a branch of {self.run} keeps its classes; to train "
                f"its weights on others: --model {self.run / 'best'}",
                field="data",
                file=data,
            )

    def changes_to(self, state: JsonObject, new: JsonObject, data: str | None) -> Branch:
        """Return the branch with the changes to its settings. Raises UserError if it has no steps.

        Args:
            state: state.json of the checkpoint.
            new: the immutable settings of the branch.
            data: its data folder.
        """
        old: JsonObject = state["settings"]
        changes = {
            name: [old[name], new[name]]
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        }
        changes.pop(FACT, None)
        if old.get(FACT) != new.get(FACT):  # there is none without a function of the user
            changes["augment"] = [old.get(FACT), new.get(FACT)]
        if changes.pop("data_fingerprint", None):
            changes["data"] = [stored_settings(self.run).get("data", {}).get("value"), data]
        if state["step"] >= new["steps"]:
            raise UserError(
                f"--branch {self.text}: that is step {state['step']}, and the branch ends at step "
                f"{new['steps']}; give it more steps with --extend N, --steps or --epochs",
                field="branch",
            )
        return replace(self, changes=changes)

    @property
    def keeps_best(self) -> bool:
        """True where the best score until then, and its weights, are those of the branch too."""
        return self.best is not None and self.changes.keys().isdisjoint(SCORE_SETTINGS)


def inherited_settings(
    settings: Settings, flags: Mapping[str, object], fields: Fields, task_name: str
) -> tuple[Mapping[str, object], Settings]:
    """Return the flags of a branch with its source in them, and the settings of that source.

    Once the branch has a checkpoint of its own, the settings are its own.

    Args:
        settings: of the command line alone, with --branch or --extend.
        flags: {name: value, or None where the flag is not given}.
        fields: of the task's config class and of TrainConfig.
        task_name: of the task.

    Raises:
        UserError: there is no such run, or it is not one that this command can branch.
    """
    for name in ("resume", "budget"):
        if settings[name].value is not None:
            raise UserError(f"{flag_of(name)}: not with --branch or --extend", field=name)
    if settings["extend"].value is not None and any(flags.get(name) for name in LENGTHS):
        raise UserError("--extend: give it or the whole length, not both", field="extend")
    if settings["branch"].value is None:
        flags = extended_run(settings, flags, task_name)
        settings = settings | {
            name: Setting(flags[name], SettingSource.FLAG)
            for name in ("branch", "output", "run_name")
        }
    text = settings["branch"].value
    source, output = parse_branch(text).run, output_folder(settings, task_name)
    if output.resolve() == source.resolve():
        raise UserError(
            f"--output {output}: the run to branch from keeps its folder; leave it away for "
            f"{output_folder(settings | {'output': Setting(None, SettingSource.FLAG)}, task_name)}",
            field="output",
        )
    own = own_record(output, text, settings["extend"].value)
    base = base_settings(output if own else source, text, task_name)
    for name in KEPT:
        given, kept = settings[name], base.get(name)
        is_given = given.source in (SettingSource.FLAG, SettingSource.CONFIG)
        if kept and is_given and given.value != kept.value:
            raise UserError(
                f"{flag_of(name)} {given.value}: a branch of {source} keeps its {kept.value}; to "
                f"train its weights in another way: --model {source / 'best'}",
                field=name,
            )
    return flags, {name: setting for name, setting in base.items() if name in fields}


def extended_run(
    settings: Settings, flags: Mapping[str, object], task_name: str
) -> Mapping[str, object]:
    """Return the flags of --extend without --branch: the run that they name is the source."""
    source, ending = output_folder(settings, task_name), f"-extend-{settings['extend'].value:g}"
    return {**flags, "branch": str(source), "output": f"{source}{ending}", "run_name": None}


def base_settings(run: Path, text: str, task_name: str) -> Settings:
    """Return the settings that a branch takes from a run. Raises UserError if it is none."""
    stored, path = stored_settings(run), run / "settings.json"
    if "task" not in stored:
        why = "is not the folder of a run (no settings.json)" if run.is_dir() else "no such folder"
        raise UserError(
            f"--branch {text}: {run}: {why}; expected RUN@STEP, RUN@best or RUN",
            field="branch",
            file=str(run),
        )
    task = stored["task"]["value"]
    if task != task_name:
        raise UserError(
            f"--branch {text}: a run of {task}, which python bin/{task}.py trains", field="branch"
        )
    values = read_config_file(path)
    if values.get("budget") is not None:  # the steps that were measured to fit
        values |= {"budget": None, "steps": stored["steps"]["value"]}
    return {
        name: Setting(value, SettingSource.CONFIG, str(path))
        for name, value in values.items()
        if name not in NOT_INHERITED
    }


def own_record(output: Path, text: str, extend: float | None) -> JsonObject | None:
    """Return branch.json of a branch that has a checkpoint of its own, None otherwise.

    Raises:
        UserError: the folder is that of another run, or of another branch.
    """
    record, steps = read_record(output), [step for step, _ in step_folders(output / "checkpoints")]
    if not steps:
        return None
    if record is None or (parse_branch(record["branch"]), record["extend"]) != (
        parse_branch(text),
        extend,
    ):
        found = "another run"
        if record:
            more = "" if record["extend"] is None else f" --extend {record['extend']:g}"
            found = f"--branch {record['branch']}{more}"
        raise UserError(
            f"--output {output}: is the folder of {found}; give this branch another one",
            field="output",
            file=str(output),
        )
    return record if max(steps) >= record["step"] else None


def find_branch(settings: Settings, output: Path, start: Path | None) -> Branch | None:
    """Return the checkpoint that a branch begins with; None where it is resumed or no branch.

    Args:
        settings: of the command line.
        output: the folder of the branch.
        start: its newest valid checkpoint, or None.

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    text, record = settings["branch"].value, read_record(output)
    if text is None or (start and record and read_state(start)["step"] >= record["step"]):
        return None
    run, at = parse_branch(text)
    checkpoint = find_checkpoint(run, at, text)
    state = read_state(checkpoint)
    is_over = state["out_of_patience"] or read_budget(run).get("ended_at") == state["step"]
    is_last = state["step"] == state["settings"]["steps"]
    if settings["extend"].value is not None and at == NEWEST and not (is_over or is_last):
        raise UserError(
            f"--extend: {run} is not finished (step {state['step']} of "
            f"{state['settings']['steps']}): its own command resumes it",
            field="extend",
        )
    best = state["best"] and checkpoint.with_name(step_folder_name(state["best"]["step"]))
    return Branch(
        text=text,
        run=run,
        checkpoint=checkpoint,
        best=best if best and not problems(best) else None,
        header=read_header(run),
        end=state["step"] if is_over else None,
    )


def find_checkpoint(run: Path, at: int | str, text: str) -> Path:
    """Return the folder of a checkpoint. Raises UserError for one that is missing or damaged."""
    checkpoints = run / "checkpoints"
    folders = dict(step_folders(checkpoints))
    newest = latest_valid(checkpoints)
    if newest is None:
        why = "no checkpoint there is complete" if folders else "no checkpoint"
        raise UserError(f"--branch {text}: {checkpoints}: {why}", field="branch", file=str(run))
    if at == NEWEST:
        return newest
    best = (read_state(newest)["best"] or {}).get("step")
    step = best if at == BEST else cast(int, at)
    if step not in folders:
        there = ", ".join(f"{one} (best)" if one == best else str(one) for one in folders)
        wanted = "a best score" if step is None else f"step {step}"
        raise UserError(
            f"--branch {text}: no checkpoint of {wanted}; there are {there}; --keep-every N keeps "
            "more of them",
            field="branch",
            file=str(checkpoints),
        )
    damage = problems(folders[step])
    if damage:
        raise UserError(
            f"--branch {text}: {folders[step]} is damaged ({damage[0]})",
            code="bad_checkpoint",
            field="branch",
            file=str(folders[step]),
        )
    return folders[step]
