"""The ways in which a run is stopped, and what each may leave behind."""

import os
import signal
import time

from visionloop.bin.soaks.runs import newest_step
from visionloop.engine.checkpoints.folder import step_folders
from visionloop.engine.system.fault_injection import POINTS

FAULT_SHARE = 0.25
FAULTS = [f"killed {point}" for point in POINTS]
DISKS = {"disk full": "ENOSPC", "read-only folder": "EROFS"}
DAMAGE = ("flipped byte", "truncated file")
OTHERS = ("killed", "SIGTERM", "SIGTERM in evaluation", "SIGTERM in a data wait", *DISKS, *DAMAGE)
ONE_RANK = "one rank killed"
WEIGHTS = {"killed": 4, "SIGTERM": 2}  # against 1 of the others
# exit codes of a process that was not itself killed; a run may always have been at its end
EXPECTED = {name: {0, 75} for name in OTHERS if name.startswith("SIGTERM")} | {
    name: {0, 2} for name in DISKS
}
SURVIVOR = {0, 75}  # of the process whose peer was killed


def choose(generator, kind):
    """The name of the next injury. A quarter are inside the write of a checkpoint."""
    if generator.random() < FAULT_SHARE:
        return generator.choice(FAULTS)
    names = [*OTHERS, *([ONE_RANK] if kind.processes > 1 else [])]
    return generator.choices(names, [WEIGHTS.get(name, 1) for name in names])[0]


def fault_of(injury, generator, writes):
    """The fault that a trainee is armed with, or None. writes: how many checkpoints are still to be written, about."""
    if injury in FAULTS:
        return {
            "point": injury.removeprefix("killed "),
            "after": generator.randrange(max(1, writes)),
            "action": "kill",
        }
    if injury in DISKS:
        return {
            "point": generator.choice(POINTS),
            "after": generator.randrange(max(1, writes)),
            "action": DISKS[injury],
        }
    return None


def inflict(injury, processes, board, generator, seconds):
    """Do to the processes what the injury is, and wait until they are gone. seconds: about how long they would run.

    Returns {"exit_codes", "hung", and for a signal that asks: "signal_seconds", until the last
    process was gone}.
    """
    told = {}
    if injury.startswith("SIGTERM"):
        phase = {"SIGTERM in evaluation": "evaluation", "SIGTERM in a data wait": "data_wait"}.get(
            injury
        )
        moment = time.monotonic() + generator.uniform(0, seconds)
        processes.wait(
            until=lambda: (
                time.monotonic() > moment
                or (phase is not None and board.phase() == phase and board.step() > 0)
            )
        )
        told = {"in_phase": phase is not None and board.phase() == phase}
        # torchrun passes a signal on to all of its processes; a platform may send it to one
        asked = time.monotonic()
        processes.send(
            signal.SIGTERM,
            None if generator.random() < 0.7 else [generator.randrange(len(processes.pids))],
        )
    elif injury in ("killed", *DAMAGE, ONE_RANK):
        moment = time.monotonic() + generator.uniform(0, seconds)
        processes.wait(until=lambda: time.monotonic() > moment)
        processes.send(
            signal.SIGKILL,
            [generator.randrange(len(processes.pids))] if injury == ONE_RANK else None,
        )
    on_time = processes.wait()
    processes.wait(5)
    if injury.startswith("SIGTERM") and 75 in processes.exit_codes:
        told["signal_seconds"] = time.monotonic() - asked
    return told | {"exit_codes": processes.exit_codes, "hung": not on_time}


def unexpected(injury, exit_codes, reached):
    """True when a process ended otherwise than this injury may end it. reached: the step it came to, 0 before the first."""
    allowed = set(EXPECTED.get(injury, {0, -signal.SIGKILL}))
    if len(exit_codes) > 1:
        allowed |= SURVIVOR
    if injury.startswith("SIGTERM") and not reached:
        allowed.add(
            -signal.SIGTERM
        )  # it came before the run was ready for it: there was nothing to save
    return not set(exit_codes) <= allowed


def damage(injury, output, generator):
    """Flip a bit of, or cut short, one file of the newest checkpoint, if there is an older one. Returns the folder's name, or None."""
    folders = [folder for _, folder in step_folders(output / "checkpoints")]
    if len(folders) < 2 or newest_step(output) == 0:
        return None
    path = generator.choice(
        [path for path in sorted(folders[-1].rglob("*")) if path.is_file() and path.stat().st_size]
    )
    size = path.stat().st_size
    if injury == "truncated file":
        os.truncate(path, generator.randrange(size))
        return folders[-1].name
    with open(path, "r+b") as file:
        place = generator.randrange(size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << generator.randrange(8))]))
    return folders[-1].name
