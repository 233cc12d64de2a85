"""A round: one run from its beginning to its end, stopped many times on the way, compared with the one that was left alone."""

import json
import random
import re
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from visionloop.bin.soaks.board import TensorBoardWriter
from visionloop.bin.soaks.injuries import DAMAGE, choose, damage, fault_of, inflict, unexpected
from visionloop.bin.soaks.runs import STEPS, fingerprint, newest_step, start_run, unreadable
from visionloop.bin.soaks.small_disk import filled

MOST_IN_A_ROUND = 12
FRESH_SHARE = 0.1  # of the starts go through a new interpreter
SAVE_EVERY = 3
FEW_CHECKPOINTS = 1.5  # at most so many still fit on a disk that is filled


class Soak:
    """A folder with data, undisturbed runs, and the record of all rounds so far. fillable: its runs/ is a disk that may be filled."""

    def __init__(self, folder, seed, *, fillable=False):
        self.folder, self.fillable, self.records = folder, fillable, folder / "rounds.jsonl"
        # a call that adds to a record draws other moments than the one before
        self.generator = random.Random(
            f"{seed} {self.records.stat().st_size if self.records.exists() else 0}"
        )
        self.damaged = (
            set()
        )  # names of the folders of this round's run that were damaged on purpose

    def straight(self, kind):
        """{"fingerprint", "seconds", "step_seconds", "checkpoint_bytes"} of the undisturbed run, made at the first call and kept."""
        path = self.folder / "straight" / f"{kind.name}.json"
        if path.exists():
            return json.loads(path.read_text())
        output = self.folder / "straight" / kind.name
        shutil.rmtree(output, ignore_errors=True)
        output.parent.mkdir(exist_ok=True)
        processes = start_run(
            kind, output, path.with_suffix(".board"), log=path.with_suffix(".log")
        )
        processes.wait()
        seconds = time.monotonic() - processes.began
        if set(processes.exit_codes) != {0}:
            raise RuntimeError(
                f"the undisturbed run ended with {processes.exit_codes}, see {path.with_suffix('.log')}.0"
            )
        steps = [
            row["step_ms"] / 1000
            for row in map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
            if "step_ms" in row
        ]
        size = sum(
            path.stat().st_size for path in (output / "checkpoints" / f"step_{STEPS:08d}").iterdir()
        )
        found = {
            "fingerprint": fingerprint(output),
            "seconds": seconds,
            "step_seconds": max(steps),
            "checkpoint_bytes": size,
        }
        path.write_text(json.dumps(found))
        return found

    def round(self, kind, most):
        """Stop one run up to `most` times, let it end, compare, and add the record to rounds.jsonl. Returns the record."""
        straight, output = self.straight(kind), self.folder / "runs" / kind.name
        shutil.rmtree(output, ignore_errors=True)
        output.parent.mkdir(exist_ok=True)
        self.damaged.clear()
        log = self.folder / "logs" / f"{kind.name}.log"
        log.parent.mkdir(exist_ok=True)
        for old in log.parent.glob(f"{log.name}.*"):
            old.unlink()
        starts = []
        while len(starts) < min(most, MOST_IN_A_ROUND) and (
            not starts or newest_step(output) < STEPS
        ):
            starts.append(self.start(kind, output, log, straight))
        before, fresh = newest_step(output), self.generator.random() < 0.5
        calm = start_run(kind, output, log.with_suffix(".board"), log=log, fresh=fresh)
        restart, hung = (
            seconds_to_first_step(
                calm, TensorBoardWriter(log.with_suffix(".board"), kind.processes)
            ),
            not calm.wait(),
        )
        differing = (
            self.compare(output, straight)
            if set(calm.exit_codes) == {0}
            else ["the last start did not finish"]
        )
        last = {
            "hung": hung,
            "lost": resumed_at(log) not in (None, before),
            "fresh": fresh,
            "restart_seconds": restart,
        }
        record = {
            "kind": kind.name,
            "starts": starts,
            "last": last,
            "differing": differing,
            "step_seconds": straight["step_seconds"],
        }
        with open(self.records, "a") as file:
            file.write(json.dumps(record) + "\n")
        return record

    def compare(self, output, straight):
        """Names of what is not the same bytes as in the undisturbed run."""
        found, wanted = fingerprint(output), straight["fingerprint"]
        return sorted(
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        )

    def start(self, kind, output, log, straight):
        """One start that is stopped: what was done, what it left, and whether it went on from where it should."""
        generator, board_path = self.generator, log.with_suffix(".board")
        injury, before = choose(generator, kind), newest_step(output)
        fresh = generator.random() < FRESH_SHARE
        on_small_disk = injury == "disk full" and self.fillable
        fault = (
            None if on_small_disk else fault_of(injury, generator, (STEPS - before) // SAVE_EVERY)
        )
        spare, began = (
            int(generator.uniform(0, FEW_CHECKPOINTS) * straight["checkpoint_bytes"]),
            time.time(),
        )
        with filled(output.parent, spare) if on_small_disk else nullcontext():
            processes = start_run(kind, output, board_path, log=log, fault=fault, fresh=fresh)
            board = TensorBoardWriter(board_path, kind.processes)
            told = inflict(
                injury,
                processes,
                board,
                generator,
                straight["seconds"] * (STEPS - before + 2) / STEPS * 0.6,
            )
        reached, newest = (
            max(board.step(rank) for rank in range(kind.processes)),
            newest_step(output),
        )
        lost = newest < before or (
            reached > 0 and before != resumed_at(log)
        )  # one that ended before its first step may not have said it
        record = told | {
            "injury": injury, "fresh": fresh, "before": before, "reached": reached, "newest": newest,
            "unreadable": [name for name in unreadable(output) if name not in self.damaged],
            "lost": lost, "unexpected": unexpected(injury, told["exit_codes"], reached),
            "killed": any(code != 0 for code in told["exit_codes"]),
            "repeated_steps": max(0, reached - newest) if reached else 0, "repeated_seconds": time.time() - newest_time(output, began),
        }  # fmt: skip
        if record["unexpected"] or told["hung"]:
            record["printed"] = log.with_name(f"{log.name}.0").read_text()[-3000:]
        if injury in DAMAGE:
            damaged = damage(injury, output, generator)
            record["damaged"] = damaged is not None
            self.damaged.add(damaged)
        return record


def seconds_to_first_step(processes, board):
    """Seconds from the start to the end of the first step, None when there was none to do."""
    processes.wait(until=lambda: board.step() > 0)
    return time.monotonic() - processes.began if board.step() > 0 else None


def resumed_at(log):
    """The step that the newest start says it goes on from, 0 for a run that began anew; None for one that had nothing to do."""
    text = Path(f"{log}.0").read_text()
    if text.endswith("nothing to do\n"):
        return None
    found = re.findall(
        r"^continuing after step (\d+)$", text[text.rfind(" steps of ") :], flags=re.MULTILINE
    )
    return int(found[0]) if found else 0


def newest_time(output, began):
    """When the newest checkpoint was written, seconds since 1970, not before `began`."""
    times = [path.stat().st_mtime for path in (output / "checkpoints").glob("step_*")]
    return max([began, *times])
