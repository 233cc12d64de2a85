"""`train --seeds N`: one training after another, each in a process of its own, and a summary."""

import json
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionloop.bin.launches.supervise import supervise
from visionloop.bin.model_zoo.listing import MODEL_ZOOS
from visionloop.bin.reports.run_folder import as_object, best_of, read_object
from visionloop.engine.checkpoints.files import finite, replace_file
from visionloop.engine.config.options import Settings, flag_of
from visionloop.engine.config.resolve import output_folder
from visionloop.engine.errors import DEFECT, FINISHED, STOPPED, UserError
from visionloop.engine.metric import MetricSpec
from visionloop.engine.types import JsonObject

SUMMARY = "seeds.json"
# settings of the machine, which may change between starts
MAY_CHANGE = ("data", "workers", "device", "threads", "micro_batch", "cache", "cache_memory")


@dataclass(frozen=True)
class SeedsCommand:
    """A `train` command with --seeds.

    Attributes:
        launcher: file of the task's commands.
        task: name of the task.
        flags: {setting: value} of the command line, None where it is not given.
        config_file: of --config.
        settings: what flags and file resolve to, which must not change between starts.
        count: number of seeds.
    """

    launcher: str
    task: str
    flags: Mapping[str, object]
    config_file: str | None
    settings: Settings
    count: int

    @property
    def output(self) -> Path:
        """Folder of the runs."""
        return output_folder(self.settings, self.task)

    @property
    def seeds(self) -> list[int]:
        """The seeds, from --seed on."""
        first = int(self.settings["seed"].value)
        return list(range(first, first + self.count))

    def folder(self, seed: int) -> Path:
        """Return the folder of one run."""
        return self.output / f"seed_{seed}"

    def words(self, seed: int) -> list[str]:
        """Return the command of one run."""
        own = {"seed": seed, "output": self.folder(seed), "run_name": None}
        words = [sys.executable, self.launcher, "train"]
        for name, value in {**self.flags, **own}.items():
            if isinstance(value, bool):
                words.append(flag_of(name) if value else f"--no-{flag_of(name)[2:]}")
            elif value is not None:
                words += [flag_of(name), str(value)]
        return words + (["--config", self.config_file] if self.config_file else [])


def train_seeds(command: SeedsCommand) -> int:
    """Train every seed that is not finished, then print and write the summary.

    Returns the exit code: that of the first run that does not finish.

    Raises UserError, see `check_start` and `require_same_settings`.
    """
    check_start(command)
    require_same_settings(command)
    for seed in command.seeds:
        status = read_object(command.folder(seed) / "status.json")
        if status.get("state") == "finished":
            print(f"seed {seed}: finished before, in {command.folder(seed)}", flush=True)
            continue
        print(f"seed {seed}: {command.folder(seed)}", flush=True)
        code, was_stopped = supervise(command.words(seed), name="visionloop")
        if was_stopped or code == STOPPED:
            print("stopped; the same command goes on", file=sys.stderr)
            return STOPPED
        if code < 0:
            print(f"ended by signal {-code}; the same command goes on", file=sys.stderr)
        if code != FINISHED:
            return code if code > 0 else DEFECT
    summary = write_summary(command)
    print("\n".join(summary_lines(command, summary)))
    return FINISHED


def check_start(command: SeedsCommand) -> None:
    """Raise UserError under torchrun, with --resume, and for the folder of a single run."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            "--seeds: starts one training after another, which torchrun cannot; start it once for "
            f"each seed: --seed S --output {command.output}/seed_S",
            field="seeds",
        )
    if command.settings["resume"].value:
        raise UserError(
            "--resume: names one checkpoint, --seeds trains several runs; repeat the command "
            "without --resume to go on with them",
            field="resume",
        )
    if (command.output / "settings.json").is_file():
        raise UserError(
            f"--output {command.output}: is the folder of a single run, expected another one for "
            "the runs of --seeds",
            field="output",
        )


def require_same_settings(command: SeedsCommand) -> None:
    """Write the settings into seeds.json, or compare them with those of an earlier start.

    Raises UserError for the first one that differs; the number of seeds may.
    """
    path = command.output / SUMMARY
    settings = {
        name: setting.as_json()["value"]
        for name, setting in command.settings.items()
        if name not in ("seed", "output", "run_name")
    }
    content = json.loads(json.dumps(settings, default=str))
    old = as_object(read_object(path).get("settings"))
    for name in sorted(old.keys() & content.keys()):
        if name not in MAY_CHANGE and old[name] != content[name]:
            raise UserError(
                f"{flag_of(name)}: the runs in {command.output} have {old[name]}, this command has "
                f"{content[name]}; the seeds of one setting differ in nothing else (start others "
                "with --output)",
                code="changed_setting",
                field=name,
            )
    if not old:
        command.output.mkdir(parents=True, exist_ok=True)
        write(path, {"schema": 1, "task": command.task, "settings": content})


def write_summary(command: SeedsCommand) -> JsonObject:
    """Write the best scores of the runs, and their mean, spread and range, into seeds.json."""
    runs: list[JsonObject] = []
    for seed in command.seeds:
        best = best_of(read_object(command.folder(seed) / "status.json"))
        runs.append({"seed": seed, "folder": f"seed_{seed}", "best": best})
    scores = [as_object(run["best"] and run["best"]["scores"]) for run in runs]
    summary = {}
    for key in scores[0]:
        values = [each[key] for each in scores if each.get(key) is not None]
        if len(values) == len(scores):
            summary[key] = {
                "mean": statistics.fmean(values),
                "spread": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values),
                "max": max(values),
            }
    path = command.output / SUMMARY
    content = read_object(path) | {"runs": runs, "summary": summary}
    write(path, content)
    return content


def summary_lines(command: SeedsCommand, content: JsonObject) -> list[str]:
    """Return a table: mean, standard deviation, smallest and largest of each score."""
    zoo = next((zoo for zoo in MODEL_ZOOS if zoo.command == command.task), None)
    specs = {spec.key: spec for spec in zoo.metrics} if zoo else {}
    summary = content["summary"]
    heading = f"best scores of {command.count} seeds, written to {command.output / SUMMARY}"
    if not summary:
        return [f"{heading}: no evaluation yet"]
    rows: list[tuple[str, ...]] = [("", "mean", "spread", "min", "max")]
    for key in [key for key in specs if key in summary] + [k for k in summary if k not in specs]:
        spec = specs.get(key, MetricSpec(key, key, "float", True, ""))
        row = summary[key]
        spread = math.nan if row["spread"] is None else row["spread"]
        shown = [spec.show(row["mean"]), "-" if math.isnan(spread) else spec.show(spread)]
        rows.append((spec.label, *shown, spec.show(row["min"]), spec.show(row["max"])))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    table = [join(row, widths) for row in rows]
    return [heading, *table, f"compare with other runs: bin/compare.py OTHER {command.output}"]


def join(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line of a table: the first cell on the left, numbers on the right."""
    cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *cells])


def write(path: Path, content: JsonObject) -> None:
    """Write JSON at once."""
    replace_file(path, json.dumps(finite(content), indent=1) + "\n")
