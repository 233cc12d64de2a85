"""Branches of runs: what a page says of one, and the tree that they form. No torch here."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from visionloop.bin.reports.run_folder import as_object, is_number, read_object
from visionloop.engine.branches.record import RECORD, check_history
from visionloop.engine.types import JsonObject

MAX_CHANGES = 4  # named in a line

Row = TypeVar("Row")


def read_branch(folder: Path, notes: list[str] | None = None) -> JsonObject | None:
    """Return {"run", "name", "step", "changes"} of a branch, None for any other run.

    Args:
        folder: of the run.
        notes: receives what is wrong with the history that it shares; None: it is not read.

    Returns:
        run: path of the source; changes: {setting: [value of the source, value of the branch]}.
    """
    if not (folder / RECORD).is_file():
        return None
    record = read_object(folder / RECORD, notes)
    run, step = record.get("run"), record.get("step")
    if not isinstance(run, str) or not is_number(step):
        return None
    if notes is not None and (problem := check_history(folder, record)):
        notes.append(problem)
    changes = {
        str(name): values
        for name, values in as_object(record.get("changes")).items()
        if isinstance(values, list) and len(values) == 2
    }
    return {"run": run, "name": Path(run).name, "step": int(step), "changes": changes}


def changes_text(changes: JsonObject) -> str:
    """Return the changes of a branch in one line, as `lr 0.001 -> 0.0001`."""
    parts = [f"{name} {old} -> {new}" for name, (old, new) in changes.items()]
    more = len(parts) - MAX_CHANGES
    return ", ".join(parts[:MAX_CHANGES] + ([f"{more} more"] if more > 0 else [])) or "no changes"


def source_of(folder: Path, branch: JsonObject | None) -> tuple[Path, ...]:
    """Return where the source of a branch may be: as recorded, or moved along beside it."""
    if branch is None:
        return ()
    return Path(branch["run"]), folder.parent / branch["name"]


def in_tree(
    rows: Sequence[Row], place: Callable[[Row], tuple[Path, JsonObject | None]]
) -> Iterator[tuple[int, Row]]:
    """Yield (depth, row), each branch below its source; the order is kept otherwise.

    A tree stands where the first of its rows was.

    Args:
        rows: of runs.
        place: returns the folder of a row, with links resolved, and its branch or None.
    """
    folders = [place(row)[0] for row in rows]
    number = {folder: i for i, folder in enumerate(folders)}
    parents: list[int | None] = []
    for row in rows:
        found = [number[path] for path in source_of(*place(row)) if path in number]
        parents.append(found[0] if found else None)
    children: dict[int | None, list[int]] = {}
    for i, parent in enumerate(parents):
        children.setdefault(parent, []).append(i)
    done: set[int] = set()

    def below(i: int, depth: int) -> Iterator[tuple[int, Row]]:
        if i in done:  # folders that were copied over each other may name each other
            return
        done.add(i)
        yield depth, rows[i]
        for child in children.get(i, ()):
            yield from below(child, depth + 1)

    for i in range(len(rows)):
        root, seen = i, {i}
        while (parent := parents[root]) is not None and parent not in seen:
            root = parent
            seen.add(root)
        yield from below(root, 0)
