"""Result rows: their environment, tables for people, JSON lines for programs."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click

# figures that JSON can hold and values of options: neither has a static type
Value = Any  # type: ignore[explicit-any]
Row = dict[str, Value]
PACKAGES = ("visionloop", "torch", "torchvision", "transformers")


def describe_environment(**options: Value) -> Row:
    """Return options, package versions, machine and load average: what belongs to every figure."""
    python = platform.python_version()
    return {
        "options": {name: value for name, value in options.items() if value is not None},
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {python}",
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def write_results(
    name: str, rows: Sequence[Row], json_file: Path | None, keys: Iterable[str],
    columns: Mapping[str, str], context: Row,
) -> None:  # fmt: skip
    """Print a table of the rows with a legend, and append the whole rows to `json_file`.

    name: of the benchmark; keys: columns that name the case; columns: {column: meaning}, of which
    the table has those of the first row; context: values that belong to all rows.
    """
    printed_columns = [*keys, *(column for column in columns if column in rows[0])]
    print_table([{column: row[column] for column in printed_columns} for row in rows])
    for row in rows:
        append_line(json_file, {"benchmark": name, **context, **row})
    print_legend({**columns, **context})


def print_legend(meanings: Mapping[str, Value]) -> None:
    """Print a line for each label of a table and each value that belongs to all its rows."""
    for label, value in meanings.items():
        click.echo(f"{label:24} {_as_text(value)}")


def append_line(json_file: Path | None, row: Row) -> None:
    """Append one JSON object to a file of JSON lines; None writes nothing."""
    if json_file:
        with open(json_file, "a") as file:
            file.write(json.dumps(row) + "\n")


def print_table(rows: Sequence[Row]) -> None:
    """Print rows as aligned columns, those of the first row; numbers are aligned to the right."""
    columns = []
    for name in rows[0]:
        cells = [name, *(_as_text(row[name]) for row in rows)]
        is_text = any(isinstance(row[name], str | bool) for row in rows)
        width = max(map(len, cells))
        columns.append([f"{cell:{'<' if is_text else '>'}{width}}" for cell in cells])
    for line in zip(*columns, strict=True):
        click.echo("  ".join(line).rstrip())


def _as_text(value: Value) -> str:
    return "-" if value is None else str(value)
