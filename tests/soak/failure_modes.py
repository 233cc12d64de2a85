"""The failure modes that stop a run, and the exit codes that each allows."""

import os
import random
import signal
import time
from pathlib import Path

from killed_runs import Case, Processes, newest_step
from progress_file import ProgressFile

from visionloop.engine.checkpoints.folder import step_folders
from visionloop.engine.errors import FINISHED, STOPPED, USER_ERROR
from visionloop.engine.system.fault_injection import POINTS

FAULT_SHARE = 0.25
FAULTS = [f"killed {point}" for point in POINTS]
DISKS = {"disk full": "ENOSPC", "read-only folder": "EROFS"}
DAMAGE = ("flipped byte", "truncated file")
PHASES = {"SIGTERM in evaluation": "evaluation", "SIGTERM in a data wait": "data_wait"}
OTHERS = ("killed", "SIGTERM", *PHASES, *DISKS, *DAMAGE)
ONE_RANK = "one rank killed"
WEIGHTS = {"killed": 4, "SIGTERM": 2}  # 1 for the others
# exit codes of a process that was not itself killed; a run may always have been at its end
EXPECTED = {name: {FINISHED, STOPPED} for name in OTHERS if name.startswith("SIGTERM")}
EXPECTED |= {name: {FINISHED, USER_ERROR} for name in DISKS}
SURVIVOR = {FINISHED, STOPPED}  # of a process whose peer was killed
ALL_RANKS_SHARE = 0.7  # torchrun passes a signal on to all ranks; a platform may send it to one


def choose(generator: random.Random, case: Case) -> str:
    """Return the next failure mode. A quarter are within the write of a checkpoint."""
    if generator.random() < FAULT_SHARE:
        return generator.choice(FAULTS)
    names = [*OTHERS, *([ONE_RANK] if case.processes > 1 else [])]
    return generator.choices(names, [WEIGHTS.get(name, 1) for name in names])[0]


def fault_of(mode: str, generator: random.Random, writes: int) -> dict[str, object] | None:
    """Return the fault that a worker injects, or None.

    writes: about how many checkpoints are still to be written.
    """
    after = generator.randrange(max(1, writes)) if mode in (*FAULTS, *DISKS) else 0
    if mode in FAULTS:
        return {"point": mode.removeprefix("killed "), "after": after, "action": "kill"}
    if mode in DISKS:
        return {"point": generator.choice(POINTS), "after": after, "action": DISKS[mode]}
    return None


def inflict(
    mode: str,
    processes: Processes,
    progress: ProgressFile,
    generator: random.Random,
    seconds: float,
) -> dict[str, object]:
    """Stop the processes in this mode and wait until they have ended.

    seconds: about how long they would run. Returns {"exit_codes", "hung"}; for a signal also
    "in_phase" and, if it led to a stop, "signal_seconds" until the last process had ended.
    """
    result: dict[str, object] = {}
    moment, signaled_at = time.monotonic() + generator.uniform(0, seconds), 0.0
    if mode.startswith("SIGTERM"):
        phase = PHASES.get(mode)

        def in_phase() -> bool:
            return phase is not None and progress.phase() == phase

        processes.wait(
            until=lambda: time.monotonic() > moment or (in_phase() and progress.step() > 0)
        )
        result["in_phase"] = in_phase()
        signaled_at = time.monotonic()
        is_for_all = generator.random() < ALL_RANKS_SHARE
        ranks = None if is_for_all else [generator.randrange(len(processes.pids))]
        processes.send(signal.SIGTERM, ranks)
    elif mode in ("killed", *DAMAGE, ONE_RANK):
        processes.wait(until=lambda: time.monotonic() > moment)
        ranks = [generator.randrange(len(processes.pids))] if mode == ONE_RANK else None
        processes.send(signal.SIGKILL, ranks)
    ended_in_time = processes.wait()
    if signaled_at and STOPPED in processes.exit_codes:
        result["signal_seconds"] = time.monotonic() - signaled_at
    return result | {"exit_codes": processes.exit_codes, "hung": not ended_in_time}


def is_unexpected(mode: str, exit_codes: list[int], reached: int) -> bool:
    """Return whether a process ended otherwise than this mode allows.

    reached: the step that the run came to, 0 before its first.
    """
    allowed = set(EXPECTED.get(mode, {FINISHED, -signal.SIGKILL}))
    if len(exit_codes) > 1:
        allowed |= SURVIVOR
    if mode.startswith("SIGTERM") and not reached:
        allowed.add(-signal.SIGTERM)  # before the run handles signals there is nothing to save
    return not set(exit_codes) <= allowed


def damage(mode: str, output: Path, generator: random.Random) -> str | None:
    """Flip a bit of one file of the newest checkpoint, or truncate it, if an older one exists.

    Returns the folder's name, or None.
    """
    folders = [folder for _, folder in step_folders(output / "checkpoints")]
    if len(folders) < 2 or newest_step(output) == 0:
        return None
    files = [path for path in sorted(folders[-1].rglob("*")) if path.is_file()]
    path = generator.choice([path for path in files if path.stat().st_size])
    size = path.stat().st_size
    if mode == "truncated file":
        os.truncate(path, generator.randrange(size))
        return folders[-1].name
    with open(path, "r+b") as file:
        place = generator.randrange(size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << generator.randrange(8))]))
    return folders[-1].name
