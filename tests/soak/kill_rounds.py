"""The kill test: a run is stopped many times on its way and compared with an undisturbed one."""

import json
import random
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from failure_modes import DAMAGE, choose, damage, fault_of, inflict, is_unexpected
from killed_runs import (
    SAVE_EVERY,
    STEPS,
    Case,
    Processes,
    fingerprint,
    invalid_checkpoints,
    newest_step,
    start_run,
)
from progress_file import ProgressFile
from small_disk import filled

MOST_STOPS = 12  # of one run
FRESH_SHARE = 0.1  # of the starts use a new interpreter
FEW_CHECKPOINTS = 1.5  # at most that many fit on a disk that is filled

Record = dict[str, object]


class KillTest:
    """A folder with data, undisturbed runs, and the record of all rounds so far.

    fillable: whether its runs/ is a disk that may be filled.
    """

    def __init__(self, folder: Path, seed: int, *, fillable: bool = False):
        self.folder, self.fillable = folder, fillable
        self.records = folder / "rounds.jsonl"
        # a call that adds to a record draws other moments than the one before
        size = self.records.stat().st_size if self.records.exists() else 0
        self.generator = random.Random(f"{seed} {size}")
        self.damaged: set[str | None] = set()  # checkpoint folders of this round's run

    def undisturbed(self, case: Case) -> Record:
        """Return what an undisturbed run wrote; it is made at the first call.

        {"fingerprint", "seconds", "step_seconds", "checkpoint_bytes"}
        """
        path = self.folder / "undisturbed" / f"{case.name}.json"
        if path.exists():
            return json.loads(path.read_text())
        output = path.with_suffix("")
        shutil.rmtree(output, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        log = path.with_suffix(".log")
        processes = start_run(case, output, path.with_suffix(".progress"), log=log)
        processes.wait()
        seconds = time.monotonic() - processes.began
        if set(processes.exit_codes) != {0}:
            raise RuntimeError(f"the undisturbed run ended with {processes.exit_codes}: {log}.0")
        rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
        checkpoint = output / "checkpoints" / f"step_{STEPS:08d}"
        result = {
            "fingerprint": fingerprint(output),
            "seconds": seconds,
            "step_seconds": max(row["step_ms"] / 1000 for row in rows if "step_ms" in row),
            "checkpoint_bytes": sum(path.stat().st_size for path in checkpoint.iterdir()),
        }
        path.write_text(json.dumps(result))
        return result

    def round(self, case: Case, most: int) -> Record:
        """Stop one run up to `most` times, let it end, compare it, and append the record."""
        undisturbed, output = self.undisturbed(case), self.folder / "runs" / case.name
        shutil.rmtree(output, ignore_errors=True)
        output.parent.mkdir(exist_ok=True)
        self.damaged.clear()
        log = self.folder / "logs" / f"{case.name}.log"
        log.parent.mkdir(exist_ok=True)
        for old in log.parent.glob(f"{log.name}.*"):
            old.unlink()
        starts: list[Record] = []
        while len(starts) < min(most, MOST_STOPS) and (not starts or newest_step(output) < STEPS):
            starts.append(self.stopped_start(case, output, log, undisturbed))
        last, exit_codes = self.last_start(case, output, log)
        differing = ["the last start did not finish"]
        if set(exit_codes) == {0}:
            differing = differing_names(fingerprint(output), undisturbed["fingerprint"])
        record = {
            "case": case.name,
            "starts": starts,
            "last": last,
            "differing": differing,
            "step_seconds": undisturbed["step_seconds"],
        }
        with open(self.records, "a") as file:
            file.write(json.dumps(record) + "\n")
        return record

    def last_start(self, case: Case, output: Path, log: Path) -> tuple[Record, list[int]]:
        """Start once more and wait for the end; return (record, exit codes)."""
        before, fresh = newest_step(output), self.generator.random() < 0.5
        progress_path = log.with_suffix(".progress")
        processes = start_run(case, output, progress_path, log=log, fresh=fresh)
        progress = ProgressFile(progress_path, case.processes)
        restart_seconds = seconds_to_first_step(processes, progress)
        record = {"fresh": fresh, "restart_seconds": restart_seconds}
        record["hung"] = not processes.wait()
        record["lost"] = progress.resumed_at() not in (None, before)
        return record, processes.exit_codes

    def stopped_start(self, case: Case, output: Path, log: Path, undisturbed: Record) -> Record:
        """Start, stop, and record what was done, what remained, and where the start resumed."""
        generator, progress_path = self.generator, log.with_suffix(".progress")
        mode, before = choose(generator, case), newest_step(output)
        fresh = generator.random() < FRESH_SHARE
        on_small_disk = mode == "disk full" and self.fillable
        writes = (STEPS - before) // SAVE_EVERY
        fault = None if on_small_disk else fault_of(mode, generator, writes)
        spare = int(generator.uniform(0, FEW_CHECKPOINTS) * undisturbed["checkpoint_bytes"])
        began = time.time()
        seconds = undisturbed["seconds"] * (STEPS - before + 2) / STEPS * 0.6
        with filled(output.parent, spare) if on_small_disk else nullcontext():
            processes = start_run(case, output, progress_path, log=log, fault=fault, fresh=fresh)
            progress = ProgressFile(progress_path, case.processes)
            record = inflict(mode, processes, progress, generator, seconds)
        reached = max(progress.step(rank) for rank in range(case.processes))
        newest = newest_step(output)
        invalid = [name for name in invalid_checkpoints(output) if name not in self.damaged]
        record |= {
            "mode": mode,
            "fresh": fresh,
            "before": before,
            "reached": reached,
            "newest": newest,
            "invalid": invalid,
            "lost": newest < before or (reached > 0 and before != progress.resumed_at()),
            "unexpected": is_unexpected(mode, record["exit_codes"], reached),
            "stopped": any(code != 0 for code in record["exit_codes"]),
            "repeated_steps": max(0, reached - newest) if reached else 0,
            "repeated_seconds": time.time() - newest_time(output, began),
        }
        if record["unexpected"] or record["hung"]:
            record["printed"] = log.with_name(f"{log.name}.0").read_text()[-3000:]
        if mode in DAMAGE:
            damaged = damage(mode, output, generator)
            record["damaged"] = damaged is not None
            self.damaged.add(damaged)
        return record


def differing_names(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the names whose SHA-256 differs between two fingerprints."""
    names = first.keys() | second.keys()
    return sorted(name for name in names if first.get(name) != second.get(name))


def seconds_to_first_step(processes: Processes, progress: ProgressFile) -> float | None:
    """Return seconds from the start to the end of the first step; None if no step was left."""
    processes.wait(until=lambda: progress.step() > 0)
    return time.monotonic() - processes.began if progress.step() > 0 else None


def newest_time(output: Path, began: float) -> float:
    """Return when the newest checkpoint was written, in seconds since 1970, at least `began`."""
    times = [path.stat().st_mtime for path in (output / "checkpoints").glob("step_*")]
    return max([began, *times])
